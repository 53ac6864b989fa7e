package blockdev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

const sysfs = "/sys"

// Open opens the block device at path, for writing too if write is set, and
// refuses anything else (backends.ErrPrecondition). Symbolic links are followed;
// [Device.Verify] says whether they led to the right device. A missing path is
// fs.ErrNotExist, so that a caller can wait for it.
//
// A kernel that forbids writing to mounted devices also refuses to mount a device
// that is open for writing: open read-only what is to be mounted.
func Open(ctx context.Context, path string, write bool) (*Device, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// O_PATH first: opening a fifo or a tape would block or do something.
	p, err := os.OpenFile(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer p.Close() //nolint:errcheck // O_PATH holds nothing to lose
	num, err := blockNumber(p)
	if err != nil {
		return nil, err
	}
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR
	}
	return reopen(p, path, num, flags)
}

// reopen opens the device that f already names, whatever its path means by now.
func reopen(f *os.File, path string, num uint64, flags int) (*Device, error) {
	fd, err := openFD(f, flags)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	d := &Device{f: os.NewFile(uintptr(fd), path), path: path, num: num, sys: sysfs}
	got, err := blockNumber(d.f)
	if err == nil && got != num {
		err = fmt.Errorf("%s: the device number changed while it was opened: %w", path, backends.ErrUnavailable)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// openFD opens f again with other flags.
func openFD(f *os.File, flags int) (int, error) {
	for {
		fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// blockNumber is the device number of f, which must be a block device.
func blockNumber(f *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, fmt.Errorf("%s is not a block device: %w", f.Name(), backends.ErrPrecondition)
	}
	return normal(uint64(st.Rdev)), nil //nolint:unconvert // 32 bits on some platforms
}

// normal is a device number as unix.Mkdev makes it.
func normal(dev uint64) uint64 { return unix.Mkdev(unix.Major(dev), unix.Minor(dev)) }

// Size is the size of the device in bytes.
func (d *Device) Size() (int64, error) {
	var n uint64
	if err := ioctl(d.f, unix.BLKGETSIZE64, unsafe.Pointer(&n)); err != nil {
		return 0, d.errorf("size", err)
	}
	if n > 1<<63-1 {
		return 0, fmt.Errorf("%s: size %d is out of range: %w", d.path, n, backends.ErrPrecondition)
	}
	return int64(n), nil
}

// DiskSeq is the kernel's number of this instance of the disk: no other disk
// gets it before the next boot, not even a loop device of the same name. 0 when
// the kernel is older than 5.15 and does not know.
func (d *Device) DiskSeq() (uint64, error) {
	var n uint64
	err := ioctl(d.f, unix.BLKGETDISKSEQ, unsafe.Pointer(&n))
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EINVAL):
		return 0, d.errorf("disk sequence number", err)
	}
	b, err := os.ReadFile(filepath.Join(d.sysDir(), "diskseq"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

// ReadOnly reports whether the kernel refuses writes to the device.
func (d *Device) ReadOnly() (bool, error) {
	v, err := unix.IoctlGetInt(int(d.f.Fd()), unix.BLKROGET)
	if err != nil {
		return false, d.errorf("read-only flag", err)
	}
	return v != 0, nil
}

// Claimed reports whether somebody has the device exclusively: a mounted file
// system, another device on top of it, a program such as mkfs, or whoever has the
// file of [Device.Lock]. It asks by an exclusive open (O_EXCL), and lets go at
// once.
func (d *Device) Claimed() (bool, error) {
	fd, err := openFD(d.f, unix.O_RDONLY|unix.O_EXCL)
	switch {
	case errors.Is(err, unix.EBUSY):
		return true, nil
	case err != nil:
		return false, d.errorf("exclusive open", err)
	}
	err = flock(fd, unix.LOCK_SH) // udev takes that one too
	return errors.Is(err, unix.EWOULDBLOCK), unix.Close(fd)
}

// Lock opens the device once more, with a lock (flock) by which [Device.Claimed]
// knows it as long as anybody has the file. It is for a program that works on the
// device and does not open it exclusively, as mkfs.btrfs: the program inherits the
// file, and with it the lock. A device that is locked is backends.ErrInUse.
func (d *Device) Lock() (*os.File, error) {
	fd, err := openFD(d.f, unix.O_RDONLY)
	if err != nil {
		return nil, d.errorf("open", err)
	}
	if err := flock(fd, unix.LOCK_EX); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%w: %w", err, backends.ErrInUse)
		}
		return nil, errors.Join(d.errorf("lock", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), d.path), nil
}

func flock(fd, how int) error {
	for {
		err := unix.Flock(fd, how|unix.LOCK_NB)
		if err != unix.EINTR {
			return err
		}
	}
}

// SetReadOnly sets the kernel's read-only flag of the whole device, for every
// user of it and for descriptors that are open already, and looks at the result.
// A device that is read-only by itself stays so (backends.ErrPrecondition).
func (d *Device) SetReadOnly(ro bool) error {
	v := 0
	if ro {
		v = 1
	}
	if err := unix.IoctlSetPointerInt(int(d.f.Fd()), unix.BLKROSET, v); err != nil {
		return d.errorf("set the read-only flag", err)
	}
	got, err := d.ReadOnly()
	if err != nil {
		return err
	}
	if got != ro {
		return fmt.Errorf("%s: read-only is %t after setting it to %t: %w", d.path, got, ro, backends.ErrPrecondition)
	}
	return nil
}

// sysDir is the device's directory in sysfs, by number and never by name.
func (d *Device) sysDir() string {
	return filepath.Join(d.sys, "dev/block", fmt.Sprintf("%d:%d", unix.Major(d.num), unix.Minor(d.num)))
}

func (d *Device) errorf(what string, err error) error {
	return fmt.Errorf("%s: %s: %w", d.path, what, err)
}

// ioctl is for requests whose argument has 64 bits on every platform.
func ioctl(f *os.File, req uint, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(req), uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}
