package mounter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

func (linux) ReadEnds(ctx context.Context, d Device) error {
	b, err := blockDevice(d)
	if err != nil {
		return err
	}
	return b.ReadEnds(ctx)
}

// ExamineFS asks disk file systems only: of the others statfs says what there is to
// say.
func (k linux) ExamineFS(ctx context.Context, d Device, m mnt.Info) (found []backends.Health, err error) {
	if !isExt(m.FSType) && m.FSType != "xfs" && m.FSType != "btrfs" {
		return nil, nil
	}
	aside, err := mnt.OpenAside(m.Point)
	if err != nil {
		return nil, unavailable("%w", err)
	}
	defer aside.Close() //nolint:errcheck // it holds nothing to lose
	// The dot makes a directory of the link, which is then no link to be followed.
	path := fmt.Sprintf("/proc/self/fd/%d/.", aside.Fd())
	switch err := onMount(path, func(uintptr) error { return nil }); {
	case err != nil && !slices.ContainsFunc(broken, func(e unix.Errno) bool { return errors.Is(err, e) }):
		return nil, unavailable("%w", err)
	case err != nil:
		return []backends.Health{finding(backends.HealthInaccessible, reasonShutDown, "the %s at %s: %v", m.FSType, m.Point, bare(err))}, nil
	}
	switch {
	case isExt(m.FSType):
		found, err = extErrors(d, m.Dev)
	case m.FSType == "xfs":
		found, err = xfsSick(path)
	default:
		found, err = btrfsErrors(path)
	}
	small, look := k.tooSmall(ctx, d, m.FSType, path)
	return append(found, small...), errors.Join(err, look)
}

// broken is what a file system answers that can go on no more.
var broken = []unix.Errno{unix.EIO, unix.EUCLEAN, unix.EBADMSG, unix.ESHUTDOWN, unix.ENXIO}

// bare is the kernel's part of an error, without a path that means nothing.
func bare(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

// tooSmall finds a device that ends before its file system.
func (k linux) tooSmall(ctx context.Context, d Device, fsType, path string) ([]backends.Health, error) {
	if d == nil {
		return nil, nil
	}
	spans, err := k.FSSize(ctx, d, fsType, path)
	if err != nil {
		return nil, unavailable("size of the %s: %w", fsType, bare(err))
	}
	size, err := d.Size()
	if err != nil {
		return nil, unavailable("size of device %s: %w", d.Path(), err)
	}
	if spans <= size {
		return nil, nil
	}
	return []backends.Health{finding(backends.HealthDataLoss, reasonDevSmaller, "%s has %d bytes, its %s has %d", d.Path(), size, fsType, spans)}, nil
}

const sysExt4 = "/sys/fs/ext4"

// extErrors are those that the kernel has noted in the superblock since the last
// fsck. It serves ext2 and ext3 too, with the driver of ext4.
func extErrors(d Device, dev uint64) ([]backends.Health, error) {
	name, err := os.Readlink("/sys/dev/block/" + devName(dev))
	if err != nil {
		return extState(d)
	}
	dir := filepath.Join(sysExt4, filepath.Base(name))
	count, err := attribute(dir, "errors_count")
	switch {
	case err != nil: // no ext4, or no sysfs
		return extState(d)
	case count == "0":
		return nil, nil
	}
	text := "the kernel found " + count + " errors"
	where, err := attribute(dir, "last_error_func")
	if err == nil {
		text += ", the last in " + where
	}
	at, err := attribute(dir, "last_error_time")
	if seconds, bad := strconv.ParseInt(at, 10, 64); err == nil && bad == nil {
		text += " at " + time.Unix(seconds, 0).UTC().Format(time.RFC3339)
	}
	return []backends.Health{finding(backends.HealthDegraded, reasonErrors, "%s: a check is needed", text)}, nil
}

func attribute(dir, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(b)), err
}

// extState reads the superblock's own mark.
func extState(d Device) ([]backends.Health, error) {
	const (
		offset    = 1024 + 0x3a // s_state
		hasErrors = 2
	)
	if d == nil {
		return nil, nil
	}
	dev, err := blockDevice(d)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 2)
	if _, err := dev.File().ReadAt(b, offset); err != nil {
		return nil, unavailable("superblock of %s: %w", d.Path(), err)
	}
	if binary.LittleEndian.Uint16(b)&hasErrors == 0 {
		return nil, nil
	}
	return []backends.Health{finding(backends.HealthDegraded, reasonErrors, "its superblock says that there were errors: a check is needed")}, nil
}

// xfsSick asks what the kernel knows to be damaged of the file system as a whole.
func xfsSick(path string) ([]backends.Health, error) {
	var g struct { // struct xfs_fsop_geom
		_ xfsGeometry

		Sick, Checked uint32
		_             [17]uint64
	}
	request := ioc(iocRead, 'X', 126, unsafe.Sizeof(g)) // XFS_IOC_FSGEOMETRY
	err := onMount(path, func(fd uintptr) error { return ioctl(fd, request, unsafe.Pointer(&g)) })
	switch {
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL): // before Linux 5.2
		return nil, nil
	case err != nil:
		return nil, unavailable("xfs geometry: %w", bare(err))
	case g.Sick == 0:
		return nil, nil
	}
	return []backends.Health{finding(backends.HealthDegraded, reasonErrors, "the kernel found damaged metadata (%#x): xfs_repair is needed", g.Sick)}, nil
}

// btrfsStats is struct btrfs_ioctl_get_dev_stats.
type btrfsStats struct {
	ID, Items, Flags                            uint64
	Write, Read, Flush, Corruption, Generations uint64
	_                                           [121]uint64
}

// btrfsErrors are those of its devices since somebody has set them to zero (btrfs
// device stats -z).
func btrfsErrors(path string) (found []backends.Health, err error) {
	_, devs, err := btrfsDevs(path)
	if err != nil {
		return nil, unavailable("devices of btrfs: %w", bare(err))
	}
	for _, d := range devs {
		s := btrfsStats{ID: d.ID, Items: 5}
		request := ioc(iocRead|iocWrite, 0x94, 52, unsafe.Sizeof(s)) // BTRFS_IOC_GET_DEV_STATS
		err := onMount(path, func(fd uintptr) error { return ioctl(fd, request, unsafe.Pointer(&s)) })
		if err != nil {
			return found, unavailable("errors of btrfs: %w", bare(err))
		}
		if s.Write|s.Read|s.Flush|s.Corruption|s.Generations != 0 {
			found = append(found, finding(backends.HealthDegraded, reasonDevErrors,
				"device %d: errors of writing %d, reading %d, flushing %d, checksums %d, generations %d", d.ID, s.Write, s.Read, s.Flush, s.Corruption, s.Generations))
		}
	}
	return found, nil
}
