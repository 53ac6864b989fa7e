package loopfile_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/loopfile"
)

// A pool is made once, by hand or by an installer; the driver only opens it.
func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	pool := filepath.Join(dir, "pool")
	if _, err := loopfile.InitPool(pool, &loopfile.PoolOptions{Name: "disk1", AllowRootFS: true}); err != nil {
		log.Fatal(err)
	}

	b, err := loopfile.New(loopfile.Options{Pool: pool, Node: "node-1", AllowRootFS: true})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	v, err := b.CreateVolume(context.Background(), backends.CreateVolumeRequest{
		Name: "pvc-1", Size: 64 << 20, Parameters: map[string]string{"type": "thin"},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(v.ID, v.Capacity, v.Topology)
	// Output: disk1.6kdi4gvhzk3gsul43h22wg3zk7 67108864 [map[topology.loopfile.csikit.dev/node:node-1]]
}
