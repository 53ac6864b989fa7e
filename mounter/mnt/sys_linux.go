package mnt

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// missing reports that the kernel has no such call or flag, or that a seccomp
// filter which does not know it refuses it with EPERM. The older call then
// says whether the permission itself is what is lacking.
func missing(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM)
}

// again repeats a system call that a signal interrupted.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// openPath opens a path without opening what it names: no device is touched and
// no server asked. The descriptor keeps the mount busy until it is closed.
func openPath(p string) (fd int, err error) { return openFlags(p, unix.O_NOFOLLOW) }

// openDir opens a directory on the way to a path, following symbolic links.
func openDir(p string) (fd int, err error) { return openFlags(p, unix.O_DIRECTORY) }

func openFlags(p string, flags int) (fd int, err error) {
	err = again(func() (err error) {
		fd, err = unix.Open(p, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
		return err
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: p, Err: err}
	}
	return fd, nil
}

// closeFD closes an O_PATH or mount descriptor. Nothing is written through one,
// so that there is no error to lose.
func closeFD(fd int) { _ = unix.Close(fd) }

// procPath is a path to the open descriptor for calls that only take paths.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// fileType returns the S_IFMT bits of an open descriptor, or 0 when a dead mount
// does not tell.
func fileType(fd int) uint16 {
	var st unix.Statx_t
	err := unix.Statx(fd, "", lookFlags|unix.AT_EMPTY_PATH, unix.STATX_TYPE, &st)
	if err != nil || st.Mask&unix.STATX_TYPE == 0 {
		return 0
	}
	return st.Mode & unix.S_IFMT
}

// target is the place of a new mount, held so that nobody can put a symbolic
// link there meanwhile.
type target struct {
	path string
	fd   int
	kind uint16
}

func openTarget(path string) (*target, error) {
	p, err := cleanTarget(path)
	if err != nil {
		return nil, err
	}
	fd, err := openPath(p)
	if err != nil {
		return nil, err
	}
	t := &target{p, fd, fileType(fd)}
	if t.kind == unix.S_IFLNK {
		closeFD(fd)
		return nil, fmt.Errorf("%w: %s is a symbolic link", backends.ErrPrecondition, p)
	}
	return t, nil
}

func (t *target) close() { closeFD(t.fd) }

// accepts checks that a root of this kind can be mounted on the target.
func (t *target) accepts(kind uint16) error {
	switch {
	case kind == unix.S_IFLNK:
		return fmt.Errorf("%w: the source is a symbolic link", backends.ErrPrecondition)
	case kind == 0 || t.kind == 0 || (kind == unix.S_IFDIR) == (t.kind == unix.S_IFDIR):
		return nil
	case kind == unix.S_IFDIR:
		return fmt.Errorf("%w: the source is a directory, the target is not", backends.ErrPrecondition)
	}
	return fmt.Errorf("%w: the target is a directory, the source is not", backends.ErrPrecondition)
}

// attach puts a detached mount on the target.
func (t *target) attach(tree int) error {
	err := unix.MoveMount(tree, "", t.fd, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

// msFlags are the attributes as mount(2) takes them.
var msFlags = []struct {
	attr uint64
	ms   uintptr
	word string // in Info.Options
}{
	{AttrReadOnly, unix.MS_RDONLY, "ro"},
	{AttrNoSUID, unix.MS_NOSUID, "nosuid"},
	{AttrNoDev, unix.MS_NODEV, "nodev"},
	{AttrNoExec, unix.MS_NOEXEC, "noexec"},
	{AttrNoAtime, unix.MS_NOATIME, "noatime"},
	{AttrNoDirAtime, unix.MS_NODIRATIME, "nodiratime"},
	{AttrNoSymFollow, unix.MS_NOSYMFOLLOW, "nosymfollow"},
}

// attrOf reads the attributes of an existing mount.
func attrOf(i Info) uint64 {
	var attr uint64
	relatime := false
	for _, w := range i.Options {
		for _, f := range msFlags {
			if f.word == w {
				attr |= f.attr
			}
		}
		relatime = relatime || w == "relatime"
	}
	if !relatime && attr&AttrNoAtime == 0 {
		attr |= AttrStrictAtime // strictatime is what mountinfo has no word for
	}
	return attr
}

// msOf returns flags of mount(2) that name the atime attribute too, because a
// remount that names none keeps the old one.
func msOf(attr uint64) uintptr {
	var ms uintptr
	for _, f := range msFlags {
		if attr&f.attr != 0 {
			ms |= f.ms
		}
	}
	switch attr & attrAtime {
	case 0:
		ms |= unix.MS_RELATIME
	case AttrStrictAtime:
		ms |= unix.MS_STRICTATIME
	}
	return ms
}
