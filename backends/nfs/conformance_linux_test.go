package nfs

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/backendtest"
)

// files reaches the bytes of volumes by a file in each.
type files struct{ b *Backend }

func (f files) path(id string) (string, error) {
	v, err := f.b.Volume(context.Background(), backends.VolumeRequest{ID: id})
	if err != nil {
		return "", err
	}
	s, subDir, err := f.b.locate(id, v.Context)
	return filepath.Join(s.LocalDir, subDir, "data"), err
}

func (f files) WriteAt(id string, p []byte, off int64) error {
	at, err := f.path(id)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(at, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.WriteAt(p, off)
	return err
}

func (f files) ReadAt(id string, p []byte, off int64) error {
	at, err := f.path(id)
	if err != nil {
		return err
	}
	clear(p)
	file, err := os.Open(at)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func conformance(change func(*Options)) backendtest.Config {
	begin := func(t testing.TB, o Options) backendtest.Backend {
		b := open(t, o)
		return backendtest.Backend{Controller: b, Node: b, Traits: b.Traits(), NodeID: "node-1"}
	}
	return backendtest.Config{
		New: func(t testing.TB) backendtest.Backend {
			o := testOptions(t)
			ownFS(t, o.Shares[0].LocalDir)
			change(&o)
			return begin(t, o)
		},
		Reopen: func(t testing.TB, old backendtest.Backend) backendtest.Backend {
			b := old.Controller.(*Backend)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			return begin(t, b.o)
		},
		Ephemeral: map[string]string{paramShare: "share"},
		Content: func(b backendtest.Backend) backendtest.Content {
			return files{b.Controller.(*Backend)}
		},
	}
}

func TestConformance(t *testing.T) {
	t.Run("no quota", func(t *testing.T) {
		backendtest.Run(t, conformance(func(o *Options) { o.Ephemeral = true }))
	})
	t.Run("hook", func(t *testing.T) {
		backendtest.Run(t, conformance(withHook(t)))
	})
}

// ownFS mounts a file system of the test's own, whose free space nobody else changes.
func ownFS(t testing.TB, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
