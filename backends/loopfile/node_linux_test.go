package loopfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/blockdev"
)

var asFS = backends.Capability{Mode: backends.SingleNodeWriter, FSType: "ext4"}

// loopsOf are the loop devices on a volume's image.
func loopsOf(t testing.TB, b *Backend, id string) []string {
	t.Helper()
	fi := stat(t, imgPath(b, id))
	loops, err := blockdev.LoopOf(device(fi), inode(fi))
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, l := range loops {
		paths = append(paths, l.Path)
	}
	return paths
}

// openIt opens a volume on the node and closes it with the test.
func openIt(t testing.TB, b *Backend, id string, state []byte) *backends.Source {
	t.Helper()
	s, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: id, Capability: asFS, State: state})
	if err != nil {
		t.Fatalf("open %s: %v", id, err)
	}
	return s
}

func closeIt(t testing.TB, b *Backend, id string, state []byte) {
	t.Helper()
	if err := b.CloseVolume(t.Context(), backends.CloseVolumeRequest{ID: id, State: state}); err != nil {
		t.Fatalf("close %s: %v", id, err)
	}
}

// openNode opens a backend of which the node half is recovered too.
func openNode(t testing.TB, o Options, vols ...backends.OpenVolume) *Backend {
	t.Helper()
	testenv.Root(t)
	b := open(t, o)
	if err := b.RecoverNode(t.Context(), vols); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenAndClose(t *testing.T) {
	b := openNode(t, testOptions(t))
	for _, block := range []string{"512", "4096"} {
		v := create(t, b, "v"+block, 8*mib, paramBlockSize, block)
		first := openIt(t, b, v.ID, nil)
		if d := first.Device; d.Format != backends.FormatNever || d.Identity.Size != 8*mib {
			t.Errorf("device %+v", d)
		}
		d, err := blockdev.Open(t.Context(), first.Device.Path, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Verify(t.Context(), first.Device.Identity); err != nil {
			t.Errorf("identity: %v", err)
		}
		if n, err := unix.IoctlGetInt(int(d.File().Fd()), unix.BLKSSZGET); err != nil || n != map[string]int{"512": 512, "4096": 4096}[block] {
			t.Errorf("logical blocks of %d, %v", n, err)
		}
		// While somebody has it open, it is not taken away.
		if err := b.CloseVolume(t.Context(), backends.CloseVolumeRequest{ID: v.ID, State: first.State}); !errors.Is(err, backends.ErrInUse) {
			t.Errorf("close while in use: %v", err)
		}
		_ = d.Close()
		for _, state := range [][]byte{nil, first.State} {
			again := openIt(t, b, v.ID, state)
			if again.Device.Path != first.Device.Path || !bytes.Equal(again.State, first.State) {
				t.Errorf("opened again: %+v, first %+v", again, first)
			}
		}
		if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
			t.Errorf("delete while open: %v", err)
		}
		closeIt(t, b, v.ID, first.State)
		closeIt(t, b, v.ID, first.State)
		closeIt(t, b, v.ID, nil)
		if left := loopsOf(t, b, v.ID); len(left) > 0 {
			t.Errorf("closed, and attached to %q", left)
		}
		remove(t, b, v.ID)
		closeIt(t, b, v.ID, first.State) // not known any more
	}
	closeIt(t, b, "no/such/../volume", nil)
	if _, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: makeID(b.pool.info.Name, dirOf("nobody"))}); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("open an unknown volume: %v", err)
	}
}

// TestThickStaysThick: mkfs discards the whole device by default. The thin volume
// shows that it would have worked.
func TestThickStaysThick(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs", "btrfs"} {
		for _, typ := range []string{typeThick, typeThin} {
			t.Run(fs+" "+typ, func(t *testing.T) {
				testenv.Root(t)
				testenv.Tool(t, "mkfs."+fs, "blkdiscard")
				b := openNode(t, testOptions(t))
				const size = 320 * mib
				v := create(t, b, "v", size, paramType, typ)
				img, err := os.OpenFile(imgPath(b, v.ID), os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				if err := unix.Fallocate(int(img.Fd()), 0, 0, size); err != nil {
					t.Fatal(err)
				}
				_ = img.Close()
				s := openIt(t, b, v.ID, nil)
				run(t, "mkfs."+fs, s.Device.Path)
				thick := allocated(stat(t, imgPath(b, v.ID))) >= size
				closeIt(t, b, v.ID, s.State)
				if thick != (typ == typeThick) {
					t.Errorf("after mkfs.%s: allocated in full: %v", fs, thick)
				}
				remove(t, b, v.ID)
			})
		}
	}
}

