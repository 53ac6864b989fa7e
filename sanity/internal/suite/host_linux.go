package suite

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
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

// copyMounts has a process that has all mounts in a namespace of its own, as a container
// has those that were there when it was started, until end is called.
func copyMounts(ctx context.Context) (end func(), err error) {
	path, err := exec.LookPath("sleep")
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, path, "600")
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := c.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = c.Process.Kill() // it may have ended
		_ = c.Wait()         // it was killed
	}, nil
}
