package fsfreeze

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/faultpoint"
)

const (
	fiFreeze = 0xC0045877 // FIFREEZE
	fiThaw   = 0xC0045878 // FITHAW
)

// Freeze stops writers to the file system of dir until thaw, which closes dir and
// fails where somebody else has thawed it before: an administrator, an agent of the host.
// Where it cannot thaw, that is [ErrStill]. Before Freeze freezes, a child stands ready
// to thaw it when this process dies. One that somebody else froze already is [ErrNot]:
// they may thaw it at any moment. On error dir stays open.
//
// mark is called before, and unmark after it, unless it may be frozen still: for what
// tells the next process, where the child was killed together with this one. That thaws
// what has a mark before it freezes it: what is frozen then is somebody else's.
//
// The child keeps what is in keep open until it has thawed, or is dismissed: where that
// is locked (flock), the next process has the lock after the thaw, and no child thaws
// what that process has frozen.
func Freeze(dir *os.File, mark, unmark func() error, keep ...*os.File) (thaw func() error, err error) {
	dead, err := deadMan(dir, keep...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNot, err)
	}
	faultpoint.Reach("fsfreeze.guarded")
	if err := mark(); err != nil {
		return nil, errors.Join(err, dead.dismiss())
	}
	faultpoint.Reach("fsfreeze.marked")
	err = freezeIoctl(dir, fiFreeze)
	switch {
	case err == nil:
		return func() error {
			err := freezeIoctl(dir, fiThaw)
			switch {
			case errors.Is(err, unix.EINVAL):
				err = fmt.Errorf("%w: %s is not frozen any more, somebody else has thawed it: %w", backends.ErrUnavailable, dir.Name(), err)
			case err != nil:
				err = fmt.Errorf("%w: %w", ErrStill, err)
				unmark = func() error { return nil }
			}
			faultpoint.Reach("fsfreeze.thawed")
			err = errors.Join(err, dead.dismiss())
			faultpoint.Reach("fsfreeze.dismissed")
			return errors.Join(err, unmark(), dir.Close())
		}, nil
	case errors.Is(err, unix.EBUSY):
		err = fmt.Errorf("%w: somebody else froze it, and may thaw it at any moment: %w", ErrNot, err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOTTY):
		err = fmt.Errorf("%w: %w", ErrNot, err)
	}
	return nil, errors.Join(err, dead.dismiss(), unmark())
}

// Hold freezes without anybody to thaw it when this process dies.
func Hold(dir *os.File) error { return freezeIoctl(dir, fiFreeze) }

func freezeIoctl(f *os.File, request uint) error {
	for {
		err := unix.IoctlSetInt(int(f.Fd()), request, 0)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("FIFREEZE or FITHAW of "+f.Name(), err)
		}
	}
}

// Thaw thaws what an earlier process froze; what is not frozen any more is no error.
func Thaw(f *os.File) error {
	err := freezeIoctl(f, fiThaw)
	if err == nil || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return fmt.Errorf("%w: an earlier process froze it; if fsfreeze --unfreeze %s fails too, its node must be started again: %w",
		backends.ErrUnavailable, f.Name(), err)
}

// deadman is a child that waits for a lock which this process holds. The kernel
// gives it the lock when this process ends, however it ends, and then it thaws:
//
//	flock LOCK fsfreeze --unfreeze DIR
//
// Both are descriptors that it inherits: what is mounted where, and whether the
// file has a name, does not matter to it. It has a session of its own, so that
// what kills this process's group does not kill it too.
type deadman struct {
	lock *os.File
	cmd  *exec.Cmd
}

func deadMan(dir *os.File, keep ...*os.File) (*deadman, error) {
	fd, err := unix.MemfdCreate("csikit-deadman", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	d := &deadman{lock: os.NewFile(uintptr(fd), "deadman")}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(os.NewSyscallError("flock", err), d.lock.Close())
	}
	// A descriptor of its own: one that shares the lock would keep it.
	theirs, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	defer func() { _ = theirs.Close() }() // the child has its own
	flock, err1 := lookTool("flock")
	fsfreeze, err2 := lookTool("fsfreeze")
	if err := errors.Join(err1, err2); err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	d.cmd = &exec.Cmd{
		Path: flock, Args: []string{"flock", "/proc/self/fd/4", fsfreeze, "--unfreeze", "/proc/self/fd/3"},
		Dir: "/", ExtraFiles: append([]*os.File{dir, theirs}, keep...), SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	// Start returns when the child runs flock: from here on it will have the lock.
	if err := d.cmd.Start(); err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	return d, nil
}

// dismiss ends the child before it can have the lock.
func (d *deadman) dismiss() error {
	err := d.cmd.Process.Kill()
	_ = d.cmd.Wait() // killed
	return errors.Join(err, d.lock.Close())
}

// lookTool finds a system tool: a service often has no sbin in its PATH.
func lookTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}

// isBtrfsOn says whether the btrfs of dir is on a device.
func isBtrfsOn(dir *os.File, device string) bool {
	var info struct {
		maxID, devices uint64
		fsid           [16]byte
		_              [992]byte
	}
	const fsInfo = 0x8400941F // BTRFS_IOC_FS_INFO
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), fsInfo, uintptr(unsafe.Pointer(&info))); errno != 0 {
		return false
	}
	u := info.fsid
	_, err := os.Lstat(fmt.Sprintf("/sys/fs/btrfs/%x-%x-%x-%x-%x/devices/%s", u[:4], u[4:6], u[6:8], u[8:10], u[10:], filepath.Base(device)))
	return err == nil
}
