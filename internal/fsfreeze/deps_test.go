package fsfreeze_test

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	deptest.Only(t, map[string]string{
		"github.com/csikit/csikit/backends":                  "the contract's kinds of errors",
		"github.com/csikit/csikit/mounter/blockdev":          "device numbers",
		"github.com/csikit/csikit/mounter/mnt":               "which file system is mounted where",
		"github.com/csikit/csikit/mounter/internal/mountapi": "comes with it",
		"github.com/csikit/csikit/internal/faultpoint":       "names of places where a test kills a driver; empty in a build without its tag",
		"golang.org/x/sys":                                   "FIFREEZE",
	})
}
