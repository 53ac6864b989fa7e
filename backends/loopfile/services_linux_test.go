package loopfile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// onEachFS runs a test with a pool on each file system; ext4 cannot share blocks.
func onEachFS(t *testing.T, test func(t *testing.T, o Options)) {
	for _, fs := range []struct{ name, size string }{{"xfs", "3G"}, {"btrfs", "3G"}, {"ext4", "3G"}} {
		t.Run("pool on "+fs.name, func(t *testing.T) {
			img, dir := disk(t, fs.name, fs.size)
			mountDisk(t, img, dir)
			o := testOptions(t)
			o.Pool = dir
			test(t, o)
		})
	}
}

func snap(t testing.TB, b *Backend, name, volume string) *backends.Snapshot {
	t.Helper()
	s, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: name, VolumeID: volume, Fingerprint: "f1.s"})
	if err != nil {
		t.Fatalf("snapshot %q: %v", name, err)
	}
	return waitReady(t, b, s)
}

// waitReady looks until the copy is made.
func waitReady(t testing.TB, b *Backend, s *backends.Snapshot) *backends.Snapshot {
	t.Helper()
	for !s.Ready {
		if done, _ := b.jobs.get(s.ID); done != nil {
			<-done
		}
		now, err := b.Snapshot(t.Context(), backends.SnapshotRequest{ID: s.ID})
		if err != nil {
			t.Fatalf("snapshot %s: %v", s.ID, err)
		}
		if !now.Created.Equal(s.Created) {
			t.Fatalf("created %v, and then %v", s.Created, now.Created)
		}
		s = now
	}
	return s
}

func restore(t testing.TB, b *Backend, s *backends.Snapshot, name string, size int64, params ...string) *backends.Volume {
	t.Helper()
	v, err := b.RestoreSnapshot(t.Context(), *s, request(name, size, params...))
	if err != nil {
		t.Fatalf("restore %s: %v", s.ID, err)
	}
	return v
}

func snapPath(b *Backend, id, volume string) string {
	_, parent, dir, _, _ := splitSnapshotID(id)
	_, vdir, _ := splitID(volume)
	return filepath.Join(b.o.Pool, parent, dir, memberPrefix+vdir)
}

func digest(t testing.TB, path string, size int64) [32]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if n, err := io.Copy(h, io.LimitReader(f, size)); err != nil || n != size {
		t.Fatalf("%s: %d bytes, %v", path, n, err)
	}
	return [32]byte(h.Sum(nil))
}

// scribble writes random pieces of 4 KiB at random places.
func scribble(t testing.TB, path string, size int64, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 4096)
	for range n {
		for i := range buf {
			buf[i] = byte(rand.Int())
		}
		if _, err := f.WriteAt(buf, rand.Int64N(size/4096)*4096); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotRestoreClone(t *testing.T) {
	onEachFS(t, func(t *testing.T, o Options) {
		for _, typ := range []string{typeThick, typeThin} {
			t.Run(typ, func(t *testing.T) {
				b := open(t, o)
				defer b.Close()
				v := create(t, b, "v", 32*mib, paramType, typ, paramBlockSize, "4096")
				scribble(t, imgPath(b, v.ID), 32*mib, 500)
				was := digest(t, imgPath(b, v.ID), 32*mib)
				s := snap(t, b, "s", v.ID)
				if s.VolumeID != v.ID || s.Size != 32*mib || s.Name != "s" || s.Fingerprint != "f1.s" || s.GroupID != "" {
					t.Errorf("snapshot %+v", s)
				}
				if got, err := b.FindSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s"}); err != nil || got.ID != s.ID || !got.Created.Equal(s.Created) {
					t.Errorf("found %+v, %v", got, err)
				}
				scribble(t, imgPath(b, v.ID), 32*mib, 500)
				now := digest(t, imgPath(b, v.ID), 32*mib)
				c, err := b.CloneVolume(t.Context(), *v, request("c", 40*mib, paramType, typ))
				if err != nil {
					t.Fatal(err)
				}
				r := restore(t, b, s, "r", 48*mib, paramType, typ)
				if r.Source.SnapshotID != s.ID || c.Source.VolumeID != v.ID || r.Capacity != 48*mib || c.Capacity != 40*mib {
					t.Errorf("restored %+v, cloned %+v", r, c)
				}
				for path, want := range map[string][32]byte{
					imgPath(b, v.ID): now, imgPath(b, c.ID): now, imgPath(b, r.ID): was, snapPath(b, s.ID, v.ID): was,
				} {
					if digest(t, path, 32*mib) != want {
						t.Errorf("%s: other bytes", path)
					}
				}
				for _, x := range []*backends.Volume{r, c} {
					fi := stat(t, imgPath(b, x.ID))
					if fi.Size() != x.Capacity || typ == typeThick && allocated(fi) < fi.Size() {
						t.Errorf("%s: %d bytes, %d allocated", x.ID, fi.Size(), allocated(fi))
					}
					got, err := b.Volume(t.Context(), backends.VolumeRequest{ID: x.ID})
					if err != nil || got.Source != x.Source || got.Fingerprint != x.Fingerprint {
						t.Errorf("get: %+v, %v", got, err)
					}
				}
				// Nothing depends on its source.
				remove(t, b, v.ID)
				if again := restore(t, b, s, "again", 32*mib, paramType, typ); digest(t, imgPath(b, again.ID), 32*mib) != was {
					t.Error("the snapshot changed when its volume was deleted")
				}
				if err := b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}); err != nil {
					t.Fatal(err)
				}
				b.purges.wait()
				if digest(t, imgPath(b, r.ID), 32*mib) != was {
					t.Error("the restored volume changed when the snapshot was deleted")
				}
				for _, id := range list(t, b, 10) {
					remove(t, b, id)
				}
				wantClean(t, o.Pool)
			})
		}
	})
}

