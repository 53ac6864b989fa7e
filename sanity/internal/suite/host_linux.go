package suite

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// fileSystemSize is in bytes, as df shows it.
func fileSystemSize(path string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return int64(st.Blocks) * int64(st.Bsize), nil //nolint:unconvert // Bsize has 32 bits on some systems
}

// groupOf is the group that a file belongs to.
func groupOf(path string) (gid uint32, mode fs.FileMode, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, fmt.Errorf("%s: no group is to be seen", path)
	}
	return sys.Gid, st.Mode(), nil
}
