package blockdev

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// backingFile makes a sparse file.
func backingFile(t testing.TB, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "img"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func statOf(t testing.TB, f *os.File) (dev, ino uint64) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return uint64(st.Dev), st.Ino //nolint:unconvert // 32 bits on some platforms
}

// attachFile attaches f for the length of the test.
func attachFile(t testing.TB, f *os.File, o AttachOptions) *Loop {
	t.Helper()
	testenv.Root(t)
	l, err := AttachLoop(context.Background(), f, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := DetachLoop(context.Background(), l.Path, l.Dev, l.Ino); err != nil {
			t.Error(err)
		}
	})
	return l
}

// loopDevice is a loop device of a sparse file, open for writing.
func loopDevice(t testing.TB, size int64) (*Device, *Loop, *os.File) {
	t.Helper()
	f := backingFile(t, size)
	l := attachFile(t, f, AttachOptions{})
	return openDevice(t, l.Path), l, f
}

func openDevice(t testing.TB, path string) *Device {
	t.Helper()
	d, err := Open(context.Background(), path, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func mustBeKind(t testing.TB, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("error %v, want kind %v", err, kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not name %q", err, w)
		}
	}
}

func TestAttach(t *testing.T) {
	testenv.Root(t)
	ways := map[string]configurer{"LOOP_CONFIGURE": configure, "steps": configureInSteps}
	for way, conf := range ways {
		for name, o := range map[string]AttachOptions{
			"plain":      {Name: "vol-1"},
			"read-only":  {Name: strings.Repeat("n", 63), ReadOnly: true},
			"direct":     {DirectIO: true},
			"block size": {BlockSize: 4096},
		} {
			t.Run(way+"/"+name, func(t *testing.T) {
				f := backingFile(t, 1<<20)
				dev, ino := statOf(t, f)
				l, err := attach(context.Background(), f, o, conf)
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := DetachLoop(context.Background(), l.Path, dev, ino); err != nil {
						t.Error(err)
					}
				}()
				checkAttached(t, l, dev, ino, o)
			})
		}
	}
}