// TestHolesAreFilled: what was punched by other means comes back at the next open.
func TestHolesAreFilled(t *testing.T) {
	b := openNode(t, testOptions(t))
	v := create(t, b, "v", 8*mib)
	img, err := os.OpenFile(imgPath(b, v.ID), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = img.Close() }()
	if err := unix.Fallocate(int(img.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, mib, 4*mib); err != nil {
		t.Fatal(err)
	}
	if allocated(stat(t, imgPath(b, v.ID))) >= 8*mib {
		t.Fatal("no hole was punched")
	}
	s := openIt(t, b, v.ID, nil)
	defer closeIt(t, b, v.ID, s.State)
	if got := allocated(stat(t, imgPath(b, v.ID))); got < 8*mib {
		t.Errorf("%d bytes allocated", got)
	}
}

// TestDiscardIsGivenBack: whoever gets the loop device next may discard.
func TestDiscardIsGivenBack(t *testing.T) {
	b := openNode(t, testOptions(t))
	thick, thin := create(t, b, "thick", 8*mib), create(t, b, "thin", 8*mib, paramType, typeThin)
	s := openIt(t, b, thick.ID, nil)
	if !discardStopped(s.Device.Path) {
		t.Error("a thick volume passes discards on")
	}
	closeIt(t, b, thick.ID, s.State)
	next := openIt(t, b, thin.ID, nil) // most likely the same device
	if discardStopped(next.Device.Path) {
		t.Errorf("%s (before: %s) passes no discards for a thin volume", next.Device.Path, s.Device.Path)
	}
	closeIt(t, b, thin.ID, next.State)
	s = openIt(t, b, thick.ID, nil)
	closeIt(t, b, thick.ID, s.State)
	_ = b.Close()
	if !discardStopped(s.Device.Path) {
		return
	}
	if other, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(s.Device.Path), "loop/backing_file")); err == nil {
		t.Logf("%s has a new user meanwhile: %s", s.Device.Path, other)
		return
	}
	t.Errorf("%s is detached, and still passes no discards", s.Device.Path)
}

func TestFormatIsRemembered(t *testing.T) {
	b := openNode(t, testOptions(t))
	v := create(t, b, "v", 8*mib)
	record := func(f backends.FormatState, fs string) error {
		return b.RecordFormat(t.Context(), backends.RecordFormatRequest{ID: v.ID, Format: f, FSType: fs})
	}
	want := func(f backends.FormatState, fs string) {
		t.Helper()
		s := openIt(t, b, v.ID, nil)
		closeIt(t, b, v.ID, s.State)
		if s.Device.Format != f || s.Device.FSType != fs {
			t.Errorf("format %v %q, want %v %q", s.Device.Format, s.Device.FSType, f, fs)
		}
	}
	want(backends.FormatNever, "")
	if err := record(backends.FormatStarted, "xfs"); err != nil {
		t.Fatal(err)
	}
	want(backends.FormatStarted, "xfs")
	if err := errors.Join(record(backends.FormatDone, "xfs"), record(backends.FormatDone, "xfs")); err != nil {
		t.Fatal(err)
	}
	want(backends.FormatDone, "xfs")
	for _, f := range []backends.FormatState{backends.FormatStarted, backends.FormatNever, backends.FormatUnknown} {
		if err := record(f, "xfs"); err == nil {
			t.Errorf("from done to %v", f)
		}
	}
	if _, err := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 16 * mib}); err != nil {
		t.Fatal(err)
	}
	want(backends.FormatDone, "xfs")
}

// TestRawBlockEndsTheVouching: a program may have written what no probe knows.
func TestRawBlockEndsTheVouching(t *testing.T) {
	b := openNode(t, testOptions(t))
	v := create(t, b, "v", 8*mib)
	s, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID, Capability: backends.Capability{Block: true}})
	if err != nil {
		t.Fatal(err)
	}
	closeIt(t, b, v.ID, s.State)
	s = openIt(t, b, v.ID, nil)
	defer closeIt(t, b, v.ID, s.State)
	if s.Device.Format != backends.FormatUnknown {
		t.Errorf("after use as a block device: format %v", s.Device.Format)
	}
}

