// Package sanity runs csi-test's conformance tests (csi-sanity v5) against a CSI
// driver, from an ordinary Go test:
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
// answers at an endpoint. Each spec of csi-sanity becomes a subtest: passed,
// failed with csi-sanity's message, or skipped with its reason. What is skipped
// can be held to a file, so that a capability that is lost does not pass
// unnoticed. Every call and every run has a deadline, which csi-sanity alone has
// not. Afterwards the driver must have drained, and no mount may be left.
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
