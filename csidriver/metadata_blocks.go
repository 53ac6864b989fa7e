package csidriver

import (
	"context"
	"iter"
	"math"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

// maxBlocks is how many blocks go into one message: some 100 KiB, far below the
// 4 MiB that a client takes.
const maxBlocks = 4096

// blockWriter cuts a sequence of blocks into messages, and lets nothing through
// that CSI does not allow.
type blockWriter struct {
	kind   csi.BlockMetadataType
	volume int64 // bytes
	offset int64 // where the caller wants to start
	limit  int   // blocks in a message
	size   int64 // of all blocks, when kind is FIXED_LENGTH; 0: none was seen
	end    int64 // of the last block
	sent   bool
	blocks []*csi.BlockMetadata
	send   func(*blockWriter) error
}

func newBlockWriter(found backends.BlockMap, offset int64, limit int, send func(*blockWriter) error) (*blockWriter, error) {
	switch {
	case found.VolumeSize <= 0:
		return nil, badAnswer("changed blocks of a volume of %d bytes", found.VolumeSize)
	case found.Blocks == nil:
		return nil, badAnswer("no sequence of blocks and no error")
	case offset > found.VolumeSize:
		return nil, outOfRange("starting_offset %d is beyond the volume of %d bytes", offset, found.VolumeSize)
	}
	if limit == 0 || limit > maxBlocks {
		limit = maxBlocks
	}
	return &blockWriter{kind: pbconv.Blocks(found.Fixed), volume: found.VolumeSize, offset: offset, limit: limit, send: send}, nil
}

// writeAll ends well only when all blocks were sent. When the backend fails in
// the middle, what it found before is sent on: the caller may go on from there.
// A volume without blocks is one empty message, which tells the volume's size.
func (w *blockWriter) writeAll(ctx context.Context, blocks iter.Seq2[backends.Block, error]) error {
	for b, failure := range blocks {
		if failure != nil {
			if err := w.flush(); err != nil {
				return err
			}
			return failure
		}
		if err := w.write(ctx, b); err != nil {
			return err
		}
	}
	// A sequence that the end of the context cut short looks like a whole one.
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.sent {
		return w.flush()
	}
	return w.send(w)
}

func (w *blockWriter) write(ctx context.Context, b backends.Block) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.check(b); err != nil {
		return err
	}
	w.end, w.size = b.Offset+b.Size, b.Size
	if w.end <= w.offset {
		return nil
	}
	w.blocks = append(w.blocks, pbconv.Block(b))
	if len(w.blocks) < w.limit {
		return nil
	}
	return w.flush()
}

func (w *blockWriter) check(b backends.Block) error {
	switch {
	case b.Offset < 0 || b.Size <= 0 || b.Offset > math.MaxInt64-b.Size:
		return badAnswer("a block of %d bytes at %d", b.Size, b.Offset)
	case b.Offset < w.end:
		return badAnswer("a block at %d after one that ends at %d", b.Offset, w.end)
	case b.Offset >= w.volume:
		return badAnswer("a block at %d of a volume of %d bytes", b.Offset, w.volume)
	case w.kind == csi.BlockMetadataType_FIXED_LENGTH && w.size != 0 && b.Size != w.size:
		return badAnswer("a block of %d bytes after one of %d, though they are of one size", b.Size, w.size)
	}
	return nil
}

// flush sends what has come together. The message is the client's from then on.
func (w *blockWriter) flush() error {
	if len(w.blocks) == 0 {
		return nil
	}
	err := w.send(w)
	w.sent, w.blocks = true, make([]*csi.BlockMetadata, 0, w.limit)
	return err
}
