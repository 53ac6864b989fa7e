package mounter_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
)

func (r *realRig) ails(want ...string) {
	r.t.Helper()
	if got := reasons(r.t, r, "v"); !slices.Equal(got, want) {
		found, err := r.Health(r.t.Context(), mounter.HealthRequest{ID: "v"})
		r.t.Errorf("found %v, want %v: %+v, %v", got, want, found, err)
	}
}

// sick stages and publishes a file system, lets something happen to it, and wants it
// found; then takes it down.
func sick(t *testing.T, fsType string, happen func(*realRig), want ...string) {
	t.Helper()
	n, r := newRealVolume(t, 320*mib)
	r.stage("v", fsType)
	r.publish("v", "t")
	r.ails()
	happen(r)
	r.ails(want...)
	must(t, r.Close())
	r.start(n)
	r.ails(want...)
	r.unpublish("v", "t")
	r.unstage("v")
	_, err := r.Health(t.Context(), mounter.HealthRequest{ID: "v"})
	wantKind(t, err, backends.ErrNotFound)
}

func (r *realRig) loopName() string { return filepath.Base(r.node.loop["v"].Path) }

// TestRealHealthExtErrors: what the kernel noted in the superblock, also after it was
// mounted anew.
func TestRealHealthExtErrors(t *testing.T) {
	sick(t, "ext4", func(r *realRig) {
		dir := "/sys/fs/ext4/" + r.loopName()
		must(t, os.WriteFile(dir+"/trigger_fs_error", []byte("1"), 0))
		until(t, "the kernel has counted it, which it does in the background", func() bool {
			b, err := os.ReadFile(dir + "/errors_count")
			return err == nil && strings.TrimSpace(string(b)) != "0"
		})
		found, err := r.Health(t.Context(), mounter.HealthRequest{ID: "v"})
		must(t, err)
		if len(found) != 1 || found[0].Status != backends.HealthDegraded || !strings.Contains(found[0].Message, "1 errors, the last in trigger_test_error at 20") {
			t.Errorf("found %+v", found)
		}
	}, "FilesystemErrors")
}

// TestRealHealthExtErrorsReadOnly: an ext4 that an error made read-only.
func TestRealHealthExtErrorsReadOnly(t *testing.T) {
	_, r := newRealVolume(t, 64*mib)
	req := r.stageReq("v", "ext4")
	req.Capability.Flags = backends.NewFlags("errors=remount-ro")
	must(t, r.Stage(t.Context(), req))
	r.ails()
	must(t, os.WriteFile("/sys/fs/ext4/"+r.loopName()+"/trigger_fs_error", []byte("1"), 0))
	r.ails("FilesystemErrors", "FilesystemReadOnly")
	r.unstage("v")
}

// goingDown is EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN, _IOR('X', 125, u32).
const goingDown = 0x8004587d

func shutDown(r *realRig) {
	d, err := os.Open(r.path("t"))
	must(r.t, err)
	must(r.t, unix.IoctlSetPointerInt(int(d.Fd()), goingDown, 2))
	must(r.t, d.Close())
}

// TestRealHealthExtShutdown and TestRealHealthXFSShutdown: a file system that does
// nothing any more.
func TestRealHealthExtShutdown(t *testing.T) { sick(t, "ext4", shutDown, "FilesystemReadOnly") }

func TestRealHealthXFSShutdown(t *testing.T) { sick(t, "xfs", shutDown, "FilesystemShutdown") }

// TestRealHealthRemounted: somebody made a mount, or a whole file system, read-only.
func TestRealHealthRemounted(t *testing.T) {
	for name, tc := range map[string]struct {
		path  string
		flags uintptr
		want  string
	}{
		"target":      {"t", unix.MS_BIND, "RemountedReadOnly"},
		"file system": {"staging-v", 0, "FilesystemReadOnly"},
	} {
		t.Run(name, func(t *testing.T) {
			sick(t, "ext4", func(r *realRig) {
				must(t, unix.Mount("", r.path(tc.path), "", unix.MS_REMOUNT|unix.MS_RDONLY|tc.flags, ""))
			}, tc.want)
		})
	}
}

