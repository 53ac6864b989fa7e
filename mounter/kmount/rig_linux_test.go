package kmount_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/internal/mountapi"
	"github.com/csikit/csikit/mounter/internal/mounttest"
	"github.com/csikit/csikit/mounter/kmount"
	"github.com/csikit/csikit/mounter/mnt"
)

// kernels are the interfaces with which the mounts are tested.
var kernels = []mounttest.Kernel{{Name: "new", Hide: mountapi.None}, {Name: "old", Hide: mountapi.All}}

func onKernels(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	mounttest.OnKernels(t, kernels, test)
}

var (
	tempDir  = mounttest.TempDir
	mkdir    = mounttest.Dir
	mkfile   = mounttest.File
	deadFUSE = mounttest.DeadFUSE
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// loops are the devices that a test has, by name.
type loops struct {
	t   testing.TB
	dir string
	mu  sync.Mutex
}

// newLoops comes before what is mounted from them: at the end it detaches them, and
// what comes last is undone first.
func newLoops(t testing.TB) *loops {
	l := &loops{t: t, dir: t.TempDir()}
	t.Cleanup(func() {
		files, err := os.ReadDir(l.dir)
		must(t, err)
		for _, f := range files {
			if err := l.detach(f.Name()); err != nil {
				t.Error(err)
			}
		}
	})
	return l
}

func (l *loops) file(name string) string { return filepath.Join(l.dir, name) }

// device attaches the image of that name, made with size when it is missing.
func (l *loops) device(name string, size int64) string {
	l.t.Helper()
	dev, err := l.attach(name, size)
	must(l.t, err)
	return dev
}

func (l *loops) attach(name string, size int64) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, err := os.OpenFile(l.file(name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() < size {
		if err := errors.Join(err, f.Truncate(size)); err != nil {
			return "", err
		}
	}
	dev, ino := l.inode(name)
	found, err := blockdev.LoopOf(dev, ino)
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return found[0].Path, nil
	}
	loop, err := blockdev.AttachLoop(context.Background(), f, blockdev.AttachOptions{Name: name})
	if err != nil {
		return "", err
	}
	return loop.Path, nil
}

func (l *loops) inode(name string) (dev, ino uint64) {
	var st unix.Stat_t
	must(l.t, unix.Stat(l.file(name), &st))
	return st.Dev, st.Ino
}

func (l *loops) detach(name string) error {
	dev, ino := l.inode(name)
	found, err := blockdev.LoopOf(dev, ino)
	for _, f := range found {
		err = errors.Join(err, blockdev.DetachLoop(context.Background(), f.Path, dev, ino))
	}
	return err
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	testenv.Tool(t, name)
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func newMounter(t testing.TB, o *kmount.Options) *kmount.Mounter {
	t.Helper()
	if o == nil {
		o = &kmount.Options{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := kmount.New(o)
	must(t, err)
	return m
}

// stack is how many mounts are at path.
func stack(t testing.TB, path string) int {
	t.Helper()
	s, err := mnt.At(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	must(t, err)
	return len(s)
}

const mib = 1 << 20
