package mounttest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/internal/mountapi"
	"github.com/csikit/csikit/mounter/mnt"
)

// Kernel is a kernel that lacks a part of the mount interfaces.
type Kernel struct {
	Name string
	Hide mountapi.Part
}

// OnKernels runs test as root on each.
func OnKernels(t *testing.T, kernels []Kernel, test func(t *testing.T)) {
	t.Helper()
	testenv.Root(t)
	for _, k := range kernels {
		t.Run(k.Name, func(t *testing.T) {
			t.Cleanup(mountapi.Hide(k.Hide))
			test(t)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TempDir is a private tmpfs; what is mounted in it at the end of the test goes.
func TempDir(t testing.TB) string {
	t.Helper()
	d, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	must(t, unix.Mount("tmpfs", d, "tmpfs", 0, ""))
	must(t, unix.Mount("", d, "", unix.MS_PRIVATE, ""))
	t.Cleanup(func() {
		list, err := mnt.List()
		must(t, err)
		for _, i := range slices.Backward(list) {
			if strings.HasPrefix(i.Point, d+"/") {
				// EINVAL: gone already, with its peer.
				err := unix.Unmount(i.Point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
				if err != nil && !errors.Is(err, unix.EINVAL) {
					t.Error(err)
				}
			}
		}
		must(t, unix.Unmount(d, unix.MNT_DETACH))
	})
	return d
}

// Dir makes a directory and its parents.
func Dir(t testing.TB, elem ...string) string {
	t.Helper()
	p := filepath.Join(elem...)
	must(t, os.MkdirAll(p, 0o755))
	return p
}

// File makes a file that holds its own name.
func File(t testing.TB, elem ...string) string {
	t.Helper()
	p := filepath.Join(elem...)
	must(t, os.WriteFile(p, []byte(filepath.Base(p)), 0o644))
	return p
}

// HungFUSE mounts a FUSE file system whose server answers nothing; uid is whose
// it is. kill makes it a dead one.
func HungFUSE(t testing.TB, target string, uid int) (kill func()) {
	t.Helper()
	fd := testenv.FUSE(t, 0)
	kill = sync.OnceFunc(func() { must(t, syscall.Close(fd)) })
	t.Cleanup(kill)
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=0", fd, uid)
	must(t, unix.Mount("fuse", target, "fuse", 0, data))
	return kill
}

// DeadFUSE mounts a FUSE file system whose server is gone.
func DeadFUSE(t testing.TB, target string) {
	t.Helper()
	HungFUSE(t, target, 0)()
	if _, err := os.Stat(target); !mnt.IsCorrupted(err) {
		t.Fatalf("stat of a dead FUSE mount: %v", err)
	}
}
