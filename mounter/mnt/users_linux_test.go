package mnt_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/mnt"
)

// A mount that only another namespace still has is found.
func TestFindUsersInOtherNamespace(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "cat")
	p := mkdir(t, tempDir(t), "p")
	must(t, unix.Mount("none", p, "tmpfs", 0, ""))
	dev := top(t, p).Dev
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	must(t, err)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close() // cat ends
		must(t, cmd.Wait())
	})
	if was, err := mnt.Unmount(p); !was || err != nil {
		t.Fatal(was, err)
	}
	want := fmt.Sprintf("mount %s in the namespace of process %d (cat)", p, cmd.Process.Pid)
	if got := mnt.FindUsers(dev); !slices.Contains(got, want) {
		t.Errorf("FindUsers = %q, want %q", got, want)
	}
}

// A process that has the device open is found.
func TestFindUsersOpenDevice(t *testing.T) {
	testenv.Root(t)
	fd, dev := idleDisk(t)
	defer unix.Close(fd)
	want := fmt.Sprintf("process %d (", os.Getpid())
	if got := mnt.FindUsers(dev); !slices.ContainsFunc(got, func(s string) bool {
		return strings.HasPrefix(s, want) && strings.HasSuffix(s, fmt.Sprintf("by fd/%d", fd))
	}) {
		t.Errorf("FindUsers(%#x) = %q", dev, got)
	}
}

// idleDisk opens a disk that is not mounted: of one that is, more mounts may be
// found than the report has room for. O_PATH: a container may not be allowed to
// open the disk itself.
func idleDisk(t *testing.T) (fd int, dev uint64) {
	t.Helper()
	disks, err := os.ReadDir("/sys/block")
	must(t, err)
	for _, d := range disks {
		fd, err := unix.Open("/dev/"+d.Name(), unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		must(t, unix.Fstat(fd, &st))
		mounts, err := mnt.OfDevice(uint64(st.Rdev)) //nolint:unconvert // 32 bits on some platforms
		must(t, err)
		if len(mounts) == 0 {
			return fd, uint64(st.Rdev) //nolint:unconvert // as above
		}
		unix.Close(fd)
	}
	t.Skip("missing: a disk that is not mounted")
	return -1, 0
}
