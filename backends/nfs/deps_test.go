package nfs

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	const module = "github.com/csikit/csikit/"
	deptest.Only(t, map[string]string{
		module + "backends":                  "the contract",
		module + "backends/command":          "runs mount.nfs for NFS 3, and hooks",
		module + "mounter/mnt":               "mounts, in workers",
		module + "mounter/internal/mountapi": "comes with mnt",
		"golang.org/x/sys":                   "statfs, statx",
	})
}
