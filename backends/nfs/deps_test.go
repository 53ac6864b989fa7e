package nfs

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	const module = "github.com/csikit/csikit/"
	deptest.Only(t, map[string]string{
		module + "backends":                   "the contract",
		module + "backends/command":           "runs mount.nfs for NFS 3, and hooks",
		module + "mounter/mnt":                "mounts, in workers",
		module + "mounter/internal/mountapi":  "comes with mnt",
		module + "backends/nfs/internal/tree": "paths that stay on a share",
		module + "internal/sparse":            "copies of files with holes",
		module + "internal/faultpoint":        "names of places where a test kills a driver; empty in a build without its tag",
		"golang.org/x/sys":                    "statfs, statx, quota",
	})
}
