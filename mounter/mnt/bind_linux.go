package mnt

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/mounter/internal/mountapi"
)

// source is what to bind: a path, or the open file fd when path is empty.
type source struct {
	fd   int
	path string
}

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
	src, err := cleanSource(source)
	if err == nil {
		err = bind(src, target, o)
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
		ctl := conn.Control(func(fd uintptr) { err = bind(source{fd: int(fd)}, target, o) })
		err = errors.Join(err, ctl)
	}
	if err != nil {
		return fmt.Errorf("bind %s (open file) on %s: %w", file.Name(), target, err)
	}
	return nil
}

func cleanSource(path string) (source, error) {
	p, err := clean(path)
	return source{unix.AT_FDCWD, p}, err
}

func bind(src source, path string, o BindOptions) error {
	if err := (Options{Attr: o.Attr}).check(); err != nil {
		return err
	}
	t, err := openTarget(path)
	if err != nil {
		return err
	}
	defer t.close()
	if mountapi.Has(mountapi.Tree) {
		if err := bindTree(src, t, o); !missing(err) {
			return err
		}
	}
	return bindOld(src, t, o)
}

// bindTree makes the mount, gives it its attributes, and only then attaches it.
func bindTree(src source, t *target, o BindOptions) error {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_NO_AUTOMOUNT | unix.AT_SYMLINK_NOFOLLOW)
	if src.path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	tree, err := unix.OpenTree(src.fd, src.path, flags)
	if err != nil {
		return os.NewSyscallError("open_tree", err)
	}
	err = attachTree(tree, t, o)
	closeFD(tree) // before an unmount: it keeps the mount busy
	var undo *undoError
	if errors.As(err, &undo) {
		_, left := unmount(t.path, 0)
		return errors.Join(undo.err, left)
	}
	return err
}

// undoError is a failure after the mount was attached.
type undoError struct{ err error }

func (e *undoError) Error() string { return e.err.Error() }

func attachTree(tree int, t *target, o BindOptions) error {
	if err := t.accepts(fileType(tree)); err != nil {
		return err
	}
	a := unix.MountAttr{Attr_set: o.attr(), Propagation: unix.MS_PRIVATE}
	if a.Attr_set&attrAtime != 0 {
		a.Attr_clr = attrAtime
	}
	if err := setAttr(tree, "", &a); err != nil {
		return err
	}
	if err := t.attach(tree); err != nil {
		return err
	}
	// Attaching below a shared mount has made it shared.
	if err := setAttr(tree, "", &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
		return &undoError{err}
	}
	return nil
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
	p, err := clean(path)
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
