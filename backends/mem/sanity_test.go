package mem

import (
	"path/filepath"
	"testing"

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
			engine, err := mounter.New(b, &mounter.Options{
				StateDir: filepath.Join(t.TempDir(), "state"), AllowVolatileState: true,
				Kernel: mountertest.NewKernel(), FSTypes: traits.FSTypes,
			})
			if err != nil {
				t.Fatal(err)
			}
			sanity.Run(t, sanity.Config{
				Driver:            csidriver.Config{Name: "mem.csikit.dev", Version: "1", Traits: traits, Controller: b, Node: b},
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
