package mnt_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/internal/mountapi"
	"github.com/csikit/csikit/mounter/mnt"
)

// kernels are the interfaces with which every test of a mount runs.
var kernels = []struct {
	name string
	hide mountapi.Part
}{
	{"new", mountapi.None},
	{"old", mountapi.All},
	{"without statx root", mountapi.MountRoot},
	{"without statmount", mountapi.Statmount | mountapi.UniqueID},
}

// onKernels runs test as root with each of the interfaces.
func onKernels(t *testing.T, test func(t *testing.T)) {
	testenv.Root(t)
	for _, k := range kernels {
		t.Run(k.name, func(t *testing.T) {
			t.Cleanup(mountapi.Hide(k.hide))
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

// tempDir is t.TempDir, private, with everything below it unmounted at the end.
func tempDir(t testing.TB) string {
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

func mkdir(t testing.TB, elem ...string) string {
	t.Helper()
	p := filepath.Join(elem...)
	must(t, os.MkdirAll(p, 0o755))
	return p
}

func mkfile(t testing.TB, elem ...string) string {
	t.Helper()
	p := filepath.Join(elem...)
	must(t, os.WriteFile(p, []byte(filepath.Base(p)), 0o644))
	return p
}

func bind(t testing.TB, source, target string) {
	t.Helper()
	must(t, unix.Mount(source, target, "", unix.MS_BIND, ""))
}

// hungFUSE mounts a FUSE file system whose daemon answers nothing; uid is whose
// it is. kill makes it a dead one.
func hungFUSE(t testing.TB, target string, uid int) (kill func()) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("missing: /dev/fuse: ", err)
	}
	kill = sync.OnceFunc(func() { must(t, unix.Close(fd)) })
	t.Cleanup(kill)
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=0", fd, uid)
	must(t, unix.Mount("fuse", target, "fuse", 0, data))
	return kill
}

// deadFUSE mounts a FUSE file system whose daemon is gone.
func deadFUSE(t testing.TB, target string) {
	t.Helper()
	hungFUSE(t, target, 0)()
	if _, err := os.Stat(target); !mnt.IsCorrupted(err) {
		t.Fatalf("stat of a dead FUSE mount: %v", err)
	}
}

func isMount(t testing.TB, path string) bool {
	t.Helper()
	is, err := mnt.IsMountPoint(path)
	must(t, err)
	return is
}
