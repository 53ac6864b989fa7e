package lvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit"
	"github.com/csikit/csikit/internal/fsfreeze"
)

// mapper is the device-mapper of this machine.
type mapper struct {
	dir string
	// control is device-mapper's own device, opened when it is first needed: by then
	// lvm has had its module loaded.
	mu      sync.Mutex
	control *os.File
}

func newKernel(o *Options) kernel { return &mapper{dir: o.DeviceDir} }

func (k *mapper) device(uuid string) (string, error) {
	m, err := mapped(uuid)
	if m == nil || err != nil {
		return "", err
	}
	return m.node(k.dir)
}

func (*mapper) number(path string) (string, error) { return iolimit.Number(path) }

func (k *mapper) busy(uuid string) (bool, error) {
	m, err := mapped(uuid)
	if m == nil || err != nil {
		return false, err
	}
	return m.busy(k.dir)
}

// mapping is a device-mapper device.
type mapping struct {
	name string // "dm-7"
	num  uint64
}

// mapped looks for the device of an LV in the kernel; nil: there is none. It needs
// neither /dev nor lvm.
func mapped(uuid string) (*mapping, error) {
	names, err := mapperNames()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		got, err := attribute(name, "dm/uuid")
		if err != nil {
			return nil, err
		}
		if got != uuid {
			continue
		}
		num, err := attribute(name, "dev")
		if err != nil {
			return nil, err
		}
		major, minor, _ := strings.Cut(num, ":")
		ma, err1 := strconv.ParseUint(major, 10, 32)
		mi, err2 := strconv.ParseUint(minor, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("%w: device number of %s: %w", backends.ErrUnavailable, name, err)
		}
		return &mapping{name: name, num: unix.Mkdev(uint32(ma), uint32(mi))}, nil
	}
	return nil, nil
}

// mapperNames are the names of all device-mapper devices.
func mapperNames() (names []string, err error) {
	entries, err := os.ReadDir("/sys/block")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "dm-") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// attribute of a block device; "" when the device went away meanwhile.
func attribute(dev, name string) (string, error) {
	out, err := os.ReadFile(filepath.Join("/sys/block", dev, name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// node is a path of the device: in /dev, or where /dev of this container lacks it,
// in a directory of the driver's own.
func (m *mapping) node(dir string) (string, error) {
	path := filepath.Join("/dev", m.name)
	if is(path, m.num) {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	path = filepath.Join(dir, m.name)
	if is(path, m.num) {
		return path, nil
	}
	// What has that name there is of a device that is gone.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(m.num)); err != nil { //nolint:gosec // mknod's own type
		return "", fmt.Errorf("%w: mknod %s: %w", backends.ErrUnavailable, path, err)
	}
	return path, nil
}

func is(path string, num uint64) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && uint64(st.Rdev) == num //nolint:unconvert // of other sizes elsewhere
}

// busy says whether anybody has the device open: a mount, another device on it, a
// process.
func (m *mapping) busy(dir string) (bool, error) {
	holders, err := os.ReadDir(filepath.Join("/sys/block", m.name, "holders"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	if len(holders) > 0 {
		return true, nil
	}
	path, err := m.node(dir)
	if err != nil {
		return false, err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return true, nil
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return false, nil // gone meanwhile
	case err != nil:
		return false, fmt.Errorf("%w: %s: %w", backends.ErrUnavailable, path, err)
	}
	return false, unix.Close(fd)
}

// exclusive is the device of an LV, which nobody else may mount or use as a part of
// another device, unless it is only read.
type exclusive struct {
	f *os.File
	n int64
}

func (*mapper) exclusive(path, uuid string) (disk, error) {
	return openDisk(path, uuid, os.O_RDWR|unix.O_EXCL)
}

func (*mapper) readable(path, uuid string) (disk, error) { return openDisk(path, uuid, os.O_RDONLY) }

func openDisk(path, uuid string, flags int) (disk, error) {
	f, err := os.OpenFile(path, flags|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%w: %w", backends.ErrInUse, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	d := &exclusive{f: f}
	if err := d.verify(uuid); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

// verify looks whether what was opened is the LV, by the open descriptor.
func (d *exclusive) verify(uuid string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.f.Fd()), &st); err != nil {
		return fmt.Errorf("%w: %s: %w", backends.ErrUnavailable, d.f.Name(), err)
	}
	num := uint64(st.Rdev) //nolint:unconvert // of other sizes elsewhere
	dir := fmt.Sprintf("/sys/dev/block/%d:%d/", unix.Major(num), unix.Minor(num))
	got, err := os.ReadFile(dir + "dm/uuid")
	if err != nil {
		return fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	if s := strings.TrimSpace(string(got)); s != uuid {
		return fmt.Errorf("%w: %s is device %s, and not %s", backends.ErrUnavailable, d.f.Name(), s, uuid)
	}
	var size uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size))); errno != 0 { //nolint:gosec // as the ioctl wants it
		return fmt.Errorf("%w: size of %s: %w", backends.ErrUnavailable, d.f.Name(), errno)
	}
	d.n = int64(size) //nolint:gosec // below 8 EiB
	return nil
}

// zero makes a range read as zeros. The kernel deallocates it only where the disk
// promises that; else it writes, or has the disk write.
func (d *exclusive) zero(off, n int64, deallocate bool) error {
	if deallocate {
		err := unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("deallocate %s at %d: %w", d.f.Name(), off, err)
		}
	}
	r := [2]uint64{uint64(off), uint64(n)}                                                                               //nolint:gosec // not negative
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&r))); errno != 0 { //nolint:gosec // as the ioctl wants it
		return fmt.Errorf("zero %s at %d: %w", d.f.Name(), off, errno)
	}
	return nil
}

func (d *exclusive) size() int64 { return d.n }

func (d *exclusive) readAt(p []byte, off int64) error {
	_, err := d.f.ReadAt(p, off)
	return err
}

func (d *exclusive) writeAt(p []byte, off int64) error {
	_, err := d.f.WriteAt(p, off)
	return err
}

func (*mapper) mountOf(ctx context.Context, path string) (*os.File, error) {
	return fsfreeze.MountOf(ctx, path)
}

func (*mapper) writes(uuid string) (uint64, error) {
	m, err := mapped(uuid)
	if m == nil || err != nil {
		return 0, err
	}
	stat, err := attribute(m.name, "stat")
	if err != nil {
		return 0, err
	}
	f := strings.Fields(stat)
	if len(f) < 14 {
		return 0, fmt.Errorf("%w: /sys/block/%s/stat is %q", backends.ErrUnavailable, m.name, stat)
	}
	// Writes, those merged, sectors, what is in flight, and discards.
	sum := uint64(0)
	for _, i := range []int{4, 5, 6, 8, 11} {
		n, err := strconv.ParseUint(f[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%w: /sys/block/%s/stat: %w", backends.ErrUnavailable, m.name, err)
		}
		sum += n
	}
	return sum, nil
}

func (d *exclusive) sync() error { return d.f.Sync() }

func (d *exclusive) close() error { return d.f.Close() }
