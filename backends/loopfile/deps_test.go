package loopfile

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	deptest.Only(t, map[string]string{
		"github.com/csikit/csikit/backends":                  "the contract",
		"github.com/csikit/csikit/backends/command":          "the tools that give a copied file system its own UUID",
		"github.com/csikit/csikit/backends/internal/iolimit": "I/O limits, as backends/lvm has them",
		"github.com/csikit/csikit/backends/internal/luks":    "the parameter and the secrets of encrypted volumes, as backends/lvm has them",
		"github.com/csikit/csikit/mounter/blockdev":          "loop devices",
		"github.com/csikit/csikit/mounter/mnt":               "which mounted file system to freeze, and who uses a device",
		"github.com/csikit/csikit/mounter/internal/mountapi": "comes with it",
		"github.com/csikit/csikit/internal/fsfreeze":         "file systems that are frozen while they are cut, and thawed in any case",
		"github.com/csikit/csikit/internal/faultpoint":       "names of places where a test kills a driver; empty in a build without its tag",
		"github.com/csikit/csikit/internal/sparse":           "reflinks and copies of files with holes",
		"golang.org/x/sys":                                   "fallocate, renameat2, statfs, FICLONE, FIEMAP, FIFREEZE",
	})
	deptest.Never(t, map[string]string{
		"github.com/csikit/csikit/csidriver": "a backend is tested without a driver, and without gRPC",
	})
}
