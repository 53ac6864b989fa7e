package loopfile

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// TestNoSpaceWhileCopying: the pool fills up in the middle of a copy, as it can
// with what is promised twice. The answer says so, nothing is left, and the source
// is as it was.
func TestNoSpaceWhileCopying(t *testing.T) {
	img, dir := disk(t, "ext4", "256M")
	mountDisk(t, img, dir)
	o := testOptions(t)
	o.Pool, o.Overcommit, o.Reserve = dir, 1000, -1
	b := open(t, o)
	free := func() int64 {
		unix.Sync()
		f, err := b.pool.facts()
		if err != nil {
			t.Fatal(err)
		}
		return f.Free
	}
	const size = 160 * mib
	v := create(t, b, "v", size, paramType, typeThin)
	scribble(t, imgPath(b, v.ID), size, 60000)
	was, before := digest(t, imgPath(b, v.ID), size), free()
	t.Logf("%d MiB free", before/mib)
	for what, copy := range map[string]func() error{
		"clone": func() error {
			_, err := b.CloneVolume(t.Context(), *v, request("c", size, paramType, typeThin))
			return err
		},
		"snapshot": func() error {
			_, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID})
			return err
		},
		"group": func() error {
			_, err := b.CreateGroupSnapshot(t.Context(), backends.CreateGroupSnapshotRequest{Name: "g", VolumeIDs: []string{v.ID}})
			return err
		},
	} {
		if err := copy(); !errors.Is(err, backends.ErrNoSpace) {
			t.Errorf("%s: %v", what, err)
		}
		b.purges.wait()
		wantClean(t, dir)
		if now := free(); now < before-mib {
			t.Errorf("%s: %d bytes were free, and now %d", what, before, now)
		}
		if len(entries(t, dir, snapsDir))+len(entries(t, dir, groupsDir)) != 0 || len(list(t, b, 10)) != 1 {
			t.Errorf("%s: something is left", what)
		}
	}
	if digest(t, imgPath(b, v.ID), size) != was {
		t.Error("the source has other data")
	}
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); err != nil {
		t.Error(err)
	}
}