func TestMountedSideBySide(t *testing.T) {
	onEachFS(t, func(t *testing.T, o Options) {
		for _, fs := range []string{"xfs", "ext4", "btrfs"} {
			t.Run(fs, func(t *testing.T) {
				b := openNode(t, o)
				v := create(t, b, "v", 320*mib, paramType, typeThin)
				a := mountVolume(t, b, v.ID, fs, true)
				data := bytes.Repeat([]byte("data"), mib)
				if err := os.WriteFile(filepath.Join(a, "f"), data, 0o600); err != nil {
					t.Fatal(err)
				}
				s := snap(t, b, "s", v.ID) // while it is mounted, and not synced
				c, err := b.CloneVolume(t.Context(), *v, request("c", 320*mib, paramType, typeThin))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(a, "later"), data, 0o600); err != nil {
					t.Fatalf("the source is frozen: %v", err)
				}
				r := restore(t, b, s, "r", 400*mib, paramType, typeThin)
				for _, id := range []string{r.ID, c.ID} {
					m := mountVolume(t, b, id, fs, false)
					if got, err := os.ReadFile(filepath.Join(m, "f")); err != nil || !bytes.Equal(got, data) {
						t.Errorf("%s: %d bytes, %v", id, len(got), err)
					}
					if _, err := os.Stat(filepath.Join(m, "later")); err == nil {
						t.Error("what was written later is in the copy")
					}
				}
				if left := entries(t, filepath.Dir(imgPath(b, v.ID)), "."); len(left) != 2 {
					t.Errorf("left beside the volume: %q", left)
				}
			})
			if t.Failed() {
				return
			}
			emptyPool(t, o)
		}
	})
}

func emptyPool(t *testing.T, o Options) {
	t.Helper()
	b := openNode(t, o)
	defer b.Close()
	for _, id := range list(t, b, 100) {
		remove(t, b, id)
	}
	if err := b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: "" + poolOf(t, b) + ".s." + dirOf("s")}); err != nil {
		t.Error(err)
	}
	b.purges.wait()
}

