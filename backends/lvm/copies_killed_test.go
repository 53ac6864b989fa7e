package lvm

import (
	"bytes"
	"errors"
	"testing"

	"github.com/csikit/csikit/backends"
)

// What is killed here dies at each command of an operation; TestLVMKilledForReal kills
// lvm in the middle of them.

// filledVolume is a volume with data.
func filledVolume(name, class string) func(*testing.T, *Backend) error {
	return func(t *testing.T, b *Backend) error {
		v := createVolume(t, b, name, class, 8<<20)
		return fakeContent{b.kernel.(*fakeVG), b}.WriteAt(v.ID, bytes.Repeat([]byte("tenant"), 1000), 3<<20)
	}
}

// wantWhole wants no LV half-made, and none to be given back with data in it.
func (f *fakeVG) wantWhole(t *testing.T, b *Backend, want int) {
	t.Helper()
	b.jobs.Wait()
	if ready, other := f.mine(); ready != want || other != 0 {
		t.Errorf("%d ready, %d not; want %d", ready, other, want)
	}
	if len(f.leaked) > 0 {
		t.Errorf("given back with data in them: %q", f.leaked)
	}
}

func TestLVMThickKilled(t *testing.T) {
	id, snap := makeID("linear", nameOf(kindVolume, "a")), makeID("linear", nameOf(kindSnapshot, "s"))
	req := backends.CreateSnapshotRequest{Name: "s", VolumeID: id}
	cut := func(t *testing.T, b *Backend) error { return second(b.CreateSnapshot(t.Context(), req)) }
	remove := func(t *testing.T, b *Backend) error {
		return b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: snap})
	}
	killed(t, "linear", filledVolume("a", "linear"), cut, func(t *testing.T, f *fakeVG, b *Backend) {
		if second(b.FindSnapshot(t.Context(), req)) != nil {
			if err := cut(t, b); err != nil {
				t.Fatal(err)
			}
		}
		f.wantWhole(t, b, 2)
		if err := remove(t, b); err != nil {
			t.Error(err)
		}
		f.wantWhole(t, b, 1)
	})
	killed(t, "linear", filledVolume("a", "linear"), cut, func(t *testing.T, f *fakeVG, b *Backend) {
		if err := gone(remove(t, b)); err != nil {
			t.Error(err)
		}
		f.wantWhole(t, b, 1)
	})
	setup := func(t *testing.T, b *Backend) error { return errors.Join(filledVolume("a", "linear")(t, b), cut(t, b)) }
	killed(t, "linear", setup, remove, func(t *testing.T, f *fakeVG, b *Backend) {
		if err := gone(remove(t, b)); err != nil {
			t.Error(err)
		}
		f.wantWhole(t, b, 1)
	})
}

func TestLVMCopyKilled(t *testing.T) {
	req := backends.CreateVolumeRequest{Name: "copy", Size: 12 << 20, Parameters: map[string]string{paramClass: "linear"}}
	id, copied := makeID("linear", nameOf(kindVolume, "a")), makeID("linear", nameOf(kindVolume, "copy"))
	clone := func(t *testing.T, b *Backend) error {
		b.noteEvery = 2 << 20
		return second(b.CloneVolume(t.Context(), backends.Volume{ID: id}, req))
	}
	same := func(t *testing.T, f *fakeVG, b *Backend) {
		t.Helper()
		p := make([]byte, 6000)
		if err := (fakeContent{f, b}).ReadAt(copied, p, 3<<20); err != nil || !bytes.Equal(p, bytes.Repeat([]byte("tenant"), 1000)) {
			t.Errorf("other bytes, %v", err)
		}
	}
	killed(t, "linear", filledVolume("a", "linear"), clone, func(t *testing.T, f *fakeVG, b *Backend) {
		if second(b.FindVolume(t.Context(), req)) != nil {
			if err := clone(t, b); err != nil {
				t.Fatal(err)
			}
		}
		same(t, f, b)
		for _, v := range []string{copied, id} {
			if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v}); err != nil {
				t.Error(err)
			}
		}
		f.wantWhole(t, b, 0)
	})
	killed(t, "linear", filledVolume("a", "linear"), clone, func(t *testing.T, f *fakeVG, b *Backend) {
		for _, v := range []string{copied, id} {
			if err := gone(b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v})); err != nil {
				t.Error(err)
			}
		}
		f.wantWhole(t, b, 0)
	})
}

func TestLVMGroupKilled(t *testing.T) {
	for _, class := range []string{"linear", "thin"} {
		req := backends.CreateGroupSnapshotRequest{Name: "g", VolumeIDs: []string{makeID(class, nameOf(kindVolume, "a")), makeID(class, nameOf(kindVolume, "b"))}}
		setup := func(t *testing.T, b *Backend) error {
			return errors.Join(filledVolume("a", class)(t, b), filledVolume("b", class)(t, b))
		}
		cut := func(t *testing.T, b *Backend) error { return second(b.CreateGroupSnapshot(t.Context(), req)) }
		remove := func(t *testing.T, b *Backend) error {
			return b.DeleteGroupSnapshot(t.Context(), backends.DeleteGroupSnapshotRequest{ID: groupID("g")})
		}
		seen := func(t *testing.T, b *Backend) int {
			t.Helper()
			snaps, _, err := b.ListSnapshots(t.Context(), backends.ListSnapshotsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			return len(snaps)
		}
		killed(t, class, setup, cut, func(t *testing.T, f *fakeVG, b *Backend) {
			want := 0
			if second(b.FindGroupSnapshot(t.Context(), req)) == nil {
				want = 2
			}
			if n := seen(t, b); n != want {
				t.Errorf("%d members of a group of %d show", n, want)
			}
			if want == 0 {
				if err := cut(t, b); err != nil {
					t.Fatal(err)
				}
			}
			f.wantWhole(t, b, 4)
			if err := remove(t, b); err != nil {
				t.Error(err)
			}
			f.wantWhole(t, b, 2)
		})
		killed(t, class, func(t *testing.T, b *Backend) error { return errors.Join(setup(t, b), cut(t, b)) }, remove, func(t *testing.T, f *fakeVG, b *Backend) {
			if n := seen(t, b); n != 0 && n != 2 {
				t.Errorf("%d members of a half-deleted group show", n)
			}
			if err := gone(remove(t, b)); err != nil {
				t.Error(err)
			}
			f.wantWhole(t, b, 2)
		})
	}
}

// Zeros that are to be written before a volume is ready, and before it has grown.
func TestLVMFreshKilled(t *testing.T) {
	killed(t, "fresh", nil, create("a", "fresh"), func(t *testing.T, f *fakeVG, b *Backend) {
		again(t, b, "a", "fresh")
		f.wantWhole(t, b, 1)
	})
	id := makeID("fresh", nameOf(kindVolume, "a"))
	grow := func(t *testing.T, b *Backend) error {
		return second(b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: id, Size: 16 << 20}))
	}
	killed(t, "fresh", create("a", "fresh"), grow, func(t *testing.T, f *fakeVG, b *Backend) {
		if err := grow(t, b); err != nil {
			t.Error(err)
		}
		if v, err := b.Volume(t.Context(), backends.VolumeRequest{ID: id}); err != nil || v.Capacity != 16<<20 {
			t.Errorf("%+v, %v", v, err)
		}
		f.wantWhole(t, b, 1)
	})
}
