package kmount_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/mount-utils"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/kmount"
)

// formatRig is a Formatter with devices.
type formatRig struct {
	*kmount.Formatter
	*loops
	t   *testing.T
	dir string
}

func newFormatRig(t *testing.T, o *kmount.FormatterOptions) *formatRig {
	testenv.Root(t)
	l := newLoops(t)
	f, err := kmount.NewFormatter(newMounter(t, nil), o)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return &formatRig{f, l, t, tempDir(t)}
}

func (r *formatRig) target(name string) string { return filepath.Join(r.dir, name) }

// write puts text into the image, behind everybody's back.
func (r *formatRig) write(name, text string, offset int64) {
	r.t.Helper()
	f, err := os.OpenFile(r.file(name), os.O_RDWR, 0)
	must(r.t, err)
	_, err = f.WriteAt([]byte(text), offset)
	must(r.t, errors.Join(err, f.Close()))
}

func (r *formatRig) isType(err error, want mount.MountErrorType, kind error) {
	r.t.Helper()
	var m mount.MountError
	if !errors.As(err, &m) || m.Type != want || !errors.Is(err, kind) {
		r.t.Errorf("got %q of kind %v: %v", m.Type, kind, err)
	}
}

func TestFormatAndMount(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs", ""} {
		t.Run("type "+fsType, func(t *testing.T) {
			testenv.Tool(t, "mkfs.xfs", "mkfs.btrfs")
			r := newFormatRig(t, nil)
			dev, dst := r.device("disk", 320*mib), r.target("dst")
			must(t, r.FormatAndMount(dev, dst, fsType, []string{"noatime"}))
			mkfile(t, dst, "data")
			must(t, r.FormatAndMount(dev, dst, fsType, []string{"noatime"})) // it is there
			if n := stack(t, dst); n != 1 {
				t.Fatalf("%d mounts", n)
			}
			must(t, r.Unmount(dst))
			must(t, r.FormatAndMountSensitive(dev, dst, "", nil, []string{"ro"}))
			if _, err := os.Stat(filepath.Join(dst, "data")); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(filepath.Join(dst, "data"), nil, 0); !errors.Is(err, unix.EROFS) {
				t.Error(err)
			}
			if found, err := r.GetDiskFormat(dev); err != nil || fsType != "" && found != fsType || fsType == "" && found != "ext4" {
				t.Error(found, err)
			}
		})
	}
}

// TestForeignDataRefused: nothing is formatted that is not blank, and nothing of it
// is changed.
func TestForeignDataRefused(t *testing.T) {
	for _, c := range []struct {
		name, text string
		offset     int64
	}{
		{"partition table", "EFI PART", 512},
		{"LVM", "LABELONE\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00LVM2 001", 512},
		{"LUKS", "LUKS\xba\xbe\x00\x02", 0},
		{"data", "a database without a file system", 8192},
		{"data at the end", "the only copy", 32*mib - 4096},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newFormatRig(t, nil)
			dev, dst := r.device("disk", 32*mib), r.target("dst")
			r.write("disk", c.text, c.offset)
			before, err := os.ReadFile(r.file("disk"))
			must(t, err)
			r.isType(r.FormatAndMount(dev, dst, "ext4", nil), mount.FilesystemMismatch, backends.ErrPrecondition)
			r.isType(r.FormatAndMount(dev, dst, "", []string{"ro"}), mount.FilesystemMismatch, backends.ErrPrecondition)
			if found, err := r.GetDiskFormat(dev); found == "" || found == "ext4" || err != nil {
				t.Errorf("GetDiskFormat = %q, %v", found, err)
			}
			after, err := os.ReadFile(r.file("disk"))
			must(t, err)
			if string(before) != string(after) {
				t.Error("the device was changed")
			}
			if n := stack(t, dst); n != 0 {
				t.Error("mounted")
			}
		})
	}
}

// TestUnreadableIsNotBlank is what mount-utils 0.37.2 formats: blkid says of a
// device whose reads fail what it says of a blank one.
func TestUnreadableIsNotBlank(t *testing.T) {
	r := newFormatRig(t, nil)
	dev, dst := r.device("disk", 32*mib), r.target("dst")
	must(t, r.FormatAndMount(dev, dst, "ext4", nil))
	must(t, r.Unmount(dst))
	must(t, os.Truncate(r.file("disk"), 0)) // reads of the device fail with EIO
	r.isType(r.FormatAndMount(dev, dst, "ext4", nil), mount.GetDiskFormatFailed, backends.ErrUnavailable)
	if found, err := r.GetDiskFormat(dev); err == nil {
		t.Errorf("GetDiskFormat = %q", found)
	}
}

