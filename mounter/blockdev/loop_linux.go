package blockdev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

const (
	attachTries = 64
	loopControl = "/dev/loop-control"
)

// AttachLoop makes a loop device of the regular file backing and checks that the
// kernel shows exactly that file. backing may be closed afterwards.
//
// It does not look for another loop device on the same file: see [LoopOf]. Calls
// may race with each other and with other programs for a free device. Direct I/O
// that the file system cannot do is left off: see Loop.DirectIO. A device that
// would come out read-only unasked, because backing was opened read-only, is
// refused.
func AttachLoop(ctx context.Context, backing *os.File, o AttachOptions) (*Loop, error) {
	return attach(ctx, backing, o, configure)
}

// configurer binds an open free loop device to a file.
type configurer func(dev, backing *os.File, o AttachOptions) error

func attach(ctx context.Context, backing *os.File, o AttachOptions, conf configurer) (*Loop, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(backing.Fd()), &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: backing.Name(), Err: err}
	}
	if err := checkAttach(backing, &st, o); err != nil {
		return nil, err
	}
	var last error
	for try := range attachTries {
		if err := pause(ctx, try); err != nil {
			return nil, err
		}
		n, err := freeLoop()
		if err != nil {
			return nil, err
		}
		l, err := attachTo(ctx, n, backing, &st, o, conf)
		if err == nil {
			return l, nil
		}
		// EBUSY: another program took it first. ENXIO, ENODEV, ENOENT: it was removed.
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		last = err
	}
	return nil, fmt.Errorf("no free loop device in %d tries: %w: %w", attachTries, last, backends.ErrUnavailable)
}

func checkAttach(backing *os.File, st *unix.Stat_t, o AttachOptions) error {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is not a regular file: %w", backing.Name(), backends.ErrInvalid)
	}
	if len(o.Name) > 63 || strings.ContainsRune(o.Name, 0) {
		return fmt.Errorf("loop name %q: more than 63 bytes, or a NUL: %w", o.Name, backends.ErrInvalid)
	}
	flags, err := unix.FcntlInt(backing.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return &fs.PathError{Op: "fcntl", Path: backing.Name(), Err: err}
	}
	if !o.ReadOnly && flags&unix.O_ACCMODE == unix.O_RDONLY {
		return fmt.Errorf("%s is open read-only and the loop device is not to be: %w", backing.Name(), backends.ErrInvalid)
	}
	return nil
}

