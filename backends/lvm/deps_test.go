package lvm

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	deptest.Only(t, map[string]string{
		"github.com/csikit/csikit/backends":                   "the contract",
		"github.com/csikit/csikit/backends/command":           "runs lvm",
		"github.com/csikit/csikit/backends/internal/iolimit":  "I/O limits, as backends/loopfile has them",
		"github.com/csikit/csikit/backends/internal/luks":     "the parameter and the secrets of encrypted volumes",
		"github.com/csikit/csikit/backends/lvm/internal/vgda": "reads the metadata of a VG from its disks",
		"github.com/csikit/csikit/idempotency":                "one change of a volume group at a time",
		"github.com/csikit/csikit/internal/faultpoint":        "named moments at which tests kill a process, by way of idempotency",
		"golang.org/x/sys":                                    "device numbers, ioctls",
		"github.com/csikit/csikit/internal/fsfreeze":          "file systems that are frozen while a group is cut, and thawed in any case",
		"github.com/csikit/csikit/mounter/blockdev":           "comes with it",
		"github.com/csikit/csikit/mounter/mnt":                "comes with it",
		"github.com/csikit/csikit/mounter/internal/mountapi":  "comes with it",
	})
}
