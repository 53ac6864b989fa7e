package mnt

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// bindOld binds with mount(2), which follows symbolic links: it is given
// descriptors through /proc instead of paths.
func bindOld(source int, t *target, o BindOptions) error {
	if o.attr() != 0 {
		if err := t.copiesStayPlain(); err != nil {
			return err
		}
	}
	before, err := fdMountID(t.fd)
	if err != nil {
		return err
	}
	if err := mount2(procPath(source), procPath(t.fd), "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := finishBind(t.path, before, o); err != nil {
		_, undo := unmount(t.path, 0)
		return errors.Join(err, undo)
	}
	return nil
}

// copiesStayPlain refuses a bind with attributes below a shared mount: the
// copies in other namespaces are made by MS_BIND, and a remount here does not
// reach them. A pod would write to what was published read-only.
func (t *target) copiesStayPlain() error {
	shared, err := propagation(t.fd)
	if err != nil {
		return err
	}
	if shared {
		return fmt.Errorf("%w: this kernel lacks mount_setattr (Linux 5.12), and %s lies on a shared mount: "+
			"copies of the bind in other namespaces would stay writable", backends.ErrPrecondition, t.path)
	}
	return nil
}

// finishBind makes the fresh mount at p private and gives it its attributes.
func finishBind(p string, before uint64, o BindOptions) error {
	fd, err := openPath(p)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	id, err := fdMountID(fd)
	if err != nil {
		return err
	}
	if id == before {
		return fmt.Errorf("%s: the new mount is not there", p)
	}
	if err := mount2("", procPath(fd), "", unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if o.attr() == 0 {
		return nil
	}
	return remount(p, func(attr uint64) uint64 {
		if o.Attr&attrAtime != 0 {
			attr &^= attrAtime
		}
		return attr | o.attr()
	})
}

// remount changes the attributes of the mount at p. It must name all that are to
// stay, and reads them from mountinfo: statfs would ask a server.
func remount(p string, change func(attr uint64) uint64) error {
	fd, err := openPath(p)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	stack, err := At(p)
	if err != nil {
		return err
	}
	if len(stack) == 0 {
		return &os.PathError{Op: "remount", Path: p, Err: unix.EINVAL}
	}
	ms := msOf(change(attrOf(stack[0])))
	return mount2("", procPath(fd), "", unix.MS_REMOUNT|unix.MS_BIND|ms, "")
}

func mount2(source, target, fstype string, flags uintptr, data string) error {
	return os.NewSyscallError("mount", again(func() error {
		return unix.Mount(source, target, fstype, flags, data)
	}))
}
