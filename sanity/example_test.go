package sanity_test

import (
	"testing"

	"github.com/csikit/csikit/sanity"
)

// In a driver's tests this is a func TestSanity(t *testing.T). The driver answers
// at a socket; see the package comment for one in the same process.
func ExampleRun() {
	TestSanity := func(t *testing.T) {
		sanity.Run(t, sanity.Config{
			Endpoint:   "unix:///run/csi/csi.sock",
			Parameters: map[string]string{"pool": "fast"},
			Size:       1 << 30,
			SkipsFile:  "testdata/sanity-skips.txt",
		})
	}
	_ = TestSanity
}
