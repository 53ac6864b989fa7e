package loopfile

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/mounter/blockdev"
)

// replayXFS lets the kernel bring the log of an image into its file system. It is
// mounted nowhere: the mount is a descriptor and goes with it, and so does the
// loop device. Should this process die, nothing is left of either.
func replayXFS(ctx context.Context, img *os.File, path string) error {
	// The loop device keeps this open file, and with it the lock: when the lock is
	// free again, the image is detached.
	own, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = own.Close() }() // img is synced
	if ok, err := tryLock(own); err != nil || !ok {
		return errors.Join(err, errors.New("the copy is locked"))
	}
	dev, err := blockdev.AttachTemporary(ctx, own, blockdev.AttachOptions{})
	if err != nil {
		return err
	}
	err = mountDetached("xfs", dev.Path(), "nouuid")
	if err = errors.Join(err, dev.Close(), own.Close()); err != nil {
		return err
	}
	if err := waitLock(ctx, img); err != nil {
		return fmt.Errorf("it is not detached: %w", err)
	}
	return img.Sync()
}

// mountDetached mounts a device at no path, and unmounts it.
func mountDetached(fsType, device, flag string) error {
	fs, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen "+fsType, err)
	}
	defer func() { _ = unix.Close(fs) }() // a context, no file
	if err := unix.FsconfigSetString(fs, "source", device); err != nil {
		return os.NewSyscallError("fsconfig source", err)
	}
	if err := unix.FsconfigSetFlag(fs, flag); err != nil {
		return os.NewSyscallError("fsconfig "+flag, err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return os.NewSyscallError("mount "+fsType+" of "+device, err)
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	return os.NewSyscallError("unmount", unix.Close(m))
}
