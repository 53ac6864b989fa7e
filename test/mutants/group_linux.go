package mutants

import (
	"io/fs"
	"syscall"
)

// groupOf is the group that owns a file.
func groupOf(st fs.FileInfo) uint32 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Gid
	}
	return 0
}
