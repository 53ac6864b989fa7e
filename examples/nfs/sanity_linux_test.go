package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/csikit/csikit/backends/nfs"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/sanity"
)

// TestSanity runs csi-sanity and csikit's own checks over the kernel's NFS server.
func TestSanity(t *testing.T) {
	if !testenv.InVM(t, "1G") {
		return
	}
	// sanity.Run starts this test once more, as a process of its own, in which the
	// server runs already.
	if !serving() {
		serve(t, "/dev/ubdb", "xfs")
	}
	b, err := nfs.New(nfs.Options{
		Shares: []nfs.Share{{Name: "main", Server: "127.0.0.1", Export: "/", Options: []string{"vers=4.2"}}}, Init: true,
		StateDir: filepath.Join(t.TempDir(), "nfs"), MountGroup: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	engine, err := mounter.New(b, &mounter.Options{StateDir: filepath.Join(t.TempDir(), "state"), AllowVolatileState: true, NoDevices: true})
	if err != nil {
		t.Fatal(err)
	}
	sanity.Run(t, sanity.Config{
		Driver:  csidriver.Config{Name: "nfs.csikit.dev", Traits: b.Traits(), Controller: b, Node: b},
		Options: &csidriver.Options{NodeID: "node-1", Engine: engine},
		Host:    "yes",
		Timeout: 9 * time.Minute, // less than testenv gives the VM
	})
}
