// Package backendtest holds a backend to the contract of package backends: one
// call, any backend, no driver and no gRPC.
//
//	func TestBackend(t *testing.T) {
//		backendtest.Run(t, backendtest.Config{
//			New: func(t testing.TB) backendtest.Backend {
//				b := newBackend(t, t.TempDir())
//				return backendtest.Backend{Controller: b, Node: b, Traits: traits, NodeID: "node-1"}
//			},
//			Reopen: reopen,
//		})
//	}
//
// Each check is a subtest with a backend of its own, and logs the sentence of the
// contract that it holds the backend to. Each operation that changes something
// is done twice, with the storage opened again between the steps, and cut at
// each moment at which it looks at its context; then it is done again, or
// undone. What the backend cannot do is skipped by the name of the interface that
// it lacks, what Config does not give by the name of the field.
//
// The suite calls a backend as csidriver does: it looks a name up before it
// creates, and never runs two calls for one name or one ID at a time.
package backendtest
