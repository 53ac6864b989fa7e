package mounter

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

// Copies asks sysfs, which has the file systems of all namespaces.
func (linux) Copies(ctx context.Context, dev Device, fsType, uuid string) ([]Copy, error) {
	d, err := blockDevice(dev)
	if err != nil {
		return nil, err
	}
	var names []string
	switch fsType {
	case "xfs":
		names, err = mountedXFS(ctx, uuid)
	case "btrfs":
		names, err = filepath.Glob(filepath.Join(sysBtrfs, uuid, "devices/*"))
	default:
		names, err = mountedExt(fsType, uuid)
	}
	if err != nil {
		return nil, err
	}
	var copies []Copy
	for _, n := range names {
		n = filepath.Base(n)
		num, err := numberOf(n)
		if errors.Is(err, fs.ErrNotExist) || num == d.Num() {
			continue
		}
		if err != nil {
			return nil, err
		}
		r, err := d.Relate(num)
		if err != nil {
			return nil, err
		}
		copies = append(copies, Copy{Device: n, Relation: r})
	}
	return copies, nil
}

// numberOf is the number of a block device by its name in sysfs.
func numberOf(name string) (uint64, error) {
	b, err := os.ReadFile(filepath.Join("/sys/class/block", name, "dev"))
	if err != nil {
		return 0, err
	}
	major, minor, _ := strings.Cut(strings.TrimSpace(string(b)), ":")
	ma, err := strconv.ParseUint(major, 10, 32)
	mi, err2 := strconv.ParseUint(minor, 10, 32)
	return unix.Mkdev(uint32(ma), uint32(mi)), errors.Join(err, err2)
}

// mountedXFS names the devices of the mounted xfs with this UUID. One that cannot be
// asked, because it is in another namespace and its device has no node here, is
// left out.
func mountedXFS(ctx context.Context, uuid string) ([]string, error) {
	dirs, err := filepath.Glob("/sys/fs/xfs/*/log")
	if err != nil {
		return nil, err
	}
	mounts, err := mnt.List()
	if err != nil {
		return nil, err
	}
	points := map[uint64]string{}
	for _, m := range mounts {
		if m.FSType == "xfs" {
			points[m.Dev] = m.Point
		}
	}
	var names []string
	for _, dir := range dirs {
		name := filepath.Base(filepath.Dir(dir))
		num, err := numberOf(name)
		if err != nil {
			continue // it has just gone
		}
		if xfsUUID(ctx, name, num, points[num]) == uuid {
			names = append(names, name)
		}
	}
	return names, nil
}

// xfsUUID asks the file system, or else its device; "" when neither can be had.
func xfsUUID(ctx context.Context, name string, num uint64, point string) string {
	if point != "" {
		var g xfsGeometry
		err := onMount(point, func(fd uintptr) error { return ioctl(fd, ioc(iocRead, 'X', 124, unsafe.Sizeof(g)), unsafe.Pointer(&g)) })
		if err == nil {
			return uuidText(g.UUID)
		}
	}
	d, err := blockdev.Open(ctx, filepath.Join("/dev", name), false)
	if err != nil {
		return ""
	}
	defer d.Close() //nolint:errcheck // nothing is written
	c, err := d.Probe(ctx)
	if err != nil || d.Num() != num || c.Type != "xfs" {
		return ""
	}
	return c.UUID
}

// mountedExt names the devices of the mounted ext file systems with this UUID, which
// their superblocks say: the kernel has them in memory. As with xfs, one whose device
// has no node here is left out. The kernel's own driver for ext2 is not in sysfs, so
// that of it only the mounts of this namespace are known.
func mountedExt(fsType, uuid string) ([]string, error) {
	dirs, err := filepath.Glob("/sys/fs/ext4/*/err_ratelimit_burst") // which no feature has
	if err != nil {
		return nil, err
	}
	var names []string
	for _, dir := range dirs {
		names = append(names, filepath.Base(filepath.Dir(dir)))
	}
	if fsType == "ext2" {
		mounts, err := mnt.List()
		if err != nil {
			return nil, err
		}
		for _, m := range mounts {
			dir, err := os.Readlink("/sys/dev/block/" + devName(m.Dev))
			if m.FSType == "ext2" && err == nil {
				names = append(names, filepath.Base(dir))
			}
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return extUUID(name) != uuid }), nil
}

// extUUID is "" when the device cannot be read.
func extUUID(name string) string {
	const superblock, offUUID = 1024, 0x68
	f, err := os.Open(filepath.Join("/dev", name))
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // nothing is written
	var u [16]byte
	if _, err := f.ReadAt(u[:], superblock+offUUID); err != nil {
		return ""
	}
	return uuidText(u)
}

// besideCopy makes a mount of what is known to be another disk.
func besideCopy(m MountRequest, sysBtrfs string) (MountRequest, error) {
	switch m.FSType {
	case "xfs":
		m.Options = append(slices.Clip(m.Options), "nouuid")
	case "btrfs":
		if _, err := os.Stat(filepath.Join(sysBtrfs, "features/temp_fsid")); err != nil {
			return m, refuse("a btrfs with its UUID is mounted, and this kernel cannot tell the two apart (Linux 6.7 can): " +
				"unmount the other one, or give the copy another UUID (btrfstune -u)")
		}
	}
	return m, nil
}
