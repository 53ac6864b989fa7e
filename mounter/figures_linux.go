package mounter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

func (linux) StatFS(path string) (backends.VolumeStats, error) {
	f, err := mnt.OpenAside(path)
	if err != nil {
		return backends.VolumeStats{}, err
	}
	figures, err := mnt.Figures(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return backends.VolumeStats{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return figures, nil
}

// SetGroup changes the root of a volume only, and only once: whoever mounts it in
// a pod changes what is below, if that is wanted, and may take rights back.
func (linux) SetGroup(path string, gid int) error {
	d, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // opened for reading
	return mnt.GiveToGroup(d, gid)
}

// FSSize asks the mounted file system: what is on the device may be older.
func (linux) FSSize(_ context.Context, dev Device, fsType, path string) (int64, error) {
	d, err := blockDevice(dev)
	if err != nil {
		return 0, err
	}
	switch {
	case isExt(fsType):
		return extSize(d)
	case fsType == "xfs":
		return xfsSize(path)
	case fsType == "btrfs":
		return btrfsSize(path, d.Num())
	}
	return 0, nil
}

// extSize reads the superblock through the page cache, where a mounted ext file
// system keeps its own.
func extSize(d *blockdev.Device) (int64, error) {
	const (
		offset, magic = 1024, 0xEF53
		incompat64    = 0x80
	)
	b := make([]byte, 1024)
	if _, err := d.File().ReadAt(b, offset); err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	if le.Uint16(b[0x38:]) != magic {
		return 0, fmt.Errorf("%s: no ext superblock", d.Path())
	}
	blocks := uint64(le.Uint32(b[0x04:]))
	if le.Uint32(b[0x60:])&incompat64 != 0 {
		blocks |= uint64(le.Uint32(b[0x150:])) << 32
	}
	return int64(blocks << (10 + le.Uint32(b[0x18:])&0xf)), nil
}

// onMount opens the root of a mounted file system for an ioctl.
func onMount(path string, f func(fd uintptr) error) error {
	d, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	err = f(d.Fd())
	return errors.Join(err, d.Close())
}

func ioctl(fd, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// xfsGeometry is struct xfs_fsop_geom_v4.
type xfsGeometry struct {
	BlockSize, RTExtSize, AGBlocks, AGCount, LogBlocks, SectSize, InodeSize, IMaxPct uint32

	DataBlocks, RTBlocks, RTExtents, LogStart uint64

	UUID                                     [16]byte
	SUnit, SWidth                            uint32
	Version                                  int32
	Flags, LogSectSize, RTSectSize, DirBlock uint32
	LogSUnit                                 uint32
}

func xfsSize(path string) (int64, error) {
	var g xfsGeometry
	request := ioc(iocRead, 'X', 124, unsafe.Sizeof(g)) // XFS_IOC_FSGEOMETRY_V4
	err := onMount(path, func(fd uintptr) error { return ioctl(fd, request, unsafe.Pointer(&g)) })
	return int64(g.DataBlocks) * int64(g.BlockSize), err
}

const (
	iocWrite = 1
	iocRead  = 2
)

// ioc is _IOC of the generic asm/ioctl.h.
func ioc(dir, kind, nr, size uintptr) uintptr { return dir<<30 | size<<16 | kind<<8 | nr }
