package loopfile

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/blockdev"
)

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// disk makes a file with a file system on it, and an empty mount point.
func disk(t testing.TB, fsType, size string) (img, dir string) {
	t.Helper()
	testenv.Root(t)
	testenv.Tool(t, "mkfs."+fsType, "mount", "umount")
	img, dir = filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "truncate", "-s", size, img)
	run(t, "mkfs."+fsType, "-q", img)
	return img, dir
}

func mountDisk(t testing.TB, img, dir string) {
	t.Helper()
	run(t, "mount", "-o", "loop", img, dir)
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// TestUnmountedPool is the failure that must never read as "volume gone".
func TestUnmountedPool(t *testing.T) {
	img, dir := disk(t, "ext4", "64M")
	o := testOptions(t)
	o.Pool = dir
	mountDisk(t, img, dir)
	b := open(t, o)
	v := create(t, b, "v", mib, paramType, typeThin)
	o.Init = false

	unavailableAll := func(t *testing.T, b *Backend) {
		t.Helper()
		_, get := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID})
		_, find := b.FindVolume(t.Context(), request("v", mib))
		_, findOther := b.FindVolume(t.Context(), request("other", mib))
		_, makeOne := b.CreateVolume(t.Context(), request("new", mib))
		_, expand := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 2 * mib})
		_, _, ls := b.ListVolumes(t.Context(), backends.ListVolumesRequest{})
		_, capacity := b.Capacity(t.Context(), backends.CapacityRequest{})
		_, openIt := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID})
		for call, err := range map[string]error{
			"get": get, "find": find, "find other": findOther, "create": makeOne, "expand": expand, "list": ls, "capacity": capacity, "open": openIt,
			"delete": b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}),
			"format": b.RecordFormat(t.Context(), backends.RecordFormatRequest{ID: v.ID, Format: backends.FormatDone}),
		} {
			if !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrNotFound) {
				t.Errorf("%s: %v", call, err)
			}
		}
		closeIt(t, b, v.ID, nil) // it is attached to nothing, as can be seen without the pool
		if err := b.Probe(t.Context()); !errors.Is(err, backends.ErrNotReady) {
			t.Errorf("probe: %v", err)
		}
		if err := errors.Join(b.RecoverController(t.Context()), b.RecoverNode(t.Context(), nil)); err != nil {
			t.Errorf("recover: %v", err)
		}
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	t.Run("under a running driver", func(t *testing.T) { unavailableAll(t, b) })

	t.Run("another pool in its place", func(t *testing.T) {
		otherImg, _ := disk(t, "ext4", "64M")
		mountDisk(t, otherImg, dir)
		if _, err := InitPool(dir, nil); err != nil {
			t.Fatal(err)
		}
		unavailableAll(t, b)
		if err := unix.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
	})
	_ = b.Close()
	t.Run("at the start of a driver", func(t *testing.T) {
		b := open(t, o)
		unavailableAll(t, b)
		if _, err := os.Lstat(filepath.Join(dir, poolFile)); !os.IsNotExist(err) {
			t.Errorf("something was made below the mount point: %v", err)
		}
		mountDisk(t, img, dir)
		if err := os.Mkdir(filepath.Join(dir, tmpDir, dirOf("half")+".x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID}); err != nil {
			t.Errorf("mounted at last: %v", err)
		}
		if _, _, known := b.opened.get(""); !known {
			t.Error("loop devices were not looked at")
		}
		wantClean(t, dir) // the recovery that could not be done at the start
		if err := b.Probe(t.Context()); err != nil {
			t.Errorf("probe: %v", err)
		}
		remove(t, b, v.ID)
	})
}

// TestCloseWhilePoolIsAway: an unstage that is repeated finds no State, and no pool.
func TestCloseWhilePoolIsAway(t *testing.T) {
	img, dir := disk(t, "ext4", "64M")
	mountDisk(t, img, dir)
	keep := t.TempDir()
	run(t, "mount", "--bind", dir, keep)
	t.Cleanup(func() { run(t, "umount", keep) })
	away := func() { t.Helper(); run(t, "umount", "-l", dir) }
	back := func() { t.Helper(); run(t, "mount", "--bind", keep, dir) }
	o := testOptions(t)
	o.Pool = dir
	b := openNode(t, o)
	o.Init = false
	v := create(t, b, "v", 8*mib)
	fi := stat(t, imgPath(b, v.ID))
	attached := func(when string, want int) {
		t.Helper()
		if left, err := blockdev.LoopOf(device(fi), inode(fi)); err != nil || len(left) != want {
			t.Errorf("%s: attached to %v, %v", when, left, err)
		}
	}

	s := openIt(t, b, v.ID, nil)
	away()
	for range 2 {
		closeIt(t, b, v.ID, s.State)
	}
	closeIt(t, b, v.ID, nil)
	attached("closed by State", 0)
	b.Close()
	b = openNode(t, o)
	closeIt(t, b, v.ID, nil) // another process, that never saw the pool
	back()
	b.Close()
	b = openNode(t, o)

	openIt(t, b, v.ID, nil)
	away()
	closeIt(t, b, v.ID, nil) // this process knows what it opened
	attached("closed without State", 0)
	back()
	remove(t, b, v.ID) // nobody thinks that it is open
	v = create(t, b, "v", 8*mib)
	fi = stat(t, imgPath(b, v.ID))

	s = openIt(t, b, v.ID, nil)
	away()
	b.Close()
	b = openNode(t, o)
	// Attached, and neither State nor pool to say by whom.
	if err := b.CloseVolume(t.Context(), backends.CloseVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrUnavailable) || !strings.Contains(err.Error(), s.Device.Path) {
		t.Errorf("closed by its name alone: %v", err)
	}
	attached("waiting for the pool", 1)
	back()
	closeIt(t, b, v.ID, nil)
	attached("the pool is back", 0)
	remove(t, b, v.ID)
	b.Close()
}