func poolOf(t testing.TB, b *Backend) string {
	t.Helper()
	name, err := b.poolName()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// mountVolume opens a volume, makes a file system when asked to, and mounts it
// for the length of the test.
func mountVolume(t testing.TB, b *Backend, id, fs string, format bool) string {
	t.Helper()
	src := openIt(t, b, id, nil)
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := b.CloseVolume(context.Background(), backends.CloseVolumeRequest{ID: id, State: src.State}); err != nil {
			t.Error(err)
		}
	})
	if format {
		args := map[string][]string{"xfs": {"-q"}, "ext4": {"-q", "-F"}, "btrfs": {"-q"}}[fs]
		run(t, "mkfs."+fs, append(args, src.Device.Path)...)
		for _, f := range []backends.FormatState{backends.FormatStarted, backends.FormatDone} {
			if err := b.RecordFormat(t.Context(), backends.RecordFormatRequest{ID: id, Format: f, FSType: fs}); err != nil {
				t.Fatal(err)
			}
		}
	} else if src.Device.Format != backends.FormatDone || src.Device.FSType != fs {
		t.Errorf("a copy's format is %v %q", src.Device.Format, src.Device.FSType)
	}
	if err := unix.Mount(src.Device.Path, dir, fs, 0, ""); err != nil {
		t.Fatalf("mount %s: %v", id, err)
	}
	t.Cleanup(func() {
		// A child that thawed it may hold it for another moment.
		err := unix.Unmount(dir, 0)
		for end := time.Now().Add(5 * time.Second); errors.Is(err, unix.EBUSY) && time.Now().Before(end); err = unix.Unmount(dir, 0) {
			time.Sleep(time.Millisecond)
		}
		if err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// changes collects what ChangedBlocks says, per 4 KiB.
func changes(t testing.TB, b *Backend, base, target string, from int64) (map[int64]bool, int64) {
	t.Helper()
	m, err := b.ChangedBlocks(t.Context(), backends.ChangedBlocksRequest{Base: base, Target: target, Offset: from})
	if err != nil {
		t.Fatal(err)
	}
	blocks, end := map[int64]bool{}, from
	for x, err := range m.Blocks {
		if err != nil {
			t.Fatal(err)
		}
		if x.Offset < end || x.Size <= 0 || x.Offset+x.Size > m.VolumeSize {
			t.Fatalf("block %+v after %d of %d", x, end, m.VolumeSize)
		}
		end = x.Offset + x.Size
		for o := x.Offset / 4096; o < (end+4095)/4096; o++ {
			blocks[o] = true
		}
	}
	return blocks, m.VolumeSize
}

// TestChangedBlocks compares with a full comparison on random workloads: writes,
// holes, zeros, growth.
func TestChangedBlocks(t *testing.T) {
	workloads := 34
	if testing.Short() {
		workloads = 3
	}
	onEachFS(t, func(t *testing.T, o Options) {
		b := open(t, o)
		exact := filepath.Base(t.Name()) != "pool_on_ext4"
		for i := range workloads {
			size := int64(1+rand.IntN(16)) * mib
			typ := []string{typeThick, typeThin}[i%2]
			v := create(t, b, "v", size, paramType, typ)
			mutate(t, imgPath(b, v.ID), size)
			s1 := snap(t, b, "s1", v.ID)
			mutate(t, imgPath(b, v.ID), size)
			if i%3 == 0 {
				if _, err := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: size + 4*mib}); err != nil {
					t.Fatal(err)
				}
				mutate(t, imgPath(b, v.ID), size+4*mib)
			}
			s2 := snap(t, b, "s2", v.ID)
			one, err1 := os.ReadFile(snapPath(b, s1.ID, v.ID))
			two, err2 := os.ReadFile(snapPath(b, s2.ID, v.ID))
			if err1 != nil || err2 != nil || int64(len(two)) != s2.Size {
				t.Fatal(err1, err2, len(two), s2.Size)
			}
			from := int64(0)
			if i%4 == 3 {
				from = rand.Int64N(size/4096) * 4096
			}
			delta, n := changes(t, b, s1.ID, s2.ID, from)
			alloc, _ := changes(t, b, "", s2.ID, 0)
			if n != s2.Size {
				t.Errorf("size %d, want %d", n, s2.Size)
			}
			zeros := make([]byte, 4096)
			extra := 0
			for o := int64(0); o < s2.Size/4096; o++ {
				was, is := zeros, two[o*4096:(o+1)*4096]
				if o*4096 < int64(len(one)) {
					was = one[o*4096 : (o+1)*4096]
				}
				if o*4096 >= from && !bytes.Equal(was, is) && !delta[o] {
					t.Fatalf("workload %d: block %d changed and is not told", i, o)
				}
				if bytes.Equal(was, is) && delta[o] {
					extra++
				}
				if !bytes.Equal(is, zeros) && !alloc[o] {
					t.Fatalf("workload %d: block %d holds something and is not told", i, o)
				}
			}
			if exact && extra > 0 {
				t.Errorf("workload %d: %d blocks are told and did not change", i, extra)
			}
			for _, id := range []string{s1.ID, s2.ID} {
				if err := b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: id}); err != nil {
					t.Fatal(err)
				}
			}
			remove(t, b, v.ID)
		}
	})
}