func TestExpandWhileOpen(t *testing.T) {
	b := openNode(t, testOptions(t))
	v := create(t, b, "v", 8*mib)
	s := openIt(t, b, v.ID, nil)
	defer closeIt(t, b, v.ID, s.State)
	expand := func(required int64) error {
		return b.NodeExpandVolume(t.Context(), backends.NodeExpandVolumeRequest{ID: v.ID, State: s.State, Range: backends.CapacityRange{Required: required}})
	}
	if err := expand(16 * mib); !errors.Is(err, backends.ErrOutOfRange) {
		t.Errorf("before the controller did: %v", err)
	}
	if _, err := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 16 * mib}); err != nil {
		t.Fatal(err)
	}
	if err := expand(16 * mib); err != nil {
		t.Fatal(err)
	}
	d, err := blockdev.Open(t.Context(), s.Device.Path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if n, err := d.Size(); err != nil || n != 16*mib {
		t.Errorf("device has %d bytes, %v", n, err)
	}
}

// TestLoopOutlivesDriver: the next process finds it, by its lock alone.
func TestLoopOutlivesDriver(t *testing.T) {
	testenv.Root(t)
	o := testOptions(t)
	b := openNode(t, o)
	v := create(t, b, "v", 8*mib)
	_ = b.Close()
	runKilled(t, order{Pool: o.Pool, Op: "open", ID: v.ID, KillAt: "loopfile.open.attached"})
	b = open(t, o)
	left := loopsOf(t, b, v.ID)
	if len(left) != 1 {
		t.Fatalf("attached to %q: the test proves nothing", left)
	}
	t.Run("delete before recovery", func(t *testing.T) {
		if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
			t.Errorf("delete: %v", err)
		}
	})
	t.Run("open reuses it", func(t *testing.T) {
		s := openIt(t, b, v.ID, nil)
		if s.Device.Path != left[0] || len(loopsOf(t, b, v.ID)) != 1 {
			t.Errorf("opened as %s, attached to %q", s.Device.Path, loopsOf(t, b, v.ID))
		}
	})
	_ = b.Close()
	t.Run("recovery keeps what a record calls open", func(t *testing.T) {
		b = openNode(t, o, backends.OpenVolume{ID: v.ID})
		if got := loopsOf(t, b, v.ID); len(got) != 1 {
			t.Errorf("attached to %q", got)
		}
		if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
			t.Errorf("delete: %v", err)
		}
		_ = b.Close()
	})
	t.Run("recovery detaches the rest", func(t *testing.T) {
		b = openNode(t, o)
		if got := loopsOf(t, b, v.ID); len(got) > 0 {
			t.Errorf("attached to %q", got)
		}
		remove(t, b, v.ID)
	})
}

// TestMountedVolumeSurvivesEverything: no record, no state, and data in use.
func TestMountedVolumeSurvivesEverything(t *testing.T) {
	testenv.Tool(t, "mkfs.ext4")
	o := testOptions(t)
	b := openNode(t, o)
	v := create(t, b, "v", 16*mib)
	s := openIt(t, b, v.ID, nil)
	run(t, "mkfs.ext4", "-q", s.Device.Path)
	dir := t.TempDir()
	if err := unix.Mount(s.Device.Path, dir, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	b = openNode(t, o) // nobody calls it open
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("delete: %v", err)
	}
	if err := b.CloseVolume(t.Context(), backends.CloseVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) || !strings.Contains(err.Error(), "mount "+dir) {
		t.Errorf("close, which should name the mount %s: %v", dir, err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(got) != "data" {
		t.Errorf("%q, %v", got, err)
	}
	if !discardStopped(s.Device.Path) {
		t.Error("a failed detach left discards on")
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if got := loopsOf(t, b, v.ID); len(got) != 1 {
		t.Errorf("attached to %q: detached behind our back", got)
	}
	remove(t, b, v.ID) // an orphan by now
}

// TestForeignLoop: somebody attached the image by hand.
func TestForeignLoop(t *testing.T) {
	testenv.Root(t)
	b := openNode(t, testOptions(t))
	v := create(t, b, "v", 8*mib)
	img, err := os.OpenFile(imgPath(b, v.ID), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := blockdev.AttachLoop(t.Context(), img, blockdev.AttachOptions{Name: "by hand"})
	if err != nil {
		t.Fatal(err)
	}
	_ = img.Close()
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) || !strings.Contains(err.Error(), l.Path) {
		t.Errorf("delete: %v", err)
	}
	if err := blockdev.DetachLoop(t.Context(), l.Path, l.Dev, l.Ino); err != nil {
		t.Fatal(err)
	}
	remove(t, b, v.ID)
}

// TestTrashIsNotCutUnderALoop: should an attached image ever get there, its user
// keeps it.
func TestTrashIsNotCutUnderALoop(t *testing.T) {
	o := testOptions(t)
	b := openNode(t, o)
	v := create(t, b, "v", 8*mib)
	s := openIt(t, b, v.ID, nil)
	_, dir, _ := splitID(v.ID)
	from, to := filepath.Join(o.Pool, volumesDir, dir), filepath.Join(o.Pool, trashDir, dir+".x")
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
	if err := b.RecoverController(t.Context()); err != nil {
		t.Fatal(err)
	}
	if fi := stat(t, filepath.Join(to, imgFile)); fi.Size() != 8*mib {
		t.Errorf("%d bytes are left", fi.Size())
	}
	closeIt(t, b, v.ID, s.State) // the volume is gone from v: by State alone
	if err := b.RecoverController(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantClean(t, o.Pool)
}

// TestControllerProcessSeesTheNode: the halves in two processes share the lock.
func TestControllerProcessSeesTheNode(t *testing.T) {
	testenv.Root(t)
	o := testOptions(t)
	ctrl, node := o, o
	ctrl.Half, node.Half = ControllerHalf, NodeHalf
	c := open(t, ctrl)
	v := create(t, c, "v", 8*mib)
	n, err := New(node)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	s := openIt(t, n, v.ID, nil)
	if err := c.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("delete: %v", err)
	}
	closeIt(t, n, v.ID, s.State)
	remove(t, c, v.ID)
}

// TestOpenAndDeleteAtOnce: whoever comes first wins, and the other says so.
func TestOpenAndDeleteAtOnce(t *testing.T) {
	b := openNode(t, testOptions(t))
	for range 20 {
		v := create(t, b, "v", mib, paramType, typeThin)
		var wg sync.WaitGroup
		var opened, deleted error
		var s *backends.Source
		wg.Go(func() {
			s, opened = b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID, Capability: asFS})
		})
		wg.Go(func() { deleted = b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}) })
		wg.Wait()
		switch {
		case opened == nil && errors.Is(deleted, backends.ErrInUse):
			closeIt(t, b, v.ID, s.State)
			remove(t, b, v.ID)
		case deleted == nil && errors.Is(opened, backends.ErrNotFound):
		default:
			t.Fatalf("open: %v, delete: %v", opened, deleted)
		}
	}
}

