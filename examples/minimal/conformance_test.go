package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/csikit/csikit/backends/backendtest"
)

// files reaches the bytes of volumes by a file in each.
type files struct{ b backend }

func (f files) WriteAt(id string, p []byte, off int64) error {
	file, err := f.b.root.OpenFile(filepath.Join(id, "data"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Truncate(1 << 20); err != nil {
		return err
	}
	_, err = file.WriteAt(p, off)
	return err
}

func (f files) ReadAt(id string, p []byte, off int64) error {
	file, err := f.b.root.Open(filepath.Join(id, "data"))
	if os.IsNotExist(err) {
		return nil // as empty as it can be
	}
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.ReadAt(p, off)
	return err
}

func TestConformance(t *testing.T) {
	pair := func(b backend) backendtest.Backend {
		return backendtest.Backend{Controller: b, Node: b, Traits: traits}
	}
	backendtest.Run(t, backendtest.Config{
		New: func(tb testing.TB) backendtest.Backend { return pair(openIn(tb, tb.TempDir())) },
		Reopen: func(tb testing.TB, b backendtest.Backend) backendtest.Backend {
			return pair(openIn(tb, b.Controller.(backend).root.Name()))
		},
		Content: func(b backendtest.Backend) backendtest.Content { return files{b.Controller.(backend)} },
	})
}
