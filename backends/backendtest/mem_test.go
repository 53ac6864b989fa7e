package backendtest

import (
	"testing"

	"github.com/csikit/csikit/backends/mem"
)

// stored is what mem.Backend, and a wrapper of it, is.
type stored interface{ Store() *mem.Store }

// onMem is the suite on backends/mem.
func onMem(o mem.StoreOptions, without ...string) Config {
	open := func(t testing.TB, s *mem.Store) Backend {
		b, err := mem.New(&mem.Options{Store: s, Node: "node-1", Without: without})
		if err != nil {
			t.Fatal(err)
		}
		return Backend{Controller: b, Node: b, Traits: b.Traits(), NodeID: "node-1", OtherNode: "node-2"}
	}
	return Config{
		New: func(t testing.TB) Backend {
			if !o.Devices {
				o.Dir = t.TempDir()
			}
			s := mem.NewStore(&o)
			s.AddNode("node-2", "", 0)
			return open(t, s)
		},
		Reopen: func(t testing.TB, b Backend) Backend {
			return open(t, b.Node.(stored).Store())
		},
		Content: func(b Backend) Content { return b.Node.(stored).Store() },
	}
}

func TestMemDirectories(t *testing.T) { Run(t, onMem(mem.StoreOptions{})) }

func TestMemDevices(t *testing.T) { Run(t, onMem(mem.StoreOptions{Devices: true})) }

// TestMemBare: what is missing is skipped, and nothing else.
func TestMemBare(t *testing.T) {
	Run(t, onMem(mem.StoreOptions{Devices: true}, "Attacher", "Snapshotter", "VolumeIDer", "Modifier", "CapacityReporter", "EphemeralProvisioner"))
}
