package walk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/status"
)

// span is a part of a volume, up to end.
type span struct{ offset, end int64 }

// blockMap is what a stream of block metadata told.
type blockMap struct {
	rpc      string
	capacity int64
	spans    []span // neighbours are one
}

func (m *blockMap) bytes() (n int64) {
	for _, s := range m.spans {
		n += s.end - s.offset
	}
	return n
}

// from is the part of the map that ends after an offset.
func (m *blockMap) from(offset int64) []span {
	i := slices.IndexFunc(m.spans, func(s span) bool { return s.end > offset })
	if i < 0 {
		return nil
	}
	rest := slices.Clone(m.spans[i:])
	rest[0].offset = max(rest[0].offset, offset)
	return rest
}

// covers tells whether every byte of a part is in the map.
func (m *blockMap) covers(s span) bool {
	i, found := slices.BinarySearchFunc(m.spans, s.offset, func(a span, at int64) int {
		switch {
		case a.end <= at:
			return -1
		case a.offset > at:
			return 1
		}
		return 0
	})
	return found && m.spans[i].end >= s.end
}

// message is what both kinds of answers have.
type message interface {
	GetBlockMetadataType() csi.BlockMetadataType
	GetVolumeCapacityBytes() int64
	GetBlockMetadata() []*csi.BlockMetadata
}

// mapReader holds a stream to the rules of the spec.
type mapReader struct {
	blockMap

	start int64
	limit int32
	kind  csi.BlockMetadataType
	fixed int64 // size of a block of FIXED_LENGTH
	last  int64 // end of the last block
}

func (r *mapReader) add(m message) error {
	if r.kind == csi.BlockMetadataType_UNKNOWN {
		r.kind, r.capacity = m.GetBlockMetadataType(), m.GetVolumeCapacityBytes()
	}
	switch {
	case r.kind == csi.BlockMetadataType_UNKNOWN || r.capacity <= 0:
		return fmt.Errorf("%s answers type %v and capacity %d", r.rpc, r.kind, r.capacity)
	case m.GetBlockMetadataType() != r.kind || m.GetVolumeCapacityBytes() != r.capacity:
		return fmt.Errorf("%s changes type or capacity within a stream", r.rpc)
	case r.limit > 0 && len(m.GetBlockMetadata()) > int(r.limit):
		return fmt.Errorf("%s answers %d blocks in a message, at most %d were asked for", r.rpc, len(m.GetBlockMetadata()), r.limit)
	}
	for _, b := range m.GetBlockMetadata() {
		if err := r.block(span{b.GetByteOffset(), b.GetByteOffset() + b.GetSizeBytes()}); err != nil {
			return err
		}
	}
	return nil
}

func (r *mapReader) block(b span) error {
	size := b.end - b.offset
	if r.fixed == 0 {
		r.fixed = size
	}
	switch {
	case b.offset < 0 || size <= 0 || b.end > r.capacity && r.kind == csi.BlockMetadataType_VARIABLE_LENGTH || b.offset >= r.capacity:
		return fmt.Errorf("%s answers a block at %d of %d bytes; the volume has %d", r.rpc, b.offset, size, r.capacity)
	case b.offset < r.last:
		return fmt.Errorf("%s answers a block at %d after one up to %d", r.rpc, b.offset, r.last)
	case b.end <= r.start:
		return fmt.Errorf("%s answers a block up to %d, asked for were those after %d", r.rpc, b.end, r.start)
	case r.kind == csi.BlockMetadataType_FIXED_LENGTH && size != r.fixed:
		return fmt.Errorf("%s answers blocks of %d and of %d bytes, and says that all are of one size", r.rpc, r.fixed, size)
	}
	r.last = b.end
	if n := len(r.spans); n > 0 && r.spans[n-1].end == b.offset {
		r.spans[n-1].end = b.end
		return nil
	}
	r.spans = append(r.spans, b)
	return nil
}

// stream opens a stream of block metadata from an offset on.
type openStream func(ctx context.Context, start int64, limit int32) (func() (message, error), error)

// readMap reads a stream to its end, at most limit blocks a message.
func (w *Walk) readMap(ctx context.Context, rpc string, open openStream, start int64, limit int32) (*blockMap, error) {
	ctx, cancel := context.WithTimeout(ctx, w.o.Timeout)
	defer cancel()
	began := time.Now()
	next, err := open(ctx, start, limit)
	r := mapReader{blockMap: blockMap{rpc: rpc}, start: start, limit: limit}
	messages := 0
	for err == nil {
		var m message
		if m, err = next(); err == nil {
			messages++
			if err := r.add(m); err != nil {
				return nil, err
			}
		}
	}
	if !errors.Is(err, io.EOF) {
		w.rpc(rpc, time.Since(began), status.Code(err).String()+": "+status.Convert(err).Message())
		return nil, &rpcError{rpc, err}
	}
	w.rpc(rpc, time.Since(began), fmt.Sprintf("from %d: %d messages, %s in %d pieces", start, messages, mib(r.bytes()), len(r.spans)))
	return &r.blockMap, nil
}

// receive makes one kind of both streams.
func receive[T message](s interface{ Recv() (T, error) }) func() (message, error) {
	return func() (message, error) { return s.Recv() }
}

func (s *snapshot) allocated(ctx context.Context, start int64, limit int32) (func() (message, error), error) {
	r, err := s.metadata.GetMetadataAllocated(ctx, &csi.GetMetadataAllocatedRequest{
		SnapshotId: s.id(), StartingOffset: start, MaxResults: limit, Secrets: s.o.Secrets})
	if err != nil {
		return nil, err
	}
	return receive(r), nil
}

func (s *snapshot) deltaFrom(base *snapshot) openStream {
	return func(ctx context.Context, start int64, limit int32) (func() (message, error), error) {
		r, err := s.metadata.GetMetadataDelta(ctx, &csi.GetMetadataDeltaRequest{
			BaseSnapshotId: base.id(), TargetSnapshotId: s.id(), StartingOffset: start, MaxResults: limit, Secrets: s.o.Secrets})
		if err != nil {
			return nil, err
		}
		return receive(r), nil
	}
}
