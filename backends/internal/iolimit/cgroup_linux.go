package iolimit

import (
	"os"

	"golang.org/x/sys/unix"
)

// isCgroup2 says whether a directory is a cgroup: a file of that name elsewhere
// limits nobody.
func isCgroup2(dir string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return uint32(st.Type) == unix.CGROUP2_SUPER_MAGIC, nil
}
