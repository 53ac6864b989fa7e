package backendtest

import (
	"bytes"
	"math/rand/v2"

	"github.com/csikit/csikit/backends"
)

// blocks collects what ChangedBlocks says, and looks at its order.
func (t *T) blocks(base, target string, offset int64) (list []backends.Block, size int64) {
	t.Helper()
	m, err := t.c.ChangedBlockTracker.ChangedBlocks(t.Context(), backends.ChangedBlocksRequest{
		Base: base, Target: target, Offset: offset, Secrets: t.cfg.secrets(),
	})
	t.must("ChangedBlocks", err)
	end := int64(0)
	for b, err := range m.Blocks {
		t.must("ChangedBlocks", err)
		switch {
		case b.Size <= 0 || b.Offset < 0:
			t.Errorf("block %+v", b)
		case b.Offset < end:
			t.Errorf("block %+v begins before the end of the one before, %d", b, end)
		case b.Offset+b.Size > m.VolumeSize:
			t.Errorf("block %+v ends beyond the volume's %d bytes", b, m.VolumeSize)
		case m.Fixed && len(list) > 0 && b.Size != list[0].Size:
			t.Errorf("block %+v, and all are said to have one size, %d", b, list[0].Size)
		}
		end = b.Offset + b.Size
		list = append(list, b)
	}
	return list, m.VolumeSize
}

// within tells whether all of [off, off+n) is in the blocks.
func within(blocks []backends.Block, off, n int64) bool {
	for _, b := range blocks {
		if b.Offset <= off && off < b.Offset+b.Size {
			done := b.Offset + b.Size - off
			if done >= n {
				return true
			}
			off, n = off+done, n-done
		}
	}
	return false
}

// sameSuffix fails the check unless resumed is what full has from offset on.
func (t *T) sameSuffix(full, resumed []backends.Block, offset int64) {
	t.Helper()
	for _, b := range full {
		if from := max(b.Offset, offset); from < b.Offset+b.Size && !within(resumed, from, b.Offset+b.Size-from) {
			t.Errorf("from %d on, block %+v is missing", offset, b)
		}
	}
	for _, b := range resumed {
		if !within(full, b.Offset, b.Size) {
			t.Errorf("from %d on there is block %+v, and from the start there is not", offset, b)
		}
	}
}

var blockChecks = []check{
	{
		"blocks/in order", "Blocks come in ascending order without overlap, from Offset on", "Controller Snapshotter ChangedBlockTracker",
		func(t *T) {
			v := t.create(t.name())
			if t.cfg.Content != nil {
				t.write(v.ID, "first", 0, 3*chunk, 5*chunk, 6*chunk, 40*chunk)
			}
			s := t.readySnapshot(t.name(), v.ID)
			full, size := t.blocks("", s.ID, 0)
			if v.Capacity > 0 && size != v.Capacity {
				t.Errorf("the map is of %d bytes, the volume has %d", size, v.Capacity)
			}
			offsets := []int64{1, chunk, 5 * chunk, size - 1, size}
			for _, b := range full {
				offsets = append(offsets, b.Offset, b.Offset+1, b.Offset+b.Size-1, b.Offset+b.Size)
			}
			for _, off := range offsets {
				if off <= size {
					resumed, _ := t.blocks("", s.ID, off)
					t.sameSuffix(full, resumed, off)
				}
			}
		},
	},
	{
		"blocks/nothing changed", "else what differs between the two", "Controller Snapshotter ChangedBlockTracker",
		func(t *T) {
			v := t.create(t.name())
			a := t.readySnapshot(t.name(), v.ID)
			b := t.readySnapshot(t.name(), v.ID)
			if got, _ := t.blocks(a.ID, b.ID, 0); len(got) > 0 {
				t.Errorf("between two snapshots of a volume that nobody wrote to: %+v", got)
			}
		},
	},
	{
		"blocks/against the data", "it lists what is allocated in Target, else what differs between the two", "Controller Snapshotter ChangedBlockTracker",
		func(t *T) {
			_ = t.content()
			seed := rand.Uint64()
			t.Logf("seed: %d", seed)
			random := rand.New(rand.NewPCG(seed, 1))
			for range 10 {
				t.compareBlocks(random)
			}
		},
	},
	{
		"blocks/of a volume that grew", "else what differs between the two", "Controller Snapshotter ChangedBlockTracker Expander",
		func(t *T) {
			v := t.filled()
			base := t.readySnapshot(t.name(), v.ID)
			size := t.twice(v)
			_, err := t.grow(t.Context(), v.ID, size)
			t.must("ExpandVolume", err)
			t.write(v.ID, "tail", size-chunk)
			target := t.readySnapshot(t.name(), v.ID)
			for _, from := range []string{"", base.ID} {
				list, told := t.blocks(from, target.ID, 0)
				if told < size || !touches(list, size-chunk) {
					t.Errorf("since %q, of a volume that grew to %d bytes and was written to at its end: %+v of %d bytes", from, size, list, told)
				}
			}
		},
	},
}

// compareBlocks writes at random, cuts twice, and compares the whole content with
// what ChangedBlocks says. It may say more, and never less.
func (t *T) compareBlocks(random *rand.Rand) {
	t.Helper()
	v := t.create(t.name())
	size := min(v.Capacity, 256*chunk)
	t.scribble(random, v.ID, size, random.IntN(20))
	wiped := random.Int64N(size/chunk) * chunk
	t.write(v.ID, "first", wiped)
	base := t.readySnapshot(t.name(), v.ID)
	t.scribble(random, v.ID, size, random.IntN(20))
	// Zeros where there was data are a change like any other.
	t.must("write zeros", t.content().WriteAt(v.ID, make([]byte, chunk), wiped))
	target := t.readySnapshot(t.name(), v.ID)
	before, after := t.copied(origin{snapshot: base}), t.copied(origin{snapshot: target})
	changed, _ := t.blocks(base.ID, target.ID, 0)
	allocated, _ := t.blocks("", target.ID, 0)
	zero := make([]byte, chunk)
	for off := int64(0); off < size; off += chunk {
		a, b := t.read(before.ID, off), t.read(after.ID, off)
		if !bytes.Equal(a, b) && !touches(changed, off) {
			t.Errorf("the data at %d differs, and ChangedBlocks does not say so", off)
		}
		if !bytes.Equal(b, zero) && !touches(allocated, off) {
			t.Errorf("there is data at %d, and ChangedBlocks does not say so", off)
		}
	}
	for _, b := range changed {
		if b.Offset >= size+chunk {
			t.Errorf("block %+v differs, and nobody wrote behind %d", b, size)
		}
	}
}

// touches tells whether a block has a part of the chunk at off.
func touches(blocks []backends.Block, off int64) bool {
	for _, b := range blocks {
		if b.Offset < off+chunk && off < b.Offset+b.Size {
			return true
		}
	}
	return false
}
