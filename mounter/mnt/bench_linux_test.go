package mnt_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/internal/mountapi"
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

// BenchmarkManyMounts looks for a file system among many others, as on a node with
// many pods.
func BenchmarkManyMounts(b *testing.B) {
	testenv.Root(b)
	for _, n := range []int{10, 1000, 10_000} {
		d := tempDir(b)
		src, many := mkdir(b, d, "src"), mkdir(b, d, "many")
		for i := range n {
			bind(b, src, mkdir(b, many, itoa(i)))
		}
		p := mkdir(b, d, "p")
		must(b, unix.Mount("none", p, "tmpfs", 0, ""))
		dev := top(b, p).Dev
		for _, k := range []struct {
			name string
			hide mountapi.Part
		}{{"statmount", mountapi.None}, {"mountinfo", mountapi.Statmount}} {
			name := itoa(n) + "/" + k.name
			restore := mountapi.Hide(k.hide)
			b.Run("OfDevice/"+name, func(b *testing.B) {
				for b.Loop() {
					if l, err := mnt.OfDevice(dev); len(l) != 1 || err != nil {
						b.Fatal(l, err)
					}
				}
			})
			b.Run("At/"+name, func(b *testing.B) {
				for b.Loop() {
					if l, err := mnt.At(p); len(l) != 1 || err != nil {
						b.Fatal(l, err)
					}
				}
			})
			b.Run("IsMountPoint/"+name, func(b *testing.B) {
				for b.Loop() {
					if is, err := mnt.IsMountPoint(p); !is || err != nil {
						b.Fatal(is, err)
					}
				}
			})
			restore()
		}
	}
}
