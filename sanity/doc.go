// Package sanity is a conformance test for CSI drivers in any language, from an
// ordinary Go test: csi-test's (csi-sanity v5) first, then checks of its own,
// H-01 to H-32, by the clauses of the spec:
//
//	func TestSanity(t *testing.T) {
//		for _, block := range []bool{false, true} {
//			t.Run(fmt.Sprintf("block=%t", block), func(t *testing.T) {
//				sanity.Run(t, sanity.Config{
//					Driver:    csidriver.Config{Name: "my.csi.example.com", Traits: traits, Controller: b, Node: b},
//					Block:     block,
//					SkipsFile: "testdata/sanity-skips.txt",
//				})
//			})
//		}
//	}
//
// The driver runs in the test's process, or is one, in any language, that
// answers at an endpoint. Each spec of csi-sanity and each check becomes a
// subtest. What csi-sanity skips can be held to a file, so that a capability that
// is lost does not pass unnoticed. Every call, every check and every run has a
// deadline: a call that hangs costs one result. Each check makes what it needs, by
// names that nobody has, and takes it back. Afterwards the driver must have
// drained, and no mount may be left.
//
// # Verdicts
//
// [Fail] says that a clause is broken, and is the only one that fails a test; a
// valid driver has none. [Warn] is for a SHOULD that is broken, for what a CO in
// use would stumble over, and for specs of csi-sanity that ask for more than the
// spec. [NotApplicable] is what the driver does not advertise, [NotRun] what lacks
// something here, which the message names. A [Result] has the ids of the clauses,
// the last calls without secrets, and the command that runs it again.
//
// What a driver mounts is looked at when it is to be seen here: data, read-only
// mounts, growth, leaks (Config.Host). With Config.Restart the driver is killed
// between calls and in them, with Config.Logs its log is searched for secrets.
//
// # A second process
//
// csi-sanity can run once in a process. So [Run] starts the test binary again,
// for the calling test alone, and there [Run] runs csi-sanity instead, against
// the endpoint of the first process. Nothing has to be prepared for it, and flags
// are handed on. But the code before Run in the calling test, in the tests around
// it and in TestMain is executed twice: it should keep to t.TempDir and not
// collide with itself. The code after Run is executed once.
//
// # In a command
//
// [Check] is Run without a test, for a driver at an endpoint: it returns the
// outcomes, and tells of each while it runs. The program that calls it is started
// again too, and calls [Child] first. The command csikit check is made of it.
//
// # When not to use it
//
// In a driver: it imports package testing and adds the flags of ginkgo to
// the binary. Nothing that a driver links imports it.
package sanity