// TestRealHealthUnmounted: somebody unmounted the staging path.
func TestRealHealthUnmounted(t *testing.T) {
	sick(t, "xfs", func(r *realRig) { must(t, unix.Unmount(r.path("staging-v"), 0)) }, "MountLost")
}

// TestRealHealthTruncated: the file behind the device was cut off, so that reads of
// its end fail, on every file system.
func TestRealHealthTruncated(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			sick(t, fsType, func(r *realRig) { must(t, os.Truncate(r.node.file("v"), 200*mib)) }, "DeviceReadFailed")
		})
	}
}

// TestRealHealthShrunk: a device that is smaller than its file system.
func TestRealHealthShrunk(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			sick(t, fsType, func(r *realRig) {
				must(t, os.Truncate(r.node.file("v"), 300*mib))
				dev, ino := r.node.inode("v")
				must(t, blockdev.ResizeLoop(r.node.loop["v"].Path, dev, ino))
			}, "DeviceTooSmall")
		})
	}
}

// TestRealHealthBtrfsErrors: btrfs counts what its device did wrong.
func TestRealHealthBtrfsErrors(t *testing.T) {
	sick(t, "btrfs", func(r *realRig) {
		text := strings.Repeat("csikit", 4096)
		must(t, os.WriteFile(r.path("t/file"), []byte(text), 0o600))
		f, err := os.Open(r.path("t/file"))
		must(t, err)
		must(t, f.Sync())
		at := strings.Index(r.node.read("v", 0, 320*mib), text)
		if at < 0 {
			t.Fatal("the file is not on the device")
		}
		r.node.write("v", int64(at), "broken")
		must(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		if _, err := f.ReadAt(make([]byte, 6), 0); !errors.Is(err, unix.EIO) {
			t.Errorf("read back: %v", err)
		}
		must(t, f.Close())
	}, "DeviceErrors")
}

// TestRealHealthDetached: the disk of a raw block volume was taken away.
func TestRealHealthDetached(t *testing.T) {
	n, r := newRealVolume(t, 16*mib)
	block := backends.Capability{Block: true, Mode: backends.SingleNodeWriter}
	must(t, r.Stage(t.Context(), mounter.StageRequest{ID: "v", Path: r.path("staging-v"), Capability: block}))
	r.ails()
	dev, ino := n.inode("v")
	must(t, blockdev.DetachLoop(t.Context(), n.loop["v"].Path, dev, ino))
	r.ails("DeviceGone")
	delete(n.loop, "v")
	// Another file takes the same device.
	n.make("w", 16*mib)
	_, err := n.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: "w"})
	must(t, err)
	r.ails("DeviceReplaced")
	r.unstage("v")
}

// TestRealHealthHangs: a file system that answers nothing is found out in time, and
// keeps nobody from taking it off.
func TestRealHealthHangs(t *testing.T) {
	n := &fixed{}
	r := newRealRig(t, n, nil)
	n.src.Dir = r.path("fuse")
	must(t, os.Mkdir(n.src.Dir, 0o755))
	s := serveFUSE(t, n.src.Dir)
	r.stage("v", "")
	r.ails()
	s.quiet.Store(true)
	r.within(time.Second, n)
	for range 3 {
		found, err := r.Health(t.Context(), mounter.HealthRequest{ID: "v"})
		if err != nil || len(found) != 1 || found[0].Reason != "NotAnswering" {
			t.Errorf("found %+v, %v", found, err)
		}
	}
	wantOneInStatfs(t)
	s.die()
	until(t, "the thread ends", func() bool { return inStatfs(t) == 0 })
	r.within(0, n)
	r.ails("FilesystemFailing")
	r.unstage("v")
}
