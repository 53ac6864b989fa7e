package mnt_test

import (
	"fmt"

	"github.com/csikit/csikit/mounter/mnt"
)

func ExampleParseOptions() {
	o, err := mnt.ParseOptions([]string{"ro,noatime", `context="system_u:object_r:container_file_t:s0:c15,c25",discard`})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(o.ReadOnly, o.Attr == mnt.AttrNoAtime)
	fmt.Println(o.Data)

	_, err = mnt.ParseOptions([]string{"bind"})
	fmt.Println(err)
	// Output:
	// true true
	// context="system_u:object_r:container_file_t:s0:c15,c25",discard
	// invalid argument: mount option "bind" makes a bind mount
}

// Publish a staged volume read-only; a second call changes nothing.
func ExampleBind() {
	publish := func(staging, target string) error {
		mounted, err := mnt.IsMountPoint(target)
		if err != nil || mounted {
			return err
		}
		return mnt.Bind(staging, target, mnt.BindOptions{ReadOnly: true})
	}
	_ = publish
}

// Unpublish: no mount is left on the path, however many there were.
func ExampleUnwind() {
	unpublish := func(target string) error {
		_, err := mnt.Unwind(target)
		return err // nil for a path that is no mount point, or is gone
	}
	_ = unpublish
}