// TestCloseWithoutPool: the disk is gone, State knows the loop device.
func TestCloseWithoutPool(t *testing.T) {
	img, dir := disk(t, "ext4", "64M")
	mountDisk(t, img, dir)
	o := testOptions(t)
	o.Pool = dir
	b := openNode(t, o)
	v := create(t, b, "v", 8*mib)
	fi := stat(t, imgPath(b, v.ID))
	s := openIt(t, b, v.ID, nil)
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	// Another attachment than the one that State speaks of is left alone.
	other := bytes.Replace(s.State, []byte(`"diskSeq":`), []byte(`"diskSeq":9`), 1)
	closeIt(t, b, v.ID, other)
	if is, err := blockdev.LoopIs(s.Device.Path, device(fi), inode(fi)); err != nil || !is {
		t.Fatalf("detached by a State of another attachment: %v, %v", is, err)
	}
	closeIt(t, b, v.ID, s.State)
	if is, err := blockdev.LoopIs(s.Device.Path, device(fi), inode(fi)); err != nil || is {
		t.Errorf("still attached: %v, %v", is, err)
	}
}

// TestShortImage: the file lost its end. Reads of it would be EIO.
func TestShortImage(t *testing.T) {
	b := openNode(t, testOptions(t))
	v := create(t, b, "v", 8*mib)
	if err := os.Truncate(imgPath(b, v.ID), 4*mib); err != nil {
		t.Fatal(err)
	}
	if _, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID, Capability: asFS}); !errors.Is(err, backends.ErrDataLoss) {
		t.Errorf("open: %v", err)
	}
	if _, err := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 16 * mib}); !errors.Is(err, backends.ErrDataLoss) {
		t.Errorf("expand: %v", err)
	}
}

// TestPoolsOnOtherFileSystems: btrfs reports device numbers that match nothing.
func TestPoolsOnOtherFileSystems(t *testing.T) {
	for _, fs := range []string{"xfs", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			img, dir := disk(t, fs, "512M")
			mountDisk(t, img, dir)
			o := testOptions(t)
			o.Pool = dir
			b := openNode(t, o)
			v := create(t, b, "v", 16*mib)
			s := openIt(t, b, v.ID, nil)
			if again := openIt(t, b, v.ID, s.State); again.Device.Path != s.Device.Path {
				t.Errorf("opened twice: %s, %s", s.Device.Path, again.Device.Path)
			}
			closeIt(t, b, v.ID, s.State)
			if left := loopsOf(t, b, v.ID); len(left) > 0 {
				t.Errorf("attached to %q", left)
			}
			remove(t, b, v.ID)
		})
	}
}
