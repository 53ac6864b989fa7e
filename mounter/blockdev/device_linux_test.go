package blockdev

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func TestOpenRefuses(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{file, fifo, dir, "/dev/null"} {
		_, err := Open(ctx, p, false)
		mustBeKind(t, err, backends.ErrPrecondition, p, "not a block device")
	}
	if _, err := Open(ctx, filepath.Join(dir, "none"), false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Open(cancelled, file, false); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// An open Device keeps its loop device: it is not given to another file.
func TestOpenPinsTheInstance(t *testing.T) {
	d, l, _ := loopDevice(t, 1<<20)
	link := filepath.Join(t.TempDir(), "by-id")
	if err := os.Symlink(l.Path, link); err != nil {
		t.Fatal(err)
	}
	byLink := openDevice(t, link)
	if byLink.Num() != d.Num() || d.Num() != unix.Mkdev(7, uint32(l.Number)) {
		t.Errorf("numbers %x and %x", byLink.Num(), d.Num())
	}
	other := backingFile(t, 1<<20)
	mustBeKind(t, DetachLoop(context.Background(), l.Path, l.Dev, l.Ino), backends.ErrInUse)
	if err := configure(d.f, other, AttachOptions{}); !errors.Is(err, unix.EBUSY) {
		t.Errorf("the device was given away: %v", err)
	}
	if _, err := os.Stat(d.FDPath()); err != nil {
		t.Error(err)
	}
}

func TestDiskSeqChanges(t *testing.T) {
	testenv.Root(t)
	f := backingFile(t, 1<<20)
	var last uint64
	for range 3 {
		l, err := AttachLoop(context.Background(), f, AttachOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if l.DiskSeq == last {
			t.Errorf("%s has disk sequence %d again", l.Path, last)
		}
		last = l.DiskSeq
		if err := DetachLoop(context.Background(), l.Path, l.Dev, l.Ino); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSetReadOnly(t *testing.T) {
	d, _, f := loopDevice(t, 1<<20)
	for _, ro := range []bool{true, false} {
		if err := d.SetReadOnly(ro); err != nil {
			t.Fatal(err)
		}
		_, err := d.File().WriteAt(make([]byte, 512), 0)
		if ro != errors.Is(err, unix.EPERM) {
			t.Errorf("write with read-only %t: %v", ro, err)
		}
	}
	ro := attachFile(t, mustReopen(t, f), AttachOptions{ReadOnly: true})
	rd, err := Open(context.Background(), ro.Path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close() //nolint:errcheck // read only
	mustBeKind(t, rd.SetReadOnly(false), backends.ErrPrecondition, ro.Path)
}

func mustReopen(t *testing.T, f *os.File) *os.File {
	t.Helper()
	g, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// The flag that SetReadOnly sets stays with the number of a loop device when the
// device is detached: the next file behind it must not inherit it.
func TestReadOnlyIsNotInherited(t *testing.T) {
	testenv.Root(t)
	ctx := context.Background()
	f := backingFile(t, 1<<20)
	for name, detach := range map[string]func(d *Device, l *Loop) error{
		"by others": func(d *Device, _ *Loop) error {
			return errors.Join(unix.IoctlSetInt(int(d.File().Fd()), unix.LOOP_CLR_FD, 0), d.Close())
		},
		"by DetachLoop": func(d *Device, l *Loop) error {
			return errors.Join(d.Close(), DetachLoop(ctx, l.Path, l.Dev, l.Ino))
		},
	} {
		l, err := AttachLoop(ctx, f, AttachOptions{})
		if err != nil {
			t.Fatal(err)
		}
		d := openDevice(t, l.Path)
		if err := errors.Join(d.SetReadOnly(true), detach(d, l)); err != nil {
			t.Fatal(err)
		}
		free := openDevice(t, l.Path)
		ro, err := free.ReadOnly()
		if _, status := loopStatus(free.f); name == "by DetachLoop" && errors.Is(status, unix.ENXIO) && (ro || err != nil) {
			t.Errorf("%s stays read-only: %v", l.Path, err)
		}
		if err := free.Close(); err != nil {
			t.Fatal(err)
		}
		again := attachFile(t, f, AttachOptions{})
		if ro, err := openDevice(t, again.Path).ReadOnly(); err != nil || ro {
			t.Errorf("detached %s, then %s on %s: read-only %t, %v", name, again.Path, l.Path, ro, err)
		}
		if _, err := openDevice(t, again.Path).File().WriteAt(make([]byte, 512), 0); err != nil {
			t.Error(err)
		}
	}
}
