package kmount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// follow returns path as mounter/mnt takes it: absolute, and without a symbolic
// link at its end. mount(8) and mount.Mounter follow those. Neither the file system
// at path nor the ones on the way are asked anything.
func follow(path string) (string, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("%w: path %q", backends.ErrInvalid, path)
	}
	abs := path
	if !filepath.IsAbs(path) {
		dir, err := os.Getwd()
		if err != nil {
			return "", err
		}
		abs = dir + "/" + path
	}
	abs = strings.TrimRight(abs, "/")
	if abs == "" {
		return "/", nil
	}
	if !strings.HasSuffix(abs, "/.") && !strings.HasSuffix(abs, "/..") && !isLink(abs) {
		return abs, nil
	}
	return held(abs, 0)
}

func isLink(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

// canonical is path as the mount table has it.
func canonical(path string) (string, error) {
	return held(path, unix.O_NOFOLLOW)
}

// held opens path without touching what it names, and reads its name.
func held(path string, flags int) (string, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	return name, errors.Join(err, os.NewSyscallError("close", unix.Close(fd)))
}

// forceUnmount is no error where nothing is mounted any more.
func forceUnmount(path string) error {
	err := unix.Unmount(path, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		if is, look := mnt.IsMountPoint(path); !is && (look == nil || errors.Is(look, fs.ErrNotExist)) {
			return nil
		}
	}
	return os.NewSyscallError("umount2", err)
}

// isFile reports whether path is there and no directory.
func isFile(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	return err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR
}
