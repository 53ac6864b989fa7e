package testenv

import (
	"syscall"
	"testing"
)

// FUSE opens /dev/fuse, or skips the test where there is none.
func FUSE(t testing.TB, flags int) (fd int) {
	t.Helper()
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC|flags, 0)
	if err != nil {
		missing(t, "root", "/dev/fuse: "+err.Error())
	}
	return fd
}
