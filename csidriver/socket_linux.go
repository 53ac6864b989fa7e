package csidriver

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSocketName is the longest name that fits into sockaddr_un.
const maxSocketName = 107

// socketName is a name of path that the kernel takes: a long one goes through
// the open directory.
func socketName(dir *os.File, path string) (string, error) {
	if len(path) <= maxSocketName {
		return path, nil
	}
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	if len(short) > maxSocketName {
		return "", fmt.Errorf("the name of the socket is too long: %d bytes", len(filepath.Base(path)))
	}
	return short, nil
}

// bornWith sets the permission bits before bind makes the file, so that there is
// no moment at which others could connect. The umask of the process, which is
// not ours to change, can only take bits away.
func bornWith(mode fs.FileMode) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), uint32(mode.Perm())) }); cerr != nil {
			return cerr
		}
		return err
	}
}
