package mnt

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	mountinfo = "/proc/self/mountinfo"
	listTries = 4
)

// List returns all mounts of this mount namespace in the order of mountinfo. Its
// time grows with their number (about 1.5 µs each); to look at one path there is
// [IsMountPoint]. When mounts come and go meanwhile it reads again, a few times:
// before Linux 5.8 such a list could miss mounts that were there all the time.
func List() ([]Info, error) {
	for try := 1; ; try++ {
		text, changed, err := readMountinfo()
		if err != nil {
			return nil, err
		}
		if !changed || try == listTries {
			return parse(text)
		}
	}
}

// readMountinfo reads the table, and asks the kernel whether it has changed since
// the file was opened.
func readMountinfo() (text []byte, changed bool, err error) {
	fd, err := unix.Open(mountinfo, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, &os.PathError{Op: "open", Path: mountinfo, Err: err}
	}
	defer closeFD(fd)
	for {
		text = slices.Grow(text, 16<<10)
		n, err := unix.Read(fd, text[len(text):cap(text)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, false, &os.PathError{Op: "read", Path: mountinfo, Err: err}
		}
		if n == 0 {
			break
		}
		text = text[:len(text)+n]
	}
	changed, err = tableChanged(fd)
	return text, changed, err
}

// tableChanged reports whether mounts came or went since fd was opened, or since
// it was asked last.
func tableChanged(fd int) (bool, error) {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
	err := again(func() error { _, err := unix.Poll(poll, 0); return err })
	return poll[0].Revents&unix.POLLPRI != 0, os.NewSyscallError("poll", err)
}

// At returns what is mounted at path, topmost first: none when it is no mount
// point. Mounts hidden below a mount on a parent directory are not at the path.
func At(path string) ([]Info, error) {
	p, err := clean(path)
	if err != nil {
		return nil, err
	}
	is, err := isMountPoint(p)
	if err != nil || !is {
		return nil, err
	}
	if stack, err := stackAt(p); err == nil {
		return stack, nil
	}
	id, err := mountID(p, unix.STATX_MNT_ID)
	if err != nil {
		return nil, err
	}
	list, err := List()
	if err != nil {
		return nil, err
	}
	stack := stackOf(list, int(id))
	if len(stack) == 0 {
		return nil, fmt.Errorf("%s: mount %d is not in %s", p, id, mountinfo)
	}
	return stack, nil
}

// stackOf returns the mount with this id and those below it at the same point: a
// mount on another's root is its child.
func stackOf(list []Info, id int) []Info {
	byID := make(map[int]Info, len(list))
	for _, i := range list {
		byID[i.ID] = i
	}
	var stack []Info
	for i, ok := byID[id]; ok; i, ok = byID[i.Parent] {
		if len(stack) > 0 && i.Point != stack[0].Point {
			break
		}
		delete(byID, i.ID) // the root of a namespace may be its own parent
		stack = append(stack, i)
	}
	return stack
}

// OfDevice returns the mounts of the file system with this device number in this
// mount namespace. btrfs shows a number of its own, and not its device's. Its
// time grows with the number of all mounts: about 0.6 µs each, and 1.5 before
// Linux 6.13.
func OfDevice(dev uint64) ([]Info, error) {
	if list, err := mountsOfDevice(dev); err == nil {
		return list, nil
	}
	for try := 1; ; try++ {
		text, changed, err := readMountinfo()
		if err != nil {
			return nil, err
		}
		if !changed || try == listTries {
			return parseDevice(text, dev)
		}
	}
}

// Propagation reports whether mounts that are made at path reach other mount
// namespaces: whether it lies on a shared mount. Kubelet's directory must, or pods
// see empty directories.
func Propagation(path string) (shared bool, err error) {
	p, err := clean(path)
	if err != nil {
		return false, err
	}
	fd, err := openPath(p)
	if err != nil {
		return false, err
	}
	defer closeFD(fd)
	return propagation(fd)
}

func propagation(fd int) (shared bool, err error) {
	if shared, err := sharedAt(fd); err == nil {
		return shared, nil
	}
	id, err := fdMountID(fd)
	if err != nil {
		return false, err
	}
	list, err := List()
	if err != nil {
		return false, err
	}
	for _, i := range list {
		if i.ID == int(id) {
			return i.Shared, nil
		}
	}
	return false, fmt.Errorf("mount %d is not in %s", id, mountinfo)
}

// below reports whether name is dir or lies in it.
func below(name, dir string) bool {
	return name == dir || dir == "/" || len(name) > len(dir) && name[:len(dir)] == dir && name[len(dir)] == '/'
}

// resolve returns p with symbolic links in its parent directories resolved, as
// mountinfo and /proc show it. The last component is not looked at.
func resolve(p string) (string, error) {
	if p == "/" {
		return p, nil
	}
	fd, err := openDir(path.Dir(p))
	if err != nil {
		return "", err
	}
	defer closeFD(fd)
	dir, err := os.Readlink(procPath(fd))
	if err != nil {
		return "", err
	}
	return path.Join(dir, path.Base(p)), nil
}
