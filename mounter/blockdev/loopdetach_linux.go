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

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// detachTries bounds how often a detach waits for a passing opener, as udev is
// one after each change: about 100 ms in all.
const detachTries = 16

// DetachLoop detaches the loop device at path from the file with these numbers.
// nil means that it was looked at and that this file is not behind it any more,
// also when it was not before. A device that by now belongs to another file is
// left alone; should the file then be attached elsewhere, that is
// backends.ErrInUse, for the file still has a user.
//
// A device that is mounted, held by another device or open is backends.ErrInUse,
// names what is known of its user, and stays attached: the kernel's promise to
// detach it at its last close is taken back.
func DetachLoop(ctx context.Context, path string, dev, ino uint64) error {
	for try := range detachTries {
		if err := pause(ctx, try); err != nil {
			return err
		}
		done, err := detachOnce(ctx, path, dev, ino)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: open in another process: %w", path, backends.ErrInUse)
}

// detachOnce reports done when the file is not behind the device; neither done
// nor an error is a device that somebody has open.
func detachOnce(ctx context.Context, path string, dev, ino uint64) (done bool, err error) {
	d, n, err := openLoopPath(ctx, path)
	if err != nil || d == nil {
		return err == nil, err
	}
	info, err := loopStatus(d.f)
	if err != nil || !sameBacking(info, dev, ino) {
		err = detachOther(path, err, dev, ino)
		return err == nil, errors.Join(err, d.Close())
	}
	if err := d.claim(); err != nil {
		return false, errors.Join(err, d.Close())
	}
	ro, err := d.ReadOnly()
	if err == nil {
		err = clearLoop(d)
	}
	// Newer kernels detach at the last close: ours has to come before the look.
	if err = errors.Join(err, d.Close()); err != nil {
		return false, err
	}
	done, err = detachResult(ctx, n, dev, ino)
	if done && ro {
		freeReadOnly(ctx, n)
	}
	return done, err
}

// freeReadOnly takes the read-only flag from a free device, for other programs:
// AttachLoop does so itself, so that a failure here is nobody's loss. Never
// before the device is free, for a busy one may be read-only to somebody.
func freeReadOnly(ctx context.Context, n int) {
	d, err := openLoop(ctx, n, false)
	if err != nil {
		return
	}
	if _, err := loopStatus(d.f); errors.Is(err, unix.ENXIO) {
		_ = d.SetReadOnly(false)
	}
	_ = d.Close()
}

// clearLoop asks for the detachment while nobody else can mount the device.
func clearLoop(d *Device) error {
	fd, err := openFD(d.f, unix.O_RDONLY|unix.O_EXCL)
	if err != nil {
		return d.busy(err)
	}
	// ENXIO: another call was faster.
	err = unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
	if errors.Is(err, unix.ENXIO) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("%s: LOOP_CLR_FD: %w", d.path, err)
	}
	return errors.Join(err, unix.Close(fd))
}

func (d *Device) busy(err error) error {
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s: mounted, or claimed by another device: %w", d.path, backends.ErrInUse)
	}
	return d.errorf("exclusive open", err)
}

// claim refuses a device that others stand on; clearLoop's exclusive open finds
// mounts, this one names the holders.
func (d *Device) claim() error {
	holders, err := os.ReadDir(filepath.Join(d.sysDir(), "holders"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(holders) > 0 {
		return fmt.Errorf("%s: held by %s: %w", d.path, holders[0].Name(), backends.ErrInUse)
	}
	return nil
}

// detachOther answers for a device that is not, or not any more, on the file.
func detachOther(path string, statusErr error, dev, ino uint64) error {
	switch {
	case errors.Is(statusErr, unix.ENXIO):
		return nil
	case statusErr != nil:
		return fmt.Errorf("%s: LOOP_GET_STATUS64: %w: %w", path, statusErr, backends.ErrUnavailable)
	}
	loops, err := LoopOf(dev, ino)
	if err != nil {
		return err
	}
	if len(loops) > 0 {
		return fmt.Errorf("%s belongs to another file, and the file is attached to %s: %w", path, loops[0].Path, backends.ErrInUse)
	}
	return nil
}

// detachResult looks at the device after the request to clear it. A busy device
// is still attached, and marked to detach itself later behind everybody's back:
// the mark is taken away.
func detachResult(ctx context.Context, n int, dev, ino uint64) (gone bool, err error) {
	if attached, err := isAttached("loop" + strconv.Itoa(n)); err != nil || !attached {
		return err == nil, err
	}
	d, err := openLoop(ctx, n, false)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) {
			return true, nil
		}
		return false, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	info, err := loopStatus(d.f)
	switch {
	case errors.Is(err, unix.ENXIO):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("%s: LOOP_GET_STATUS64: %w: %w", d.path, err, backends.ErrUnavailable)
	case !sameBacking(info, dev, ino):
		return true, nil
	}
	if info.Flags&unix.LO_FLAGS_AUTOCLEAR != 0 {
		info.Flags &^= unix.LO_FLAGS_AUTOCLEAR
		// A kernel that refuses leaves the mark; the device is in use all the same.
		_ = unix.IoctlLoopSetStatus64(int(d.f.Fd()), info)
	}
	return false, nil
}

// openLoopPath opens the loop device that path names and gives its number. nil
// without an error: there is no such device.
func openLoopPath(ctx context.Context, path string) (*Device, int, error) {
	n, err := loopNumber(path)
	if err != nil {
		return nil, 0, err
	}
	d, err := openLoop(ctx, n, false)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return nil, n, nil
	case err != nil:
		return nil, n, err
	}
	return d, n, nil
}

// loopNumber is 7 for "/dev/loop7". Only such names are taken: the number, not
// the node, says which device is meant.
func loopNumber(path string) (int, error) {
	digits, ok := strings.CutPrefix(path, "/dev/loop")
	n, err := strconv.ParseUint(digits, 10, 20)
	if !ok || err != nil || strconv.FormatUint(n, 10) != digits {
		return 0, fmt.Errorf("%q is not the path of a loop device: %w", path, backends.ErrInvalid)
	}
	return int(n), nil
}
