package mnt

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/csikit/csikit/backends"
)

// IsCorrupted reports whether err, got by looking at a path (stat, open, statfs,
// readdir), says that the mount there is broken: its server or daemon is gone, or
// its disk is. Such a mount must be unmounted without being looked at;
// [IsMountPoint], [Unmount] and [Unwind] work on it. These are the classes of
// k8s.io/mount-utils. It says nothing about errors of [Mount].
func IsCorrupted(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.ENOTCONN,    // FUSE daemon dead
		syscall.ESTALE,      // NFS: the export or the root is gone
		syscall.EIO,         // disk failed, file system shut down
		syscall.EACCES,      // FUSE of another user; NFS and CIFS that lost their rights
		syscall.EHOSTDOWN,   // CIFS server gone
		syscall.EWOULDBLOCK, // as mount-utils has it
		syscall.ENODEV,      // device pulled
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// clean returns the path without trailing slashes, which would make the kernel
// follow a symbolic link, and refuses what has no last component to look at.
func clean(path string) (string, error) {
	if !strings.HasPrefix(path, "/") {
		return "", fmt.Errorf("%w: path %q is not absolute", backends.ErrInvalid, path)
	}
	if strings.IndexByte(path, 0) >= 0 {
		return "", fmt.Errorf("%w: path %q has a NUL byte", backends.ErrInvalid, path)
	}
	p := strings.TrimRight(path, "/")
	if p == "" {
		return "/", nil
	}
	if strings.HasSuffix(p, "/.") || strings.HasSuffix(p, "/..") {
		return "", fmt.Errorf("%w: path %q does not end in a name", backends.ErrInvalid, path)
	}
	return p, nil
}

// cleanTarget is clean for what is to be changed. "/" is never that: umount2
// of it makes the root file system read-only.
func cleanTarget(path string) (string, error) {
	p, err := clean(path)
	if p == "/" {
		return "", fmt.Errorf("%w: the target is /", backends.ErrInvalid)
	}
	return p, err
}
