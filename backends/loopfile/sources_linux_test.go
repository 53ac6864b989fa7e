package loopfile

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
)

// TestSourceGoneAfterKill: the driver dies in the middle of a restore or clone, and
// the source is deleted before it is asked for again. Nothing is left of the first
// try, so that the answer, which is final, loses nothing.
func TestSourceGoneAfterKill(t *testing.T) {
	onEachFS(t, func(t *testing.T, o Options) {
		for _, op := range []string{"restore", "clone"} {
			for step, made := range map[string]bool{"loopfile.create.mkdir": false, "loopfile.derive.copied": false, "loopfile.create.built": false, "loopfile.appear.renamed": true} {
				t.Run(op+" "+step, func(t *testing.T) {
					r := newRig(t, o)
					work := r.orderFor(op)
					work.KillAt = step
					runKilled(t, work)
					b := open(t, o)
					defer b.Close()
					wantClean(t, o.Pool)
					var missing string
					if op == "restore" {
						missing = r.snap
						if err := b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: r.snap}); err != nil {
							t.Fatal(err)
						}
					} else {
						missing = r.vols[0]
						remove(t, b, r.vols[0])
					}
					b.purges.wait()
					// As csidriver does: the name first, then the source.
					v, err := b.FindVolume(t.Context(), request("new", 0))
					if made {
						if err != nil || digest(t, imgPath(b, v.ID), rigSize) != r.was {
							t.Errorf("what was made is not found whole: %v", err)
						}
						remove(t, b, v.ID)
					} else if !errors.Is(err, backends.ErrNotFound) {
						t.Errorf("found %+v, %v", v, err)
					}
					if op == "restore" {
						_, err = b.RestoreSnapshot(t.Context(), backends.Snapshot{ID: r.snap}, request("new", 0))
					} else {
						_, err = b.CloneVolume(t.Context(), backends.Volume{ID: r.vols[0]}, request("new", 0))
					}
					var nf *backends.NotFoundError
					if !errors.As(err, &nf) || nf.ID != missing {
						t.Errorf("again: %v", err)
					}
					b.purges.wait()
					wantClean(t, o.Pool)
					for _, id := range list(t, b, 10) {
						remove(t, b, id)
					}
					if left := entries(t, o.Pool, snapsDir); op == "clone" && len(left) == 1 {
						if err := b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: r.snap}); err != nil {
							t.Fatal(err)
						}
					}
				})
			}
		}
	})
}

// TestSourceDeletedMeanwhile: what a running restore or clone reads stays for as
// long as it reads it.
func TestSourceDeletedMeanwhile(t *testing.T) {
	onEachFS(t, func(t *testing.T, o Options) {
		r := newRig(t, o)
		b := open(t, o)
		at := make(chan string)
		on := make(chan struct{})
		b.step = func(s string) {
			if s == "loopfile.create.mkdir" || s == "loopfile.clone.quiet" {
				at <- s
				<-on
			}
		}
		type result struct {
			v   *backends.Volume
			err error
		}
		got := make(chan result, 1)
		go func() {
			v, err := b.CloneVolume(t.Context(), backends.Volume{ID: r.vols[0]}, request("c", rigSize))
			got <- result{v, err}
		}()
		for s := range at {
			if s == "loopfile.clone.quiet" {
				break
			}
			on <- struct{}{}
		}
		// The clone holds its source: a delete waits, and says so.
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := b.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: r.vols[0]}); err == nil || errors.Is(err, backends.ErrNotFound) {
			t.Errorf("deleted while it is cloned: %v", err)
		}
		cancel()
		on <- struct{}{}
		c := <-got
		if c.err != nil || digest(t, imgPath(b, c.v.ID), rigSize) != r.was {
			t.Errorf("clone: %v", c.err)
		}
		// A restore has its source open.
		go func() {
			v, err := b.RestoreSnapshot(t.Context(), backends.Snapshot{ID: r.snap}, request("r", rigSize))
			got <- result{v, err}
		}()
		<-at
		if err := b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: r.snap}); err != nil {
			t.Error(err)
		}
		b.purges.wait()
		on <- struct{}{}
		if c = <-got; c.err != nil || digest(t, imgPath(b, c.v.ID), rigSize) != r.was {
			t.Errorf("restore: %v", c.err)
		}
		remove(t, b, r.vols[0])
	})
}

