package walk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/mounter/mnt"
)

// MountsBelow are the mount points below a directory.
func MountsBelow(dir string) ([]string, error) {
	all, err := mnt.List()
	if err != nil {
		return nil, err
	}
	var points []string
	for _, m := range all {
		if strings.HasPrefix(m.Point, dir+"/") {
			points = append(points, m.Point)
		}
	}
	return points, nil
}

// mountLines is what the kernel says of the mounts at path, topmost first.
func mountLines(path string) ([]string, error) {
	stack, err := mnt.At(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lines := make([]string, 0, len(stack))
	for _, m := range stack {
		lines = append(lines, fmt.Sprintf("%s %s on %s (%s)", m.FSType, m.Source, m.Point, strings.Join(m.Options, ",")))
	}
	return lines, nil
}

// fileSystemSize is in bytes, as df shows it.
func fileSystemSize(path string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return int64(st.Blocks) * int64(st.Bsize), nil //nolint:unconvert // Bsize has 32 bits on some systems
}

// dropCache has the next read come from the disk. Where it cannot, the read may
// come from memory, which is no worse than what a pod sees.
func dropCache(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
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
