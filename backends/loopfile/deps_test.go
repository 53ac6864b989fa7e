package loopfile

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	deptest.Only(t, map[string]string{
		"github.com/csikit/csikit/backends":                  "the contract",
		"github.com/csikit/csikit/mounter/blockdev":          "loop devices",
		"github.com/csikit/csikit/mounter/mnt":               "who uses a device that is busy",
		"github.com/csikit/csikit/mounter/internal/mountapi": "comes with it",
		"golang.org/x/sys/unix":                              "fallocate, renameat2, statfs",
	})
	deptest.Never(t, map[string]string{
		"github.com/csikit/csikit/csidriver": "a backend is tested without a driver, and without gRPC",
		"os/exec":                            "everything here is a system call",
	})
}
