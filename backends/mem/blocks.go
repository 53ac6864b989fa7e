package mem

import (
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"github.com/csikit/csikit/backends"
)

// blockSize is the unit in which data is kept, sizes are rounded, and changes are
// told.
const blockSize = 4096

// blocks is what was written, by the number of the block. A block is never
// changed, only replaced: snapshots and clones share it.
type blocks map[int64]*[blockSize]byte

func (b blocks) clone() blocks {
	if b == nil {
		return make(blocks)
	}
	return maps.Clone(b)
}

func (b blocks) write(p []byte, off int64) {
	for len(p) > 0 {
		n, start := off/blockSize, off%blockSize
		block := new([blockSize]byte)
		if old := b[n]; old != nil {
			*block = *old
		}
		done := copy(block[start:], p)
		b[n] = block
		p, off = p[done:], off+int64(done)
	}
}

func (b blocks) read(p []byte, off int64) {
	for len(p) > 0 {
		var block [blockSize]byte
		if have := b[off/blockSize]; have != nil {
			block = *have
		}
		done := copy(p, block[off%blockSize:])
		p, off = p[done:], off+int64(done)
	}
}

// WriteAt writes to the blocks of a volume, as a user of its device would.
func (s *Store) WriteAt(volumeID string, p []byte, off int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.anywhere(volumeID)
	if err != nil {
		return err
	}
	if off < 0 || off > v.Capacity || int64(len(p)) > v.Capacity-off {
		return fmt.Errorf("mem: write of %d bytes at %d of volume %s: %w", len(p), off, volumeID, io.ErrShortWrite)
	}
	v.blocks.write(p, off)
	return nil
}

// ReadAt reads the blocks of a volume or of a snapshot.
func (s *Store) ReadAt(id string, p []byte, off int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, size := blocks(nil), int64(0)
	if snap := s.snapshots[id]; snap != nil && !snap.half {
		data, size = snap.blocks, snap.Size
	} else {
		v, err := s.anywhere(id)
		if err != nil {
			return err
		}
		data, size = v.blocks, v.Capacity
	}
	if off < 0 || off > size || int64(len(p)) > size-off {
		return fmt.Errorf("mem: read of %d bytes at %d of %s: %w", len(p), off, id, io.EOF)
	}
	data.read(p, off)
	return nil
}

// ChangedBlocks lists the blocks that were written since base, or ever.
func (b *Backend) ChangedBlocks(ctx context.Context, req backends.ChangedBlocksRequest) (backends.BlockMap, error) {
	c := Call{"ChangedBlocks", req.Target, req}
	return ask(ctx, b, c, func(context.Context) (backends.BlockMap, error) {
		base, target, err := b.store.pair(req)
		if err != nil {
			return backends.BlockMap{}, err
		}
		changed := differences(base, target.blocks)
		from, _ := slices.BinarySearch(changed, req.Offset/blockSize)
		return backends.BlockMap{VolumeSize: target.Size, Fixed: true, Blocks: b.stream(ctx, c, changed[from:])}, nil
	})
}

// pair looks the two snapshots up. base is nil when there is none.
func (s *Store) pair(req backends.ChangedBlocksRequest) (base blocks, target *snapshot, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	target, err = s.snapshot(req.Target)
	if err != nil || req.Base == "" {
		return nil, target, err
	}
	old, err := s.snapshot(req.Base)
	if err != nil {
		return nil, nil, err
	}
	if old.VolumeID != target.VolumeID {
		return nil, nil, fmt.Errorf("%w: snapshots %s and %s are of different volumes", backends.ErrInvalid, old.ID, target.ID)
	}
	return old.blocks, target, nil
}

// differences are the numbers of the blocks that are not the same, in order.
func differences(base, target blocks) []int64 {
	var changed []int64
	for n, block := range target {
		if old := base[n]; old != block && (old == nil || *old != *block) {
			changed = append(changed, n)
		}
	}
	slices.Sort(changed)
	return changed
}

// stream gives the blocks one by one, as long as the context lasts.
func (b *Backend) stream(ctx context.Context, c Call, changed []int64) iter.Seq2[backends.Block, error] {
	return func(yield func(backends.Block, error) bool) {
		for i, n := range changed {
			if i == len(changed)/2 {
				if err := b.midway(ctx, c); err != nil {
					yield(backends.Block{}, err)
					return
				}
			}
			if !yield(backends.Block{Offset: n * blockSize, Size: blockSize}, nil) {
				return
			}
		}
	}
}
