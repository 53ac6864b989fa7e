package mnt

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/mounter/internal/mountapi"
)

// Bind mounts the directory or file source on target too. Mounts below source
// do not come along. The new mount belongs to no peer group: what is mounted
// below it later stays there. On failure nothing is left mounted.
//
// With mount_setattr(2) (Linux 5.12) the mount has its attributes from the
// first instant. Without it there is a moment in which it has its source's; and
// a copy that propagates to other namespaces, because target lies on a shared
// mount, would keep those for ever, so that there Bind with attributes is
// refused with [backends.ErrPrecondition] rather than done by half.
func Bind(source, target string, o BindOptions) error {
	p, err := clean(source)
	if err == nil {
		err = bindPath(p, target, o)
	}
	if err != nil {
		return fmt.Errorf("bind %s on %s: %w", source, target, err)
	}
	return nil
}

// BindFD is Bind of an open file or directory, which may be an O_PATH one; it
// must have been opened in this mount namespace.
func BindFD(file *os.File, target string, o BindOptions) error {
	conn, err := file.SyscallConn()
	if err == nil {
		ctl := conn.Control(func(fd uintptr) { err = bind(int(fd), target, o) })
		if ctl != nil {
			err = ctl
		}
	}
	if err != nil {
		return fmt.Errorf("bind %s (open file) on %s: %w", file.Name(), target, err)
	}
	return nil
}

func bindPath(source, target string, o BindOptions) error {
	fd, err := openPath(source)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return bind(fd, target, o)
}

func bind(source int, path string, o BindOptions) error {
	if err := (Options{Attr: o.Attr}).check(); err != nil {
		return err
	}
	t, err := openTarget(path)
	if err != nil {
		return err
	}
	defer t.close()
	if err := t.accepts(fileType(source)); err != nil {
		return err
	}
	if o.Owners != nil {
		return bindMapped(source, t, o)
	}
	why := error(unix.ENOSYS)
	if mountapi.Has(mountapi.Tree) {
		if why = bindTree(source, t, o); !missing(why) {
			return why
		}
	}
	if err := t.keepsAttr(o, why); err != nil {
		return err
	}
	return bindOld(source, t, o)
}

// bindTree makes the mount, gives it its attributes, and only then attaches it.
func bindTree(source int, t *target, o BindOptions) error { return bindAs(source, t, o, nil) }

func bindAs(source int, t *target, o BindOptions, userns *os.File) error {
	undo, err := attachTree(source, t, o, userns)
	if undo {
		_, left := unmount(t.path, 0)
		return errors.Join(err, left)
	}
	return err
}

// attachTree says with undo that it failed after the mount was attached.
//
// A process that starts while the tree is open would hold a copy of it until it
// has closed its descriptors, and keep the mount busy so long. Nothing under the
// lock walks a path or can wait for a file system.
func attachTree(source int, t *target, o BindOptions, userns *os.File) (undo bool, err error) {
	a := unix.MountAttr{Attr_set: o.attr(), Propagation: unix.MS_PRIVATE}
	if a.Attr_set&attrAtime != 0 {
		a.Attr_clr = attrAtime
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	tree, err := unix.OpenTree(source, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return false, os.NewSyscallError("open_tree", err)
	}
	defer closeFD(tree)
	if err := setAttr(tree, "", &a); err != nil {
		return false, err
	}
	if userns != nil {
		if err := mapOwners(tree, userns); err != nil {
			return false, err
		}
	}
	if err := t.attach(tree); err != nil {
		return false, err
	}
	// Attaching below a shared mount has made it shared.
	err = setAttr(tree, "", &unix.MountAttr{Propagation: unix.MS_PRIVATE})
	return err != nil, err
}

// OpenAside opens the mount at path as a mount of its own that is nowhere attached:
// a question about it that hangs does not keep the one at path busy. Before Linux
// 5.2 there is none, and path itself is opened.
func OpenAside(path string) (*os.File, error) {
	p, err := clean(path)
	if err != nil {
		return nil, err
	}
	if mountapi.Has(mountapi.Tree) {
		fd, err := unix.OpenTree(unix.AT_FDCWD, p, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
		if err == nil {
			return os.NewFile(uintptr(fd), p), nil
		}
		if !missing(err) && !errors.Is(err, unix.EINVAL) { // EINVAL: not to be cloned, as a part of another user's
			return nil, &os.PathError{Op: "open_tree", Path: p, Err: err}
		}
	}
	fd, err := openPath(p)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), p), nil
}

func setAttr(fd int, path string, a *unix.MountAttr) error {
	flags := uint(unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(fd, path, flags, a))
}

// SetReadOnly makes the mount at target read-only or writable again; the file
// system itself and other mounts of it stay as they are.
func SetReadOnly(target string, ro bool) error {
	if err := setReadOnly(target, ro); err != nil {
		return fmt.Errorf("set read-only=%v on %s: %w", ro, target, err)
	}
	return nil
}

func setReadOnly(path string, ro bool) error {
	p, err := cleanTarget(path)
	if err != nil {
		return err
	}
	if mountapi.Has(mountapi.Tree) {
		a := unix.MountAttr{Attr_set: AttrReadOnly}
		if !ro {
			a = unix.MountAttr{Attr_clr: AttrReadOnly}
		}
		if err := setAttr(unix.AT_FDCWD, p, &a); !missing(err) {
			return err
		}
	}
	return remount(p, func(attr uint64) uint64 {
		if ro {
			return attr | AttrReadOnly
		}
		return attr &^ AttrReadOnly
	})
}
