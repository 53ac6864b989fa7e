package mnt

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// Figures asks the file system that f lies on (fstatfs(2)). A server that is dead
// keeps it waiting.
func Figures(f *os.File) (backends.VolumeStats, error) {
	var st unix.Statfs_t
	if err := again(func() error { return unix.Fstatfs(int(f.Fd()), &st) }); err != nil {
		return backends.VolumeStats{}, err
	}
	unit := int64(st.Frsize) //nolint:unconvert // 32 bits on some platforms
	if unit == 0 {
		unit = int64(st.Bsize) //nolint:unconvert // 32 bits on some platforms
	}
	return backends.VolumeStats{
		Total:      int64(st.Blocks) * unit,
		Available:  int64(st.Bavail) * unit,
		Used:       int64(st.Blocks-st.Bfree) * unit,
		Inodes:     int64(st.Files),
		InodesFree: int64(st.Ffree),
		InodesUsed: int64(st.Files - st.Ffree),
	}, nil
}

// GiveToGroup gives a directory, and what is made in it later, to a group, and only
// once: whoever mounts it in a pod changes what is below, if that is wanted, and may
// take rights back.
func GiveToGroup(d *os.File, gid int) error {
	st, err := d.Stat()
	if err != nil {
		return err
	}
	if own, ok := st.Sys().(*syscall.Stat_t); ok && uint64(own.Gid) == uint64(gid) && st.Mode()&fs.ModeSetgid != 0 {
		return nil
	}
	if err := d.Chown(-1, gid); err != nil {
		return err
	}
	return d.Chmod(st.Mode() | fs.ModeSetgid | 0o070)
}
