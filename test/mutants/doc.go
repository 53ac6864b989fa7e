// Package mutants is a CSI driver that can be made wrong on purpose: a reference
// driver with some two hundred switches, each of which breaks one clause of the
// CSI spec as real drivers break it, and some variants that are unusual and valid.
// It is how a conformance harness is tested: one that sees nothing wrong with a
// mutant has a hole, one that finds fault with a variant is wrong itself.
//
//	d, err := mutants.Start(ctx, mutants.ByName("delete-again-not-found"), mutants.Options{Endpoint: "unix:///run/x/csi.sock", Dir: dir})
//	...
//	err = d.Stop()
//
// or as a program, for harnesses in any language:
//
//	go run ./test/mutants/driver -mutant delete-again-not-found -endpoint unix:///run/x/csi.sock -state /var/tmp/x
//	go run ./test/mutants/driver -list
//
// # How a mutant is made
//
// The driver is csikit's own, over package mem with directories that are really
// mounted, or over package loopfile with loop devices. In front of it stands a
// second gRPC server, which hands every call on. A mutant is data: its name, the
// clauses that it breaks, and a function that installs it on a [Rig]: in front,
// where requests, replies and errors can be anything; around the node engine; in
// the backend; in the listener. Nothing of the driver itself is written for a
// mutant, and the switches know nothing of any test.
//
// make mutants runs csikit's harness against all of them; see docs/mutants.md.
//
// # When not to use it
//
// As an example of a driver. The wrong ones do what their names say, to data too.
package mutants