// pause waits a little longer with each try, and not at all at first.
func pause(ctx context.Context, try int) error {
	if try < 4 {
		return ctx.Err()
	}
	t := time.NewTimer(min(time.Duration(try)*time.Millisecond, 20*time.Millisecond))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// freeLoop asks for the number of a free loop device; the kernel makes one when
// there is none. It is not reserved.
func freeLoop() (int, error) {
	c, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("%w (is the loop module loaded, and is /dev the host's?): %w", err, backends.ErrUnavailable)
	}
	defer c.Close() //nolint:errcheck // nothing was written
	n, err := unix.IoctlRetInt(int(c.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return 0, fmt.Errorf("LOOP_CTL_GET_FREE: %w: %w", err, backends.ErrUnavailable)
	}
	return n, nil
}

func attachTo(ctx context.Context, n int, backing *os.File, st *unix.Stat_t, o AttachOptions, conf configurer) (l *Loop, err error) {
	dev, err := openLoop(ctx, n, !o.ReadOnly)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	if err := conf(dev.f, backing, o); err != nil {
		return nil, fmt.Errorf("%s: attach %s: %w", dev.path, backing.Name(), err)
	}
	l, err = attached(dev, n, st, o)
	if err != nil {
		// Ours for certain: the kernel binds a device once until it is cleared.
		return nil, errors.Join(err, unix.IoctlSetInt(int(dev.f.Fd()), unix.LOOP_CLR_FD, 0))
	}
	return l, clearReadOnly(dev, l.ReadOnly)
}

// attached looks at what the kernel made of it.
func attached(dev *Device, n int, st *unix.Stat_t, o AttachOptions) (*Loop, error) {
	info, err := loopStatus(dev.f)
	if err != nil {
		return nil, fmt.Errorf("%s: LOOP_GET_STATUS64: %w: %w", dev.path, err, backends.ErrUnavailable)
	}
	fileDev, ino := uint64(st.Dev), st.Ino //nolint:unconvert // 32 bits on some platforms
	if !sameBacking(info, fileDev, ino) {
		return nil, dev.mismatch("backing file", backingName(normal(info.Device), info.Inode), backingName(normal(fileDev), ino))
	}
	l, err := loopOf(dev, n, info)
	if err != nil {
		return nil, err
	}
	if l.ReadOnly != o.ReadOnly {
		return nil, dev.mismatch("read-only", strconv.FormatBool(l.ReadOnly), strconv.FormatBool(o.ReadOnly))
	}
	return l, nil
}

// clearReadOnly takes away what [Device.SetReadOnly] left on the number of a
// loop device: the kernel keeps that flag when another file is attached.
func clearReadOnly(dev *Device, wanted bool) error {
	ro, err := dev.ReadOnly()
	if err != nil || !ro || wanted {
		return err
	}
	return dev.SetReadOnly(false)
}

// loopOf is what callers are told of an attached device.
func loopOf(dev *Device, n int, info *unix.LoopInfo64) (*Loop, error) {
	seq, err := dev.DiskSeq()
	if err != nil {
		return nil, err
	}
	name, _, _ := bytes.Cut(info.File_name[:], []byte{0})
	return &Loop{
		Path: dev.path, Number: n, DiskSeq: seq,
		Dev: normal(info.Device), Ino: info.Inode, Name: string(name),
		ReadOnly:  info.Flags&unix.LO_FLAGS_READ_ONLY != 0,
		DirectIO:  info.Flags&unix.LO_FLAGS_DIRECT_IO != 0,
		AutoClear: info.Flags&unix.LO_FLAGS_AUTOCLEAR != 0,
		Offset:    info.Offset, SizeLimit: info.Sizelimit,
	}, nil
}

// openLoop opens loop device n by the number that sysfs gives it, and makes its
// node when /dev is not a devtmpfs, as in a container.
func openLoop(ctx context.Context, n int, write bool) (*Device, error) {
	name := "loop" + strconv.Itoa(n)
	want, err := sysNumber(name)
	if err != nil {
		return nil, err
	}
	path := "/dev/" + name
	d, err := Open(ctx, path, write)
	if errors.Is(err, fs.ErrNotExist) {
		if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(want)); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, &fs.PathError{Op: "mknod", Path: path, Err: err}
		}
		d, err = Open(ctx, path, write)
	}
	if err != nil {
		return nil, err
	}
	if d.num != want {
		return nil, errors.Join(d.mismatch("device number", devName(d.num), devName(want)), d.Close())
	}
	return d, nil
}

func devName(num uint64) string { return fmt.Sprintf("%d:%d", unix.Major(num), unix.Minor(num)) }

// sysNumber is the device number of a disk by its kernel name: the minor of
// loop7 is 7 only while the module's max_part is 0.
func sysNumber(name string) (uint64, error) {
	b, err := os.ReadFile(filepath.Join(sysfs, "block", name, "dev"))
	if err != nil {
		return 0, err
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err != nil {
		return 0, fmt.Errorf("/sys/block/%s/dev is %q: %w", name, b, err)
	}
	return unix.Mkdev(major, minor), nil
}

func loopStatus(f *os.File) (*unix.LoopInfo64, error) { return unix.IoctlLoopGetStatus64(int(f.Fd())) }

// sameBacking compares with stat(2)'s numbers. The kernel writes lo_device by
// huge_encode_dev, which stat uses too; comparing major and minor does not
// depend on it.
func sameBacking(info *unix.LoopInfo64, dev, ino uint64) bool {
	return info.Inode == ino && normal(info.Device) == normal(dev)
}
