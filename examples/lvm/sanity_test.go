package main

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/csikit/csikit/backends/lvm"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/sanity"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// tool runs lvm for what is not there yet: sanity.Run starts this test once more, as
// a process of its own.
func tool(t *testing.T, made string, args ...string) {
	t.Helper()
	if exec.CommandContext(t.Context(), "lvm", "lvs", made).Run() == nil {
		return
	}
	if out, err := exec.CommandContext(t.Context(), "lvm", args...).CombinedOutput(); err != nil {
		t.Fatalf("lvm %v: %v\n%s", args, err, out)
	}
}

// The two run csi-sanity over real logical volumes: in the VM, where there is a
// device-mapper, and where a mounted ext4 may be grown. Linear raw block and thin
// mounted differ from these by what the other one shows.

func TestSanityLinear(t *testing.T) {
	if testenv.InVM(t, "1G") {
		tool(t, "vgt", "vgcreate", "-qq", "-y", "vgt", "/dev/ubdb")
		conform(t, lvm.Class{Name: "linear", VG: "vgt"}, false)
	}
}

func TestSanityThinBlock(t *testing.T) {
	if testenv.InVM(t, "1G") {
		tool(t, "vgt", "vgcreate", "-qq", "-y", "vgt", "/dev/ubdb")
		tool(t, "vgt/pool", "lvcreate", "-qq", "-y", "--type", "thin-pool", "-L", "400M", "-n", "pool", "vgt")
		conform(t, lvm.Class{Name: "thin", VG: "vgt", Profile: lvm.Thin, ThinPool: "pool", Overcommit: 100}, true)
	}
}

func conform(t *testing.T, class lvm.Class, block bool) {
	t.Helper()
	b, err := lvm.New(lvm.Options{Driver: "lvm.csikit.dev", Node: "node-1", Classes: []lvm.Class{class}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	engine, err := mounter.New(b, &mounter.Options{
		StateDir: filepath.Join(t.TempDir(), "state"), AllowVolatileState: true, DefaultFS: "ext4",
	})
	if err != nil {
		t.Fatal(err)
	}
	sanity.Run(t, sanity.Config{
		Driver:  csidriver.Config{Name: "lvm.csikit.dev", Traits: b.Traits(), Controller: b, Node: b},
		Options: &csidriver.Options{NodeID: "node-1", Engine: engine},
		Block:   block,
		Size:    32 << 20,
		Timeout: 9 * time.Minute,        // less than testenv gives the VM
		Only:    []string{"csi-sanity"}, // the checks beside it make hundreds of volumes
	})
}
