package mem_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
)

// A store outlives the processes that use it.
func Example() {
	store, ctx := mem.NewStore(nil), context.Background()
	before, err := mem.New(&mem.Options{Store: store})
	if err != nil {
		fmt.Println(err)
		return
	}
	vol, err := before.CreateVolume(ctx, backends.CreateVolumeRequest{Name: "pvc-1", Size: 1 << 30})
	fmt.Println(vol.Capacity, err)

	after, err := mem.New(&mem.Options{Store: store, Without: []string{"Cloner"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = after.Volume(ctx, backends.VolumeRequest{ID: vol.ID})
	fmt.Println("after a restart:", err)
	fmt.Println("can clone:", backends.DetectController(after).Cloner != nil)
	// Output:
	// 1073741824 <nil>
	// after a restart: <nil>
	// can clone: false
}

// A reply that is lost: the volume is there, and the caller does not know.
func ExampleBackend_Inject() {
	b, err := mem.New(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	lost := errors.New("connection reset")
	b.Inject(mem.Fault{Method: "CreateVolume", At: mem.After, Times: 1, Err: lost})

	ctx, req := context.Background(), backends.CreateVolumeRequest{Name: "pvc-1"}
	_, err = b.CreateVolume(ctx, req)
	fmt.Println(err)
	_, err = b.FindVolume(ctx, req)
	fmt.Println("and yet it is there:", err)
	// Output:
	// mem: CreateVolume pvc-1: connection reset
	// and yet it is there: <nil>
}
