package mnt

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
)

func TestTableChanged(t *testing.T) {
	testenv.Root(t)
	fd, err := unix.Open(mountinfo, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(fd)
	check := func(want bool) {
		t.Helper()
		if got, err := tableChanged(fd); got != want || err != nil {
			t.Errorf("tableChanged = %v, %v; want %v", got, err, want)
		}
	}
	check(false)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	check(true)
	check(false)
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	check(true)
}
