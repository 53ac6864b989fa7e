package mnt_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/mnt"
)

// Each benchmark runs beside the bare system calls for the same end.
func Benchmark(b *testing.B) {
	testenv.Root(b)
	d := tempDir(b)
	src, p := mkdir(b, d, "src"), mkdir(b, d, "p")
	bind(b, src, src) // a mount of its own, as after a stage

	b.Run("IsMountPoint/statx", func(b *testing.B) {
		var st unix.Statx_t
		for b.Loop() {
			must(b, unix.Statx(unix.AT_FDCWD, src, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &st))
		}
	})
	b.Run("IsMountPoint/mnt", func(b *testing.B) {
		for b.Loop() {
			if is, err := mnt.IsMountPoint(src); !is || err != nil {
				b.Fatal(is, err)
			}
		}
	})
	pair := func(name string, mount func() error, unmount func() error) {
		b.Run("BindReadOnly/"+name, func(b *testing.B) {
			for b.Loop() {
				must(b, mount())
				b.StopTimer()
				must(b, unix.Unmount(p, 0))
				b.StartTimer()
			}
		})
		b.Run("Unmount/"+name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				bind(b, src, p)
				b.StartTimer()
				must(b, unmount())
			}
		})
		b.Run("UnmountNothing/"+name, func(b *testing.B) {
			for b.Loop() {
				_ = unmount() // umount2: EINVAL
			}
		})
	}
	pair("raw", func() error {
		tree, err := unix.OpenTree(unix.AT_FDCWD, src, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		must(b, err)
		must(b, unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}))
		must(b, unix.MoveMount(tree, "", unix.AT_FDCWD, p, unix.MOVE_MOUNT_F_EMPTY_PATH))
		return unix.Close(tree)
	}, func() error { return unix.Unmount(p, unix.UMOUNT_NOFOLLOW) })
	pair("mnt", func() error { return mnt.Bind(src, p, mnt.BindOptions{ReadOnly: true}) },
		func() error { _, err := mnt.Unmount(p); return err })
	b.Run("List", func(b *testing.B) {
		for b.Loop() {
			if _, err := mnt.List(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
