package mnt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// maxStack bounds Unwind: more mounts on one path come from a bug, and from
// here on the node is in danger.
const maxStack = 1024

// A busy mount is tried again after 1, 2, 4, ... ms up to this. A process that is
// just being started, by us or by whoever uses the volume, has copies of
// descriptors that were closed since, and drops them a moment later.
const maxWait = 16 * time.Millisecond

// Unmount takes the topmost mount off target, once. A target that is no mount
// point, or does not exist, is no error: was is then false. A busy mount is
// [backends.ErrInUse], and the error names who holds it as far as that can be
// found out quickly.
func Unmount(target string) (was bool, err error) {
	p, err := cleanTarget(target)
	if err == nil {
		was, err = unmount(p, 0)
	}
	if err != nil {
		return was, fmt.Errorf("unmount %s: %w", target, err)
	}
	return was, nil
}

// Force is Unmount with MNT_FORCE: the file system's requests that wait for a
// server fail with an I/O error, and with them whoever waits there, also another
// unmount. What was to be written is lost. File systems without a server take no
// notice.
func Force(target string) (was bool, err error) {
	p, err := cleanTarget(target)
	if err == nil {
		was, err = unmount(p, unix.MNT_FORCE)
	}
	if err != nil {
		return was, fmt.Errorf("force unmount %s: %w", target, err)
	}
	return was, nil
}

// Detach takes the topmost mount off target at once, busy or not (MNT_DETACH):
// the path is free, and the file system goes when its last user does. For mounts
// whose server is dead. The data of a device is not safe to touch afterwards, as
// the file system may still be writing.
func Detach(target string) (was bool, err error) {
	p, err := cleanTarget(target)
	if err == nil {
		was, err = unmount(p, unix.MNT_DETACH)
	}
	if err != nil {
		return was, fmt.Errorf("detach %s: %w", target, err)
	}
	return was, nil
}

// Unwind unmounts until target is no mount point, and looks. n counts the
// mounts that it took off, also when it fails.
func Unwind(target string) (n int, err error) {
	p, err := cleanTarget(target)
	if err == nil {
		n, err = unwind(p)
	}
	if err != nil {
		return n, fmt.Errorf("unmount %s (%d taken off): %w", target, n, err)
	}
	return n, nil
}

func unwind(p string) (n int, err error) {
	for n < maxStack {
		was, err := unmount(p, 0)
		if err != nil {
			return n, err
		}
		if !was { // unmount has looked
			return n, nil
		}
		n++
	}
	if still, err := isMountPoint(p); err != nil && !errors.Is(err, fs.ErrNotExist) || still {
		return n, errors.Join(fmt.Errorf("still a mount point after %d unmounts", n), err)
	}
	return n, nil
}

func unmount(p string, flags int) (was bool, err error) {
	err = umount2(p, flags)
	for wait := time.Millisecond; errors.Is(err, unix.EBUSY) && wait <= maxWait; wait *= 2 {
		time.Sleep(wait)
		err = umount2(p, flags)
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case errors.Is(err, unix.EINVAL):
		return false, explainInvalid(p, err)
	case errors.Is(err, unix.EBUSY):
		return false, busy(p, err)
	}
	return false, err
}

func umount2(p string, flags int) error {
	return os.NewSyscallError("umount2", again(func() error {
		return unix.Unmount(p, unix.UMOUNT_NOFOLLOW|flags)
	}))
}

// explainInvalid tells the two meanings of EINVAL apart: no mount point, which
// is nil, and a mount that this namespace may not take off.
func explainInvalid(p string, err error) error {
	is, look := isMountPoint(p)
	switch {
	case errors.Is(look, fs.ErrNotExist) || look == nil && !is:
		return nil
	case look != nil:
		return look
	}
	return fmt.Errorf("a mount point that may not be unmounted from this mount namespace: %w", err)
}

func busy(p string, err error) error {
	who := holders(p)
	if len(who) == 0 {
		return fmt.Errorf("%w: %w; no holder found", backends.ErrInUse, err)
	}
	return fmt.Errorf("%w: %w; held by %s", backends.ErrInUse, err, strings.Join(who, ", "))
}
