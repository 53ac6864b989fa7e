package main

import (
	"path/filepath"
	"testing"

	"github.com/csikit/csikit/backends/loopfile"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/sanity"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// conform runs the conformance test against this driver with defaultFS as the file system
// that it makes when none is asked for, as csi-sanity never does.
// only says what of the conformance test is run; nothing: all.
func conform(t *testing.T, defaultFS string, block bool, only ...string) {
	t.Helper()
	b, err := loopfile.New(loopfile.Options{
		Pool: filepath.Join(t.TempDir(), "pool"), Node: "node-1", Init: true, AllowRootFS: true, Thin: true, Reserve: -1, Overcommit: 100,
		// On a machine without cgroup v2 no limit can be set, and "max" is none.
		Cgroup: "/sys/fs/cgroup/pods",
		Attach: true, // which the demo and other tests do without
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	engine, err := mounter.New(b, &mounter.Options{
		StateDir: filepath.Join(t.TempDir(), "state"), AllowVolatileState: true, DefaultFS: defaultFS,
	})
	if err != nil {
		t.Fatal(err)
	}
	sanity.Run(t, sanity.Config{
		Driver:            csidriver.Config{Name: "loopfile.csikit.dev", Traits: b.Traits(), Controller: b, Node: b},
		Options:           &csidriver.Options{NodeID: "node-1", Engine: engine},
		Block:             block,
		Only:              only,
		Size:              320 << 20,
		Host:              "yes",
		Many:              80,
		MutableParameters: map[string]string{"read-bps": "max", "write-iops": "0"},
		SkipsFile:         filepath.Join("testdata", "sanity-skips.txt"),
	})
}

// data are the checks that see more than messages; those of messages are the same
// whatever the file system is.
var data = []string{"csi-sanity", "H-14", "H-15", "H-16", "H-18", "H-19", "H-23", "H-29"}

func TestSanityXFS(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs.xfs", "xfs_growfs")
	conform(t, "xfs", false)
}

func TestSanityBtrfs(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs.btrfs")
	conform(t, "btrfs", false, data...)
}

func TestSanityBlock(t *testing.T) {
	testenv.Root(t)
	conform(t, "", true, data...)
}

// TestSanityExt4 needs a process that may grow a mounted ext4
// (CAP_SYS_RESOURCE): the VM's.
func TestSanityExt4(t *testing.T) {
	if testenv.InVM(t) {
		conform(t, "ext4", false, data...)
	}
}
