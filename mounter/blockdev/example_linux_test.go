package blockdev_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/blockdev"
)

// Is this the right device, and may it be formatted?
func Example() {
	ctx := context.Background()
	dev, err := blockdev.Open(ctx, "/dev/disk/by-id/virtio-vol-1", false)
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close() //nolint:errcheck // read only
	if err := dev.Verify(ctx, backends.Identity{Serial: "vol-1", Size: 10 << 30}); err != nil {
		log.Fatal(err) // "... is not the right device: serial is "vol-2", want "vol-1""
	}
	content, err := dev.Probe(ctx)
	switch {
	case err != nil:
		log.Fatal(err) // cannot be read: that is not blank
	case content.State == blockdev.Blank:
		fmt.Println("every byte that was looked at is zero")
	case content.State == blockdev.Filesystem:
		size, err := dev.Size()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("mount it as", content.Type, "and grow it:", content.Size < size)
	default:
		fmt.Println("leave it alone:", content)
	}
}

// A file as a block device. The caller keeps the numbers of the file: they, and
// not a path, say which device is whose.
func ExampleAttachLoop() {
	ctx := context.Background()
	img, err := os.OpenFile("/var/lib/pool/v/vol-1/img", os.O_RDWR, 0)
	if err != nil {
		log.Fatal(err)
	}
	defer img.Close() //nolint:errcheck // the loop device has its own
	loop, err := blockdev.AttachLoop(ctx, img, blockdev.AttachOptions{Name: "vol-1", DirectIO: true})
	if err != nil {
		log.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(img.Fd()), &st); err != nil {
		log.Fatal(err)
	}
	fmt.Println(loop.Path, loop.Dev == st.Dev, loop.Ino == st.Ino)
	if err := blockdev.DetachLoop(ctx, loop.Path, loop.Dev, loop.Ino); err != nil {
		log.Fatal(err) // backends.ErrInUse: it is still mounted, or open
	}
}

// What Probe says in messages.
func ExampleContent_String() {
	fmt.Println(blockdev.Content{State: blockdev.Foreign, Type: "gpt", Offset: 512})
	fmt.Println(blockdev.Content{State: blockdev.Unknown, Offset: 81920})
	fmt.Println(blockdev.Content{State: blockdev.Blank})
	// Output:
	// gpt at byte 512
	// data of no known format, first at byte 81920
	// blank
}