// TestVolumeDeletedAfterKilledCopy: the volume of a snapshot whose copy a killed
// driver did not end stays until the next one has ended it.
func TestVolumeDeletedAfterKilledCopy(t *testing.T) {
	img, dir := disk(t, "ext4", "1G")
	mountDisk(t, img, dir)
	o := testOptions(t)
	o.Pool = dir
	r := newRig(t, o)
	for i, step := range []string{"loopfile.appear.renamed", "loopfile.copy.start", "loopfile.copy.part", "loopfile.copy.copied"} {
		work := r.orderFor("snapshot")
		work.Name, work.KillAt = fmt.Sprint("s", i), step
		runKilled(t, work)
	}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	on := make(chan struct{})
	b.step = func(s string) {
		if s == "loopfile.copy.start" {
			<-on
		}
	}
	if err := b.RecoverController(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: r.vols[0]}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("deleted: %v", err)
	}
	close(on)
	for i := range 4 {
		s, err := b.FindSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: fmt.Sprint("s", i)})
		if err != nil {
			t.Fatal(err)
		}
		s = waitReady(t, b, s)
		if digest(t, snapPath(b, s.ID, r.vols[0]), rigSize) != r.was {
			t.Errorf("s%d: other bytes", i)
		}
	}
	remove(t, b, r.vols[0])
}

// TestDeletedWhileChangesAreRead: a stream that has begun goes on to tell what the
// two snapshots had, whatever becomes of them and of the space they had.
func TestDeletedWhileChangesAreRead(t *testing.T) {
	onEachFS(t, func(t *testing.T, o Options) {
		b := open(t, o)
		v := create(t, b, "v", 64*mib, paramType, typeThin)
		scribble(t, imgPath(b, v.ID), 64*mib, 2000)
		s1 := snap(t, b, "s1", v.ID)
		scribble(t, imgPath(b, v.ID), 64*mib, 2000)
		s2 := snap(t, b, "s2", v.ID)
		want, _ := changes(t, b, s1.ID, s2.ID, 0)
		m, err := b.ChangedBlocks(t.Context(), backends.ChangedBlocksRequest{Base: s1.ID, Target: s2.ID})
		if err != nil {
			t.Fatal(err)
		}
		got, first := map[int64]bool{}, true
		for x, err := range m.Blocks {
			if err != nil {
				t.Fatal(err)
			}
			for at := x.Offset / 4096; at < (x.Offset+x.Size+4095)/4096; at++ {
				got[at] = true
			}
			if !first {
				continue
			}
			first = false
			for _, s := range []*backends.Snapshot{s1, s2} {
				if err := b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}); err != nil {
					t.Fatal(err)
				}
			}
			b.purges.wait()
			// Others take what was freed, under the same names.
			scribble(t, imgPath(b, v.ID), 64*mib, 4000)
			w := create(t, b, "w", 64*mib, paramType, typeThin)
			scribble(t, imgPath(b, w.ID), 64*mib, 4000)
			snap(t, b, "s1", w.ID)
			snap(t, b, "s2", v.ID)
		}
		if len(want) == 0 || len(got) != len(want) {
			t.Errorf("%d blocks, want %d", len(got), len(want))
		}
		for at := range want {
			if !got[at] {
				t.Fatalf("block %d changed and is not told", at)
			}
		}
		if _, err := b.ChangedBlocks(t.Context(), backends.ChangedBlocksRequest{Base: s1.ID, Target: s2.ID + "x"}); !errors.Is(err, backends.ErrNotFound) {
			t.Errorf("a snapshot that is gone: %v", err)
		}
	})
}

// TestPagesOfOneVolume: no page of a list is empty and has another after it.
func TestPagesOfOneVolume(t *testing.T) {
	img, dir := disk(t, "xfs", "1G")
	mountDisk(t, img, dir)
	o := testOptions(t)
	o.Pool = dir
	b := open(t, o)
	var vols []string
	for _, n := range []string{"a", "b", "c"} {
		vols = append(vols, create(t, b, n, mib, paramType, typeThin).ID)
	}
	for i := range 12 {
		snap(t, b, fmt.Sprint("s", i), vols[min(i%5, 2)])
	}
	for i := range 3 {
		if _, err := b.CreateGroupSnapshot(t.Context(), backends.CreateGroupSnapshotRequest{Name: fmt.Sprint("g", i), VolumeIDs: vols[i%2:]}); err != nil {
			t.Fatal(err)
		}
	}
	for _, volume := range append(vols, "", makeID(poolOf(t, b), dirOf("none"))) {
		all, _, err := b.ListSnapshots(t.Context(), backends.ListSnapshotsRequest{VolumeID: volume})
		if err != nil {
			t.Fatal(err)
		}
		for limit := 1; limit < 5; limit++ {
			n, token := 0, ""
			for page := 0; page == 0 || token != ""; page++ {
				snaps, next, err := b.ListSnapshots(t.Context(), backends.ListSnapshotsRequest{VolumeID: volume, Page: backends.Page{Token: token, Limit: limit}})
				if err != nil || len(snaps) == 0 && (next != "" || page > 0) {
					t.Fatalf("page %d of %q: %v, %q, %v", page, filepath.Base(volume), snaps, next, err)
				}
				n, token = n+len(snaps), next
			}
			if n != len(all) {
				t.Errorf("%d of %d snapshots of %q by %d", n, len(all), volume, limit)
			}
		}
	}
}
