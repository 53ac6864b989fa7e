package mounter_test

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mountertest"
)

func newDevices(t *testing.T, k *mountertest.Kernel, stateDir string) *mounter.Devices {
	t.Helper()
	d, err := mounter.NewDevices(&mounter.DeviceOptions{StateDir: stateDir, Kernel: k, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	return d
}

// TestDevices: a device without a volume has the engine's guard.
func TestDevices(t *testing.T) {
	for _, c := range []struct {
		name    string
		content blockdev.Content
		fsType  string
		flags   []string
		want    error
		made    bool
	}{
		{"blank", blockdev.Content{State: blockdev.Blank}, "", nil, nil, true},
		{"blank, xfs", blockdev.Content{State: blockdev.Blank}, "xfs", nil, nil, true},
		{"blank, read-only", blockdev.Content{State: blockdev.Blank}, "ext4", []string{"ro"}, backends.ErrPrecondition, false},
		{"its file system", blockdev.Content{State: blockdev.Filesystem, Type: "xfs", Clean: true}, "", nil, nil, false},
		{"another file system", blockdev.Content{State: blockdev.Filesystem, Type: "xfs", Clean: true}, "ext4", nil, backends.ErrPrecondition, false},
		{"LVM", blockdev.Content{State: blockdev.Foreign, Type: "lvm"}, "ext4", nil, backends.ErrPrecondition, false},
		{"data", blockdev.Content{State: blockdev.Unknown}, "ext4", nil, backends.ErrPrecondition, false},
		{"bind", blockdev.Content{State: blockdev.Blank}, "ext4", []string{"bind"}, backends.ErrInvalid, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, dst := mountertest.NewKernel(), filepath.Join(t.TempDir(), "dst")
			disk := k.AddDisk("/dev/d", 64<<20, backends.Identity{})
			disk.SetContent(c.content)
			d := newDevices(t, k, "")
			for range 2 {
				err := d.Mount(t.Context(), mounter.DeviceMount{Device: "/dev/d", Target: dst, FSType: c.fsType, Flags: backends.NewFlags(c.flags...)})
				if !errors.Is(err, c.want) {
					t.Fatal(err)
				}
			}
			if made := disk.Content() != c.content; made != c.made {
				t.Errorf("the disk holds %v", disk.Content())
			}
			if n := len(k.Mounts()); n != map[bool]int{true: 1, false: 0}[c.want == nil] {
				t.Errorf("%d mounts", n)
			}
		})
	}
}

// TestDevicesRemember an mkfs that did not end, of this very disk, and no other.
func TestDevicesRemember(t *testing.T) {
	for _, restart := range []bool{false, true} {
		k, dir := mountertest.NewKernel(), t.TempDir()
		disk := k.AddDisk("/dev/d", 64<<20, backends.Identity{})
		state := ""
		if restart {
			state = filepath.Join(dir, "state")
		}
		d := newDevices(t, k, state)
		mount := func() error {
			return d.Mount(t.Context(), mounter.DeviceMount{Device: "/dev/d", Target: filepath.Join(dir, "dst"), FSType: "ext4"})
		}
		again := func() {
			if restart {
				must(t, d.Close())
				d = newDevices(t, k, state)
			}
		}
		k.Fail("Mkfs", 1, errors.New("killed"))
		if err := mount(); !errors.Is(err, backends.ErrUnavailable) {
			t.Fatal(err)
		}
		again()
		must(t, mount())
		if n, err := k.Unwind(filepath.Join(dir, "dst")); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		disk.SetContent(blockdev.Content{State: blockdev.Unknown})
		if err := mount(); !errors.Is(err, backends.ErrPrecondition) {
			t.Errorf("after an mkfs that ended: %v", err)
		}
		disk.SetContent(blockdev.Content{State: blockdev.Blank})
		k.Fail("Mkfs", 1, errors.New("killed"))
		if err := mount(); err == nil {
			t.Fatal("mkfs did not fail")
		}
		again()
		disk.Replace(backends.Identity{})
		disk.SetContent(blockdev.Content{State: blockdev.Unknown})
		if err := mount(); !errors.Is(err, backends.ErrPrecondition) {
			t.Errorf("another disk at the path: %v", err)
		}
		disk.SetContent(blockdev.Content{State: blockdev.Blank})
		must(t, mount())
		if _, err := k.Unwind(filepath.Join(dir, "dst")); err != nil {
			t.Fatal(err)
		}
		again()
		disk.Replace(backends.Identity{}) // blank
		if err := mount(); err != nil {
			t.Errorf("a new disk at the path of one that was formatted: %v", err)
		}
		must(t, d.Close())
	}
}

// TestDevicesGrow a file system under its users.
func TestDevicesGrow(t *testing.T) {
	k, dst := mountertest.NewKernel(), filepath.Join(t.TempDir(), "dst")
	disk := k.AddDisk("/dev/d", 64<<20, backends.Identity{})
	d := newDevices(t, k, "")
	if _, err := d.Grow(t.Context(), "/dev/d", dst); !errors.Is(err, backends.ErrPrecondition) {
		t.Error(err)
	}
	must(t, d.Mount(t.Context(), mounter.DeviceMount{Device: "/dev/d", Target: dst}))
	disk.Resize(128 << 20)
	for _, want := range []bool{true, false} {
		if grown, err := d.Grow(t.Context(), "/dev/d", dst); grown != want || err != nil {
			t.Error(grown, err)
		}
	}
	k.AddDisk("/dev/other", 64<<20, backends.Identity{})
	if _, err := d.Grow(t.Context(), "/dev/other", dst); !errors.Is(err, backends.ErrPrecondition) {
		t.Error(err)
	}
}
