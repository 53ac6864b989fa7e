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

// keepsAttr refuses a bind with attributes below a shared mount when only
// mount(2) can be used: MS_BIND makes the copies in other namespaces at once, and
// a remount here does not reach them. A pod would write to what was published
// read-only. why is what forbids the newer calls.
func (t *target) keepsAttr(o BindOptions, why error) error {
	if o.attr() == 0 {
		return nil
	}
	shared, err := propagation(t.fd)
	if err != nil || !shared {
		return err
	}
	return fmt.Errorf("%w: mount_setattr (Linux 5.12) cannot be used (%w), and the target lies on a shared mount: "+
		"copies of the bind in other namespaces would stay writable", backends.ErrPrecondition, why)
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
	fd, top, err := openTop(p)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	ms := msOf(change(attrOf(top)))
	return mount2("", procPath(fd), "", unix.MS_REMOUNT|unix.MS_BIND|ms, "")
}

func mount2(source, target, fstype string, flags uintptr, data string) error {
	return os.NewSyscallError("mount", again(func() error {
		return unix.Mount(source, target, fstype, flags, data)
	}))
}

// openTop opens the root of the mount at p, which a remount is about, and says what
// is mounted there.
func openTop(p string) (fd int, top Info, err error) {
	if fd, err = openPath(p); err != nil {
		return -1, Info{}, err
	}
	stack, err := At(p)
	if err == nil && len(stack) == 0 {
		err = &os.PathError{Op: "remount", Path: p, Err: unix.EINVAL}
	}
	if err != nil {
		closeFD(fd)
		return -1, Info{}, err
	}
	return fd, stack[0], nil
}