func checkAttached(t *testing.T, l *Loop, dev, ino uint64, o AttachOptions) {
	t.Helper()
	if l.Dev != dev || l.Ino != ino || l.Name != o.Name || l.ReadOnly != o.ReadOnly || l.AutoClear || l.Offset != 0 {
		t.Errorf("attached %+v, want the file %d %d and %+v", l, dev, ino, o)
	}
	if l.DirectIO && !o.DirectIO {
		t.Errorf("direct I/O without being asked for")
	}
	d, err := Open(context.Background(), l.Path, !o.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close() //nolint:errcheck // read only
	seq, err := d.DiskSeq()
	if err != nil || seq != l.DiskSeq || seq == 0 {
		t.Errorf("DiskSeq %d, %v, want %d and not 0", seq, err, l.DiskSeq)
	}
	if ro, err := d.ReadOnly(); err != nil || ro != o.ReadOnly {
		t.Errorf("ReadOnly %t, %v", ro, err)
	}
	if size, err := d.Size(); err != nil || size != 1<<20 {
		t.Errorf("Size %d, %v", size, err)
	}
	if bs, err := unix.IoctlGetInt(int(d.File().Fd()), unix.BLKSSZGET); err != nil || o.BlockSize != 0 && bs != int(o.BlockSize) {
		t.Errorf("block size %d, %v, want %d", bs, err, o.BlockSize)
	}
	found, err := LoopOf(dev, ino)
	if err != nil || len(found) != 1 || found[0] != *l {
		t.Errorf("LoopOf: %+v, %v, want %+v", found, err, *l)
	}
	if is, err := LoopIs(l.Path, dev, ino); err != nil || !is {
		t.Errorf("LoopIs: %t, %v", is, err)
	}
	if is, err := LoopIs(l.Path, dev, ino+1); err != nil || is {
		t.Errorf("LoopIs of another file: %t, %v", is, err)
	}
}

func TestAttachRefuses(t *testing.T) {
	testenv.Root(t)
	ctx := context.Background()
	f := backingFile(t, 1<<20)
	_, err := AttachLoop(ctx, f, AttachOptions{Name: strings.Repeat("n", 64)})
	mustBeKind(t, err, backends.ErrInvalid)
	ro, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close() //nolint:errcheck // read only
	_, err = AttachLoop(ctx, ro, AttachOptions{})
	mustBeKind(t, err, backends.ErrInvalid, "read-only")
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close() //nolint:errcheck // read only
	_, err = AttachLoop(ctx, dir, AttachOptions{ReadOnly: true})
	mustBeKind(t, err, backends.ErrInvalid, "regular")
	_, err = AttachLoop(ctx, f, AttachOptions{BlockSize: 1000})
	if err == nil {
		t.Error("a block size of 1000 was accepted")
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err = AttachLoop(cancelled, f, AttachOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	left, err := LoopOf(statOf(t, f))
	for end := time.Now().Add(time.Minute); len(left) > 0 && left[0].AutoClear && time.Now().Before(end); left, err = LoopOf(statOf(t, f)) {
		time.Sleep(10 * time.Millisecond) // another program looks at it, and the kernel waits for that
	}
	if err != nil || len(left) > 0 {
		t.Errorf("left after refusals: %v, %v", left, err)
	}
}

// The kernel gives out one free device to everybody who asks at one time.
func TestAttachRace(t *testing.T) {
	testenv.Root(t)
	const n = 24
	var wg sync.WaitGroup
	paths := make([]string, n)
	for i := range n {
		f := backingFile(t, 1<<20)
		wg.Go(func() {
			l, err := AttachLoop(context.Background(), f, AttachOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			paths[i] = l.Path
			if err := DetachLoop(context.Background(), l.Path, l.Dev, l.Ino); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestAttachMakesTheNode(t *testing.T) {
	testenv.Root(t)
	// An empty /dev of this test's mount namespace, as in a container.
	control, err := os.ReadFile("/sys/class/misc/loop-control/dev")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("dev", "/dev", "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount("/dev", 0); err != nil {
			t.Error(err)
		}
	}()
	f := backingFile(t, 1<<20)
	_, err = AttachLoop(context.Background(), f, AttachOptions{})
	mustBeKind(t, err, backends.ErrUnavailable, "/dev/loop-control")
	if strings.TrimSpace(string(control)) != "10:237" {
		t.Fatalf("loop-control is %s", control)
	}
	if err := unix.Mknod(loopControl, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 237))); err != nil {
		t.Fatal(err)
	}
	l, err := AttachLoop(context.Background(), f, AttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(l.Path)
	if err != nil || fi.Mode().Perm() != 0o600 || fi.Mode()&fs.ModeDevice == 0 {
		t.Errorf("%s: %v, %v", l.Path, fi, err)
	}
	if err := os.Remove(l.Path); err != nil {
		t.Fatal(err)
	}
	if err := DetachLoop(context.Background(), l.Path, l.Dev, l.Ino); err != nil {
		t.Error(err)
	}
}

func TestDetachIsIdempotent(t *testing.T) {
	_, l, _ := loopDevice(t, 1<<20)
	ctx := context.Background()
	dev, ino := l.Dev, l.Ino
	if err := DetachLoop(ctx, "/dev/loop1048575", dev, ino); err != nil {
		t.Errorf("a device that does not exist: %v", err)
	}
	_, err := LoopIs("/dev/sda", dev, ino)
	mustBeKind(t, err, backends.ErrInvalid)
	for _, p := range []string{"/dev/loop", "/dev/loop07", "/dev/loop-1", "/dev/loop1/../sda", "loop1"} {
		mustBeKind(t, DetachLoop(ctx, p, dev, ino), backends.ErrInvalid)
	}
}

func TestDetachTwice(t *testing.T) {
	testenv.Root(t)
	f := backingFile(t, 1<<20)
	l, err := AttachLoop(context.Background(), f, AttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := DetachLoop(context.Background(), l.Path, l.Dev, l.Ino); err != nil {
			t.Fatal(err)
		}
		if is, err := LoopIs(l.Path, l.Dev, l.Ino); err != nil || is {
			t.Fatalf("still attached: %t, %v", is, err)
		}
	}
}

// A device that belongs to somebody else by now is left alone.
func TestDetachAnother(t *testing.T) {
	_, l, _ := loopDevice(t, 1<<20)
	other := backingFile(t, 1<<20)
	dev, ino := statOf(t, other)
	if err := DetachLoop(context.Background(), l.Path, dev, ino); err != nil {
		t.Errorf("the file is attached nowhere: %v", err)
	}
	if is, err := LoopIs(l.Path, l.Dev, l.Ino); err != nil || !is {
		t.Fatalf("another's device was detached: %t, %v", is, err)
	}
	elsewhere := attachFile(t, other, AttachOptions{})
	mustBeKind(t, DetachLoop(context.Background(), l.Path, dev, ino), backends.ErrInUse, elsewhere.Path)
}

// LOOP_CLR_FD on a device that is open says 0 and detaches it at the last close:
// DetachLoop says so, and takes the promise back.
func TestDetachOpenDevice(t *testing.T) {
	d, l, _ := loopDevice(t, 1<<20)
	mustBeKind(t, DetachLoop(context.Background(), l.Path, l.Dev, l.Ino), backends.ErrInUse, l.Path)
	info, err := loopStatus(d.f)
	if err != nil {
		t.Fatal(err)
	}
	if info.Flags&unix.LO_FLAGS_AUTOCLEAR != 0 {
		t.Error("the device will detach itself")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if is, err := LoopIs(l.Path, l.Dev, l.Ino); err != nil || !is {
		t.Errorf("detached behind our back: %t, %v", is, err)
	}
}

func TestDetachMounted(t *testing.T) {
	testenv.Tool(t, "mkfs.ext4")
	d, l, _ := loopDevice(t, 8<<20)
	run(t, "mkfs.ext4", "-q", l.Path)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount(l.Path, dir, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	err := DetachLoop(context.Background(), l.Path, l.Dev, l.Ino)
	found, lerr := LoopOf(l.Dev, l.Ino)
	if uerr := unix.Unmount(dir, 0); uerr != nil {
		t.Fatal(uerr)
	}
	mustBeKind(t, err, backends.ErrInUse, l.Path, "mounted")
	if lerr != nil || len(found) != 1 || found[0].AutoClear {
		t.Errorf("after the refusal: %+v, %v", found, lerr)
	}
	if is, err := LoopIs(l.Path, l.Dev, l.Ino); err != nil || !is {
		t.Errorf("detached behind our back: %t, %v", is, err)
	}
}

// Found by number also when the file has no name any more.
func TestLoopOfDeletedFile(t *testing.T) {
	_, l, f := loopDevice(t, 1<<20)
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	found, err := LoopOf(l.Dev, l.Ino)
	if err != nil || len(found) != 1 || found[0].Path != l.Path {
		t.Errorf("LoopOf: %+v, %v", found, err)
	}
}

func TestResize(t *testing.T) {
	d, l, f := loopDevice(t, 1<<20)
	if err := f.Truncate(3 << 20); err != nil {
		t.Fatal(err)
	}
	mustBeKind(t, ResizeLoop(l.Path, l.Dev, l.Ino+1), backends.ErrPrecondition, "backing file")
	if err := ResizeLoop(l.Path, l.Dev, l.Ino); err != nil {
		t.Fatal(err)
	}
	if size, err := d.Size(); err != nil || size != 3<<20 {
		t.Errorf("size %d, %v", size, err)
	}
}
