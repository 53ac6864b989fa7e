package backendtest

import (
	"context"
	"math"

	"github.com/csikit/csikit/backends"
)

// grow asks for a volume of this size.
func (t *T) grow(ctx context.Context, id string, size int64) (int64, error) {
	got, err := t.c.Expander.ExpandVolume(ctx, backends.ExpandVolumeRequest{
		ID: id, Size: size, Range: backends.CapacityRange{Required: size}, Secrets: t.cfg.secrets(),
	})
	return got, t.watch("ExpandVolume", err)
}

func (t *T) expanding() task {
	v := t.create(t.name())
	size := roundUp(2*max(v.Capacity, 1), t.b.Traits.SizeStep)
	return task{
		do: func(ctx context.Context) (any, error) { return t.grow(ctx, v.ID, size) },
		done: func(result any) {
			if got := result.(int64); got < size {
				t.Errorf("expanded to %d bytes, asked for were %d", got, size)
			}
			if now := t.lookup(v.ID); now.Capacity != result.(int64) {
				t.Errorf("the volume has %d bytes, ExpandVolume said %d", now.Capacity, result)
			}
		},
	}
}

var expandChecks = []check{
	{
		"expand/to less", "A size that the volume already has, or less, is no error", "Controller Expander",
		func(t *T) {
			v := t.create(t.name())
			size := roundUp(3*max(v.Capacity, 1), t.b.Traits.SizeStep)
			have, err := t.grow(t.Context(), v.ID, size)
			t.must("ExpandVolume", err)
			for _, less := range []int64{size, v.Capacity, max(t.b.Traits.SizeMin, 1)} {
				got, err := t.grow(t.Context(), v.ID, less)
				t.must("ExpandVolume to less", err)
				if got < have || t.lookup(v.ID).Capacity < have {
					t.Errorf("asked for %d bytes a volume of %d has %d, and says %d", less, have, t.lookup(v.ID).Capacity, got)
				}
			}
		},
	},
	{
		"expand/the rest stays", "never less than before.", "Controller Expander",
		func(t *T) {
			v, other := t.create(t.name()), t.create(t.name())
			size := roundUp(2*max(v.Capacity, 1), t.b.Traits.SizeStep)
			_, err := t.grow(t.Context(), v.ID, size)
			t.must("ExpandVolume", err)
			now := t.lookup(v.ID)
			now.Capacity = v.Capacity
			t.same("the volume, but for its size", now, v)
			t.same("another volume", t.lookup(other.ID), other)
		},
	},
	{
		"expand/too much", "ErrNoSpace and ErrOutOfRange promise that nothing is left behind.", "Controller Expander",
		func(t *T) {
			v := t.create(t.name())
			step := max(t.b.Traits.SizeStep, 1)
			_, err := t.grow(t.Context(), v.ID, math.MaxInt64/2/step*step)
			t.wantKind("ExpandVolume to half of all bytes", err, tooMuch...)
			t.same("the volume afterwards", t.lookup(v.ID), v)
		},
	},
}
