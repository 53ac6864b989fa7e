package mnt

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/mounter/internal/mountapi"
)

// lookFlags make statx answer from what the kernel knows: no question to a
// server, no automount, no following.
const lookFlags = unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT | unix.AT_SYMLINK_NOFOLLOW

// IsMountPoint reports whether something is mounted at path: the path leads to
// the root of a mount. It costs one system call, asks no server and works on
// mounts that are dead. A symbolic link is no mount point, wherever it leads;
// nor is a path whose mount is hidden below another. The error of a path that
// does not exist is [io/fs.ErrNotExist].
func IsMountPoint(path string) (bool, error) {
	p, err := clean(path)
	if err != nil {
		return false, err
	}
	return isMountPoint(p)
}

func isMountPoint(p string) (bool, error) {
	if mountapi.Has(mountapi.MountRoot) {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, p, lookFlags, 0, &st)
		switch {
		case err == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0:
			return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
		case err != nil && !IsCorrupted(err) && !missing(err):
			return false, &os.PathError{Op: "statx", Path: p, Err: err}
		}
	}
	return isMountPointByWalk(p)
}

// isMountPointByWalk looks at the step from the parent directory to the last
// name: it crosses into another mount, or not. It asks the file system nothing.
func isMountPointByWalk(p string) (bool, error) {
	if p == "/" {
		return true, nil
	}
	dir, err := openDir(path.Dir(p))
	if err != nil {
		return false, err
	}
	defer closeFD(dir)
	if mountapi.Has(mountapi.Openat2) {
		fd, err := unix.Openat2(dir, path.Base(p), &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_NO_XDEV,
		})
		switch {
		case err == nil:
			closeFD(fd)
			return false, nil
		case errors.Is(err, unix.EXDEV):
			return true, nil
		case !missing(err):
			return false, &os.PathError{Op: "openat2", Path: p, Err: err}
		}
	}
	fd, err := unix.Openat(dir, path.Base(p), unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, &os.PathError{Op: "openat", Path: p, Err: err}
	}
	defer closeFD(fd)
	a, err := fdMountID(dir)
	if err != nil {
		return false, err
	}
	b, err := fdMountID(fd)
	return a != b, err
}

// ID returns the id of the mount that path lies on. From Linux 6.8 on no other
// mount gets the same id until the next boot; before that an id may be used again
// after an unmount, and it is the one of [Info].
func ID(path string) (uint64, error) {
	p, err := clean(path)
	if err != nil {
		return 0, err
	}
	if mountapi.Has(mountapi.UniqueID) {
		return mountID(p, unix.STATX_MNT_ID_UNIQUE)
	}
	return mountID(p, unix.STATX_MNT_ID)
}

// mountID returns the id that mask asks for, or the plain one.
func mountID(p string, mask int) (uint64, error) {
	if mountapi.Has(mountapi.MountRoot) {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, p, lookFlags, mask|unix.STATX_MNT_ID, &st)
		switch {
		case err == nil && int(st.Mask)&(mask|unix.STATX_MNT_ID) != 0:
			return st.Mnt_id, nil
		case err != nil && !IsCorrupted(err) && !missing(err):
			return 0, &os.PathError{Op: "statx", Path: p, Err: err}
		}
	}
	fd, err := openPath(p)
	if err != nil {
		return 0, err
	}
	defer closeFD(fd)
	return fdMountID(fd)
}

// fdMountID reads the mount id of a descriptor, as Linux gives it since 3.15.
func fdMountID(fd int) (uint64, error) {
	name := "/proc/self/fdinfo/" + strconv.Itoa(fd)
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, fmt.Errorf("%s: no mnt_id", name)
}