func TestNoSpace(t *testing.T) {
	for _, fs := range []struct{ name, size string }{{"ext4", "64M"}, {"xfs", "300M"}, {"btrfs", "256M"}} {
		t.Run(fs.name, func(t *testing.T) {
			img, dir := disk(t, fs.name, fs.size)
			mountDisk(t, img, dir)
			o := testOptions(t)
			o.Pool = dir
			b := open(t, o)
			free := func() int64 {
				unix.Sync()
				p, done, err := b.enter(0)
				if err != nil {
					t.Fatal(err)
				}
				defer done()
				f, err := p.facts()
				if err != nil {
					t.Fatal(err)
				}
				return f.Free
			}
			small := create(t, b, "small", 4*mib)
			before := free()
			// Beyond what statfs grants, and what fallocate alone finds out.
			if _, err := b.CreateVolume(t.Context(), request("big", before+mib)); !errors.Is(err, backends.ErrNoSpace) {
				t.Errorf("create: %v", err)
			}
			p, done, err := b.enter(0)
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			m, err := b.newMeta(p, request("big", 2*before))
			if err != nil {
				t.Fatal(err)
			}
			err = b.undo(p, "big.x", forced(t.Context(), p, "big.x", m))
			if !errors.Is(err, backends.ErrNoSpace) {
				t.Errorf("fallocate: %v", err)
			}
			if _, err := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: small.ID, Size: 2 * before}); !errors.Is(err, backends.ErrNoSpace) {
				t.Errorf("expand: %v", err)
			}
			wantClean(t, dir)
			if got := list(t, b, 10); len(got) != 1 {
				t.Errorf("volumes: %q", got)
			}
			if after := free(); after < before-mib {
				t.Errorf("%d bytes free before, %d after", before, after)
			}
			remove(t, b, small.ID)
			create(t, b, "again", 4*mib)
		})
	}
}

// forced is build without asking whether there is space.
func forced(ctx context.Context, p *pool, tmp string, m *meta) error {
	if err := p.root.Mkdir(filepath.Join(tmpDir, tmp), 0o700); err != nil {
		return err
	}
	f, err := p.root.Create(filepath.Join(tmpDir, tmp, imgFile))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return allocate(ctx, f, m.Size)
}

// TestExpandUndone: what a failed expansion allocated is given back.
func TestExpandUndone(t *testing.T) {
	for _, fs := range []struct{ name, size string }{{"ext4", "64M"}, {"xfs", "300M"}} {
		t.Run(fs.name, func(t *testing.T) {
			img, dir := disk(t, fs.name, fs.size)
			mountDisk(t, img, dir)
			o := testOptions(t)
			o.Pool = dir
			b := open(t, o)
			v := create(t, b, "v", 4*mib)
			was := allocated(stat(t, imgPath(b, v.ID)))
			p, done, err := b.enter(0)
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			vol, err := p.lock(t.Context(), dirOf("v"))
			if err != nil {
				t.Fatal(err)
			}
			defer vol.unlock()
			f, err := vol.openImg()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			err = allocate(t.Context(), f, 1<<30)
			if got := b.ungrow(vol, f, err); !errors.Is(got, backends.ErrNoSpace) {
				t.Errorf("kind: %v", got)
			}
			if now := allocated(stat(t, imgPath(b, v.ID))); now > was+64<<10 {
				t.Errorf("allocated %d, was %d", now, was)
			}
		})
	}
}

func TestRefusedFileSystems(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if _, err := InitPool(dir, nil); err == nil || !strings.Contains(err.Error(), "tmpfs") {
		t.Errorf("tmpfs: %v", err)
	}
	if _, err := InitPool(dir, &PoolOptions{AllowRootFS: true}); err != nil {
		t.Errorf("tmpfs, allowed: %v", err)
	}
	if _, err := New(Options{Pool: dir, Node: "n"}); err == nil {
		t.Error("a driver on tmpfs")
	}
	over := t.TempDir()
	for _, d := range []string{"l", "u", "w", "m"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data := "lowerdir=" + dir + "/l,upperdir=" + dir + "/u,workdir=" + dir + "/w"
	if err := unix.Mount("overlay", over, "overlay", 0, data); err != nil {
		t.Skipf("missing: overlayfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(over, unix.MNT_DETACH) })
	if _, err := InitPool(filepath.Join(over, "pool"), nil); err == nil || !strings.Contains(err.Error(), "overlay") {
		t.Errorf("a container's root: %v", err)
	}
}
