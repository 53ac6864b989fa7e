package loopfile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

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

func poolOf(t *testing.T, b *Backend) string {
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
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}
