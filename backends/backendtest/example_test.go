package backendtest_test

import (
	"testing"

	"github.com/csikit/csikit/backends/backendtest"
	"github.com/csikit/csikit/backends/mem"
)

// A backend's whole conformance test.
func ExampleRun() {
	open := func(t testing.TB, s *mem.Store) backendtest.Backend {
		b, err := mem.New(&mem.Options{Store: s, Node: "node-1"})
		if err != nil {
			t.Fatal(err)
		}
		return backendtest.Backend{Controller: b, Node: b, Traits: b.Traits(), NodeID: "node-1"}
	}
	_ = func(t *testing.T) { // func TestBackend(t *testing.T)
		backendtest.Run(t, backendtest.Config{
			New: func(t testing.TB) backendtest.Backend {
				return open(t, mem.NewStore(&mem.StoreOptions{Dir: t.TempDir()}))
			},
			Reopen: func(t testing.TB, b backendtest.Backend) backendtest.Backend {
				return open(t, b.Controller.(*mem.Backend).Store())
			},
			Content: func(b backendtest.Backend) backendtest.Content { return b.Controller.(*mem.Backend).Store() },
		})
	}
}