func TestFormatterErrors(t *testing.T) {
	r := newFormatRig(t, nil)
	dev, dst := r.device("disk", 32*mib), r.target("dst")
	r.isType(r.FormatAndMount(dev, dst, "ext4", []string{"ro"}), mount.UnformattedReadOnly, backends.ErrPrecondition)
	r.isType(r.FormatAndMountSensitiveWithFormatOptions(dev, dst, "ext4", nil, nil, []string{"--no-such-option"}),
		mount.FormatFailed, backends.ErrUnavailable)
	must(t, r.FormatAndMount(dev, dst, "ext4", nil)) // the mkfs that failed is remembered, and is no obstacle
	must(t, r.Unmount(dst))
	r.isType(r.FormatAndMount(dev, dst, "xfs", nil), mount.FilesystemMismatch, backends.ErrPrecondition)
	r.isType(r.FormatAndMount(dev, dst, "ext4", []string{"no-such-option=hunter2"}), mount.UnknownMountError, backends.ErrInvalid)
	if err := r.FormatAndMount(dev, dst, "ext4", []string{"no-such-option=hunter2"}); strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
	err := r.FormatAndMountSensitive(dev, dst, "ext4", nil, []string{"hunter2"})
	r.isType(err, mount.UnknownMountError, backends.ErrInvalid)
	if m := (mount.MountError{}); errors.As(err, &m) && strings.Contains(m.Error()+m.Message, "hunter2") {
		t.Errorf("the MountError holds a sensitive option: %v", m)
	}
	must(t, unix.Mount("tmpfs", dst, "tmpfs", 0, ""))
	r.isType(r.FormatAndMount(dev, dst, "ext4", nil), mount.UnknownMountError, backends.ErrPrecondition)
	if n := stack(t, dst); n != 1 {
		t.Errorf("%d mounts", n)
	}
	if err := r.FormatAndMount(r.target("none"), r.target("other"), "ext4", nil); !errors.Is(err, backends.ErrUnavailable) {
		t.Error(err)
	}
	if err := r.FormatAndMount(dev, r.target("other"), "vfat", nil); err == nil || stack(t, r.target("other")) != 0 {
		t.Error("vfat")
	}
}

// TestFormatterIdentity: a driver that knows its disk says so, and another one at
// the path is not touched.
func TestFormatterIdentity(t *testing.T) {
	var l *loops
	r := newFormatRig(t, &kmount.FormatterOptions{Identity: func(string) (backends.Identity, error) {
		dev, ino := l.inode("mine")
		return backends.Identity{BackingDev: dev, BackingIno: ino}, nil
	}})
	l = r.loops
	mine, other := r.device("mine", 32*mib), r.device("other", 32*mib)
	if err := r.FormatAndMount(other, r.target("dst"), "ext4", nil); !errors.Is(err, backends.ErrPrecondition) {
		t.Error(err)
	}
	if found, err := r.GetDiskFormat(other); found != "" || err != nil {
		t.Errorf("formatted: %q, %v", found, err)
	}
	must(t, r.FormatAndMount(mine, r.target("dst"), "ext4", nil))
}

// TestFormatAgainAfterCrash: with a state directory an mkfs that was cut short is
// remembered, and what it left is formatted again; without one it is refused.
func TestFormatAgainAfterCrash(t *testing.T) {
	for _, state := range []bool{true, false} {
		t.Run(map[bool]string{true: "with state", false: "without"}[state], func(t *testing.T) {
			testenv.Root(t)
			o := &kmount.FormatterOptions{}
			if state {
				o.StateDir = filepath.Join(t.TempDir(), "state")
				dir := filepath.Dir(o.StateDir)
				must(t, os.Chmod(dir, 0o700))
			}
			l := newLoops(t)
			dir, dev := tempDir(t), l.device("disk", 32*mib)
			m := newMounter(t, nil)
			first, err := kmount.NewFormatter(m, o)
			must(t, err)
			// mkfs fails, and something is left on the device: as a kill leaves it.
			if err := first.FormatAndMountSensitiveWithFormatOptions(dev, dir+"/dst", "ext4", nil, nil, []string{"--no-such-option"}); err == nil {
				t.Fatal("mkfs did not fail")
			}
			must(t, first.Close())
			r := &formatRig{t: t, loops: l}
			r.write("disk", "half an mkfs", 8192)
			second, err := kmount.NewFormatter(m, o)
			must(t, err)
			t.Cleanup(func() { must(t, second.Close()) })
			err = second.FormatAndMount(dev, dir+"/dst", "ext4", nil)
			if (err == nil) != state {
				t.Errorf("FormatAndMount: %v", err)
			}
			if !state {
				return
			}
			must(t, second.Unmount(dir+"/dst"))
			// It ended: what is on the device from now on is somebody's.
			must(t, l.detach("disk"))
			must(t, os.Truncate(l.file("disk"), 0))
			must(t, os.Truncate(l.file("disk"), 32*mib))
			r.write("disk", "somebody's data", 8192)
			if err := second.FormatAndMount(l.device("disk", 32*mib), dir+"/dst", "ext4", nil); !errors.Is(err, backends.ErrPrecondition) {
				t.Errorf("FormatAndMount of data: %v", err)
			}
		})
	}
}

// TestResize: a device that has become bigger.
func TestResize(t *testing.T) {
	testenv.Tool(t, "mkfs.xfs", "xfs_growfs")
	r := newFormatRig(t, nil)
	dev, dst := r.device("disk", 320*mib), r.target("dst")
	must(t, r.FormatAndMount(dev, dst, "xfs", nil))
	size := func() uint64 {
		var st unix.Statfs_t
		must(t, unix.Statfs(dst, &st))
		return st.Blocks * uint64(st.Bsize)
	}
	if grown, err := r.Resize(dev, dst); grown || err != nil {
		t.Error(grown, err)
	}
	before := size()
	must(t, os.Truncate(r.file("disk"), 640*mib))
	run(t, "losetup", "-c", dev)
	if grown, err := r.Resize(dev, dst); !grown || err != nil {
		t.Error(grown, err)
	}
	if size() < before+300*mib {
		t.Errorf("%d bytes, and %d before", size(), before)
	}
	if _, err := r.Resize(r.device("other", 32*mib), dst); !errors.Is(err, backends.ErrPrecondition) {
		t.Error(err)
	}
	// And at the next mount without being asked.
	must(t, r.Unmount(dst))
	must(t, os.Truncate(r.file("disk"), 960*mib))
	run(t, "losetup", "-c", dev)
	must(t, r.FormatAndMount(dev, dst, "xfs", nil))
	if size() < before+600*mib {
		t.Errorf("%d bytes, and %d at first", size(), before)
	}
}
