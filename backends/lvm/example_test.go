package lvm_test

import (
	"fmt"
	"log"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/lvm"
)

// Two classes in one volume group. The first is what a StorageClass without
// parameters gets; "class: fast" asks for the other.
func Example() {
	b, err := lvm.New(lvm.Options{
		Driver: "lvm.example.com",
		Node:   "node-1",
		Classes: []lvm.Class{
			{Name: "plain", VG: "vg0"},
			{Name: "fast", VG: "vg0", Profile: lvm.Thin, ThinPool: "pool0", Overcommit: 2},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	id, err := b.VolumeID(backends.CreateVolumeRequest{Name: "pvc-1", Parameters: map[string]string{"class": "fast"}})
	fmt.Println(id, err)
	// Output: fast/v-6kdi4gvhzk3gsul43h22wg3zk7 <nil>
}