// mutate writes, and punches holes.
func mutate(t testing.TB, path string, size int64) {
	t.Helper()
	scribble(t, path, size, rand.IntN(60))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range rand.IntN(4) {
		off, n := rand.Int64N(size/4096)*4096, int64(1+rand.IntN(8))*4096
		n = min(n, size-off)
		// What reads as zeros and is punched again would be told as a change by
		// nobody: only what holds something is.
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGroupSnapshot(t *testing.T) {
	onEachFS(t, func(t *testing.T, o Options) {
		b := open(t, o)
		var ids []string
		var was [][32]byte
		for _, n := range []string{"a", "b", "c"} {
			v := create(t, b, n, 8*mib)
			scribble(t, imgPath(b, v.ID), 8*mib, 100)
			ids, was = append(ids, v.ID), append(was, digest(t, imgPath(b, v.ID), 8*mib))
		}
		req := backends.CreateGroupSnapshotRequest{Name: "g", VolumeIDs: ids, Fingerprint: "f"}
		g, err := b.CreateGroupSnapshot(t.Context(), req)
		if err != nil || len(g.Snapshots) != 3 {
			t.Fatalf("%+v, %v", g, err)
		}
		if done, _ := b.jobs.get(g.ID); done != nil {
			<-done
		}
		if again, err := b.FindGroupSnapshot(t.Context(), req); err != nil || again.ID != g.ID || !again.Created.Equal(g.Created) {
			t.Errorf("found %+v, %v", again, err)
		}
		for i, id := range ids {
			scribble(t, imgPath(b, id), 8*mib, 100)
			for _, s := range g.Snapshots {
				if s.VolumeID != id {
					continue
				}
				if s.GroupID != g.ID {
					t.Errorf("%+v", s)
				}
				r := restore(t, b, &s, "r"+id, 8*mib)
				if digest(t, imgPath(b, r.ID), 8*mib) != was[i] {
					t.Errorf("%s: other bytes", s.ID)
				}
				if err := b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}); !errors.Is(err, backends.ErrPrecondition) {
					t.Errorf("delete a member: %v", err)
				}
			}
		}
		single := snap(t, b, "s", ids[0])
		var listed []string
		for token := ""; ; {
			snaps, next, err := b.ListSnapshots(t.Context(), backends.ListSnapshotsRequest{Page: backends.Page{Token: token, Limit: 1}})
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range snaps {
				listed = append(listed, s.ID)
			}
			if token = next; token == "" {
				break
			}
		}
		if len(listed) != 4 || listed[3] != single.ID || !slices.IsSorted(listed) {
			t.Errorf("listed %q", listed)
		}
		ofA, _, err := b.ListSnapshots(t.Context(), backends.ListSnapshotsRequest{VolumeID: ids[0]})
		if err != nil || len(ofA) != 2 {
			t.Errorf("of one volume: %v, %v", ofA, err)
		}
		// One that cannot be cut leaves nothing of the others.
		req.Name, req.VolumeIDs = "h", slices.Concat(ids, []string{makeID(poolOf(t, b), dirOf("missing"))})
		if _, err := b.CreateGroupSnapshot(t.Context(), req); !errors.Is(err, backends.ErrNotFound) {
			t.Errorf("with a missing volume: %v", err)
		}
		wantClean(t, o.Pool)
		for range 2 {
			err = b.DeleteGroupSnapshot(t.Context(), backends.DeleteGroupSnapshotRequest{ID: g.ID})
		}
		if !errors.Is(err, backends.ErrNotFound) || len(entries(t, o.Pool, groupsDir)) != 0 {
			t.Errorf("second delete: %v", err)
		}
	})
}
