package nfs

import "syscall"

// workerAttr puts a worker into a process group of its own, and into a mount
// namespace of its own unless its mounts are for others: what it mounts there goes
// with it, however it ends.
func workerAttr(within bool) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if !within {
		a.Unshareflags = syscall.CLONE_NEWNS
	}
	return a
}

// program is this one, also when its file was replaced or removed since.
func program() (string, error) { return "/proc/self/exe", nil }
