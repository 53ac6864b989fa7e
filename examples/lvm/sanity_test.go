package main

import (
	"fmt"
	"os"
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

func classes() []lvm.Class {
	return []lvm.Class{
		{Name: "linear", VG: "vgt"},
		{Name: "thin", VG: "vgt", Profile: lvm.Thin, ThinPool: "pool", PoolSize: 300 << 20, Overcommit: 100},
		{Name: "raid1", VG: "vgt", Profile: lvm.RAID1},
	}
}

func inVM(t *testing.T) bool {
	t.Helper()
	if !testenv.InVM(t, "700M", "700M") {
		return false
	}
	tool(t, "vgt", "vgcreate", "-qq", "-y", "vgt", "/dev/ubdb", "/dev/ubdc")
	return true
}

// TestSanity runs csi-sanity over real logical volumes, in one boot of the VM: there
// is a device-mapper, and a mounted ext4 may be grown there.
func TestSanity(t *testing.T) {
	if !inVM(t) {
		return
	}
	for _, class := range classes() {
		block := class.Profile == lvm.Thin
		t.Run(fmt.Sprintf("%s block=%t", class.Name, block), func(t *testing.T) { conform(t, class, block, "csi-sanity") })
	}
}

// TestWhole runs all checks over every class, mounted and as block devices: hundreds
// of volumes each, six minutes in a boot of its own, and of raid1 more.
func TestWhole(t *testing.T) {
	if os.Getenv("CSIKIT_LVM") != "all" {
		t.Skip("not asked for: make lvm")
	}
	for _, class := range classes() {
		for _, block := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s block=%t", class.Name, block), func(t *testing.T) {
				if inVM(t) {
					conform(t, class, block)
				}
			})
		}
	}
}

func conform(t *testing.T, class lvm.Class, block bool, only ...string) {
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
	limit, begin := testenv.VMLimit(t)-time.Minute, time.Now()
	defer func() {
		if time.Since(begin) >= limit { // what was not run is no failure of the driver's
			t.Errorf("not all checks were run in %v: CSIKIT_VM_LIMIT", limit)
		}
	}()
	sanity.Run(t, sanity.Config{
		Driver:            csidriver.Config{Name: "lvm.csikit.dev", Traits: b.Traits(), Controller: b, Node: b},
		Options:           &csidriver.Options{NodeID: "node-1", Engine: engine},
		Block:             block,
		Size:              32 << 20,
		Many:              20,
		Host:              "yes",
		MutableParameters: map[string]string{"read-ahead": "auto"},
		Timeout:           limit, // less than testenv gives the VM
		Only:              only,
	})
}
