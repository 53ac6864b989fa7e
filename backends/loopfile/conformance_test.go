package loopfile

import (
	"cmp"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/backendtest"
	"github.com/csikit/csikit/backends/internal/iolimit"
	"github.com/csikit/csikit/backends/internal/iolimit/iolimittest"
	"github.com/csikit/csikit/internal/testenv"
)

// images reaches the bytes of volumes by their files.
type images struct{ b *Backend }

func (i images) open(id string) (*os.File, error) {
	_, dir, ok := splitID(id)
	if !ok {
		return nil, fmt.Errorf("%q is no ID", id)
	}
	return os.OpenFile((&volume{p: i.b.pool, dir: dir}).path(imgFile), os.O_RDWR, 0)
}

func (i images) WriteAt(id string, p []byte, off int64) error {
	f, err := i.open(id)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(p, off)
	return err
}

func (i images) ReadAt(id string, p []byte, off int64) error {
	f, err := i.open(id)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(p, off)
	return err
}

// conformance is the suite on pools below t.TempDir.
func conformance(thin, block bool, half Half, group iolimit.Cgroup) backendtest.Config {
	begin := func(t testing.TB, o Options) backendtest.Backend {
		b, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		if group == "" {
			b.throttle = &iolimittest.Fake{} // few machines that run this have cgroup v2
		}
		t.Cleanup(sync.OnceFunc(func() { _ = b.Close() }))
		out := backendtest.Backend{Controller: b, Traits: b.Traits(), NodeID: o.Node}
		if half&NodeHalf != 0 {
			out.Node = b
		}
		return out
	}
	c := backendtest.Config{
		New: func(t testing.TB) backendtest.Backend {
			o := testOptions(t)
			o.Thin, o.Name, o.Half, o.Cgroup = thin, "pool", half, cmp.Or(string(group), "/sys/fs/cgroup/pods")
			return begin(t, o)
		},
		Reopen: func(t testing.TB, b backendtest.Backend) backendtest.Backend {
			old := b.Controller.(*Backend)
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			return begin(t, old.o)
		},
		Mutable: []map[string]string{{"read-bps": "100Mi", "read-iops": "1000"}, {"write-bps": "100000000", "write-iops": "max"}},
		Content: func(b backendtest.Backend) backendtest.Content { return images{b.Controller.(*Backend)} },
	}
	if block {
		c.Capability = backends.Capability{Mode: backends.SingleNodeWriter, Block: true}
	}
	return c
}

func TestConformance(t *testing.T) {
	backendtest.Run(t, conformance(false, false, ControllerHalf, ""))
}

func TestConformanceOnNode(t *testing.T) {
	testenv.Root(t)
	t.Run("mount", func(t *testing.T) {
		backendtest.Run(t, conformance(false, false, ControllerHalf|NodeHalf, ""))
	})
	t.Run("thin block", func(t *testing.T) {
		backendtest.Run(t, conformance(true, true, ControllerHalf|NodeHalf, ""))
	})
}
