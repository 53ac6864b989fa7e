package mem

import (
	"context"
	"path/filepath"
	"sync"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mountertest"
	"github.com/csikit/csikit/sanity"
)

// TestSanity: csi-sanity with every capability on, over the kernel in memory.
func TestSanity(t *testing.T) {
	for name, block := range map[string]bool{"mount": false, "block": true} {
		t.Run(name, func(t *testing.T) {
			b := open(t, &Options{
				Store: NewStore(&StoreOptions{Devices: true}), Node: "node-1", MaxVolumes: 4,
			})
			traits := b.Traits()
			node := &disks{Backend: b, kernel: mountertest.NewKernel(), disks: map[string]*mountertest.Disk{}}
			engine, err := mounter.New(node, &mounter.Options{
				StateDir: filepath.Join(t.TempDir(), "state"), AllowVolatileState: true,
				Kernel: node.kernel, FSTypes: traits.FSTypes,
			})
			if err != nil {
				t.Fatal(err)
			}
			sanity.Run(t, sanity.Config{
				Driver:            csidriver.Config{Name: "mem.csikit.dev", Version: "1", Traits: traits, Controller: b, Node: node},
				Options:           &csidriver.Options{NodeID: "node-1", Engine: engine},
				Block:             block,
				MutableParameters: map[string]string{"tier": "fast"},
				AttachLimit:       true,
				SkipsFile:         filepath.Join("testdata", "sanity-skips-"+name+".txt"),
			})
			if !b.Store().Empty() {
				t.Error("something is left")
			}
		})
	}
}

// disks makes the disks of the kernel in memory as big as the volumes are.
type disks struct {
	*Backend
	kernel *mountertest.Kernel
	mu     sync.Mutex
	disks  map[string]*mountertest.Disk
}

func (d *disks) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	src, err := d.Backend.OpenVolume(ctx, req)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.disks[req.ID] == nil {
		d.disks[req.ID] = d.kernel.AddDisk(src.Device.Path, src.Device.Identity.Size, src.Device.Identity)
	}
	d.disks[req.ID].Resize(src.Device.Identity.Size)
	return src, nil
}

func (d *disks) NodeExpandVolume(ctx context.Context, req backends.NodeExpandVolumeRequest) error {
	if err := d.Backend.NodeExpandVolume(ctx, req); err != nil {
		return err
	}
	v, err := d.Volume(ctx, backends.VolumeRequest{ID: req.ID})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.disks[req.ID].Resize(v.Capacity)
	return nil
}
