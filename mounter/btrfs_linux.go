package mounter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A btrfs has a device number of its own, which no device has, and knows its
// devices by an id, which is 1 only until somebody adds one and removes the first.

// btrfsInfo is the head of struct btrfs_ioctl_fs_info_args.
type btrfsInfo struct {
	MaxID, NumDevices uint64
	FSID              [16]byte // of this mount: a copy of a mounted one has another than on its device
	_                 [992]byte
}

// btrfsDev is struct btrfs_ioctl_dev_info_args.
type btrfsDev struct {
	ID               uint64
	UUID             [16]byte
	Used, TotalBytes uint64
	_                [379]uint64
	Path             [1024]byte
}

// btrfsDevs asks a mounted btrfs what it consists of.
func btrfsDevs(path string) (info btrfsInfo, devs []btrfsDev, err error) {
	err = onMount(path, func(fd uintptr) error {
		if err := ioctl(fd, ioc(iocRead, 0x94, 31, unsafe.Sizeof(info)), unsafe.Pointer(&info)); err != nil { // BTRFS_IOC_FS_INFO
			return err
		}
		for id := uint64(0); id <= info.MaxID && uint64(len(devs)) < info.NumDevices; id++ {
			dev := btrfsDev{ID: id}
			err := ioctl(fd, ioc(iocRead|iocWrite, 0x94, 30, unsafe.Sizeof(dev)), unsafe.Pointer(&dev)) // BTRFS_IOC_DEV_INFO
			switch {
			case errors.Is(err, unix.ENODEV):
				continue // ids have holes
			case err != nil:
				return err
			}
			devs = append(devs, dev)
		}
		return nil
	})
	return info, devs, err
}

// is reports whether d is the device with this number, as far as its path says: that
// is what the kernel was told once, perhaps in another namespace.
func (d *btrfsDev) is(num uint64) bool {
	st, err := look(unix.ByteSliceToString(d.Path[:]), 0)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && unix.Mkdev(st.Rdev_major, st.Rdev_minor) == num
}

func uuidText(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

const sysBtrfs = "/sys/fs/btrfs"

// btrfsHas reports whether the device is part of a mounted btrfs. sysfs knows that by
// number; without it paths must do.
func btrfsHas(info *btrfsInfo, devs []btrfsDev, num uint64) (bool, error) {
	links, err := filepath.Glob(filepath.Join(sysBtrfs, uuidText(info.FSID), "devices/*"))
	if len(links) == 0 || err != nil {
		return slices.ContainsFunc(devs, func(d btrfsDev) bool { return d.is(num) }), err
	}
	for _, l := range links {
		b, err := os.ReadFile(filepath.Join(l, "dev"))
		if err != nil {
			return false, err
		}
		if strings.TrimSpace(string(b)) == devName(num) {
			return true, nil
		}
	}
	return false, nil
}

func (linux) BackedBy(path, fsType string, num uint64) (bool, error) {
	if fsType != "btrfs" {
		return false, nil
	}
	info, devs, err := btrfsDevs(path)
	if err != nil {
		return false, err
	}
	return btrfsHas(&info, devs, num)
}

// btrfsDevOf is what the btrfs mounted at path calls the device with this number.
func btrfsDevOf(path string, num uint64) (*btrfsDev, error) {
	info, devs, err := btrfsDevs(path)
	if err != nil {
		return nil, err
	}
	has, err := btrfsHas(&info, devs, num)
	switch {
	case err != nil:
		return nil, err
	case has && len(devs) == 1:
		return &devs[0], nil
	}
	for i := range devs {
		if has && devs[i].is(num) {
			return &devs[i], nil
		}
	}
	return nil, unavailable("device %s is none of the %d of the btrfs at %s", devName(num), len(devs), path)
}

func btrfsSize(path string, num uint64) (int64, error) {
	dev, err := btrfsDevOf(path, num)
	if err != nil {
		return 0, err
	}
	return int64(dev.TotalBytes), nil
}

// forgetBtrfs makes the kernel forget what it has once seen on a device that is not
// mounted: for the number of a disk that has gone it would take a copy for a second
// path to its original (EEXIST). Where this cannot be done the mount says so.
func forgetBtrfs(device string) {
	args := struct {
		_    int64
		Name [4088]byte
	}{}
	f, err := os.OpenFile("/dev/btrfs-control", os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close() //nolint:errcheck // nothing is written
	copy(args.Name[:len(args.Name)-1], device)
	_ = ioctl(f.Fd(), ioc(iocWrite, 0x94, 5, unsafe.Sizeof(args)), unsafe.Pointer(&args)) // BTRFS_IOC_FORGET_DEV; ENOENT: it knows nothing
}
