package loopfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/mnt"
)

// TestNodeKilledAfterEachSyscall kills the driver, and the tools that it runs,
// after the N-th call of each system call by which a volume comes and goes. The
// next driver is asked to undo it, or to go on.
func TestNodeKilledAfterEachSyscall(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "strace")
	if testing.Short() {
		t.Skip("about 130 processes under strace")
	}
	for _, fsType := range []string{"ext4", ""} {
		for _, call := range []string{"ioctl", "fsync", "renameat2", "unlinkat", "pwrite64", "move_mount", "umount2"} {
			t.Run(fmt.Sprintf("%q %s", fsType, call), func(t *testing.T) {
				died, survived := 0, 0
				for n := 1; survived < 2 && n < 60; n++ {
					if nodeKilled(t, fsType, call, n) {
						died++
					} else {
						survived++
					}
				}
				t.Logf("killed %d times", died)
			})
		}
	}
}

func nodeKilled(t *testing.T, fsType, call string, n int) (died bool) {
	t.Helper()
	o := testOptions(t)
	b := open(t, o)
	v := create(t, b, "v", 64*mib, paramType, typeThin)
	_ = b.Close()
	work := order{Pool: o.Pool, Op: "life", ID: v.ID, Type: fsType, Dir: t.TempDir()}
	died = traced(t, work, call, n)
	when := fmt.Sprintf("%q killed after %s %d", fsType, call, n)
	b = open(t, o)
	e, err := startNode(t.Context(), b, work)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	defer func() { _ = e.Close() }()
	if n%2 == 0 {
		if err := errors.Join(e.do(t.Context()), e.do(t.Context())); err != nil {
			t.Errorf("%s: go on: %v", when, err)
		}
		if m := mountsBelow(t, work.Dir); fsType != "" && len(m) != 2 || fsType == "" && len(m) != 1 {
			t.Errorf("%s: mounts %q", when, m)
		}
	}
	if err := e.undo(t.Context()); err != nil {
		t.Errorf("%s: undo: %v", when, err)
	}
	if m := mountsBelow(t, work.Dir); len(m) > 0 {
		t.Errorf("%s: mounts left: %q", when, m)
	}
	if l := loopsOf(t, b, v.ID); len(l) > 0 {
		t.Errorf("%s: attached to %q", when, l)
	}
	if _, err := os.Lstat(e.target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: the target is left: %v", when, err)
	}
	if v := e.Volumes(); len(v) > 0 {
		t.Errorf("%s: records left: %q", when, v)
	}
	remove(t, b, v.ID)
	if t.Failed() {
		t.FailNow()
	}
	return died
}

func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	all, err := mnt.List()
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(i mnt.Info) bool { return !strings.HasPrefix(i.Point, dir+"/") })
	var points []string
	for _, i := range all {
		points = append(points, i.Point)
	}
	return points
}

// TestInlineVolume is the life of a pod's own volume with the real node engine,
// and a driver that is started anew in the middle.
func TestInlineVolume(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			testenv.Root(t)
			testenv.Tool(t, "mkfs."+fs)
			o := testOptions(t)
			o.EphemeralMax = 1 << 30
			work := order{Pool: o.Pool, Op: "pod", ID: "csi-pod", Name: "320Mi", Type: fs, Dir: t.TempDir()}
			b, e := startPod(t, o, work)
			for range 2 {
				if err := e.do(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			file := filepath.Join(e.target, "f")
			if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			_ = e.Close()
			_ = b.Close()
			b, e = startPod(t, o, work)
			if err := e.do(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(file); err != nil || string(got) != "data" {
				t.Errorf("after a restart: %q, %v", got, err)
			}
			for range 2 {
				if err := e.undo(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			wantNoPod(t, b, e, fs)
		})
	}
}

func startPod(t *testing.T, o Options, work order) (*Backend, *node) {
	t.Helper()
	b := open(t, o)
	e, err := startNode(t.Context(), b, work)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return b, e
}

// wantNoPod says that nothing is left of a pod's volume.
func wantNoPod(t *testing.T, b *Backend, e *node, when string) {
	t.Helper()
	b.purges.wait()
	if left := entries(t, b.o.Pool, volumesDir); len(left) > 0 {
		t.Errorf("%s: volumes left: %q", when, left)
	}
	wantClean(t, b.o.Pool)
	if m := mountsBelow(t, e.o.Dir); len(m) > 0 {
		t.Errorf("%s: mounts left: %q", when, m)
	}
	if left := loopsBelow(t, b.o.Pool); len(left) > 0 {
		t.Errorf("%s: loop devices left: %q", when, left)
	}
	if _, err := os.Lstat(e.target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: the target is left: %v", when, err)
	}
	if v := e.Volumes(); len(v) > 0 {
		t.Errorf("%s: records left: %q", when, v)
	}
}

// loopsBelow are the loop devices on files of a pool, deleted ones among them.
func loopsBelow(t *testing.T, pool string) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(files, func(f string) bool {
		b, err := os.ReadFile(f)
		return err != nil || !strings.Contains(string(b), pool+"/") // a chroot may not know the root of the path
	})
}

// TestInlineKilledAfterEachSyscall kills the driver, and the tools that it runs, in
// the life of a pod's own volume. kubelet then asks for it again, or unpublishes.
func TestInlineKilledAfterEachSyscall(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "strace")
	if testing.Short() {
		t.Skip("about 150 processes under strace")
	}
	for _, call := range []string{"ioctl", "fsync", "renameat2", "renameat", "unlinkat", "mkdirat", "ftruncate", "pwrite64", "move_mount", "umount2"} {
		t.Run(call, func(t *testing.T) {
			died, survived := 0, 0
			for n := 1; survived < 2 && n < 60; n++ {
				if inlineKilled(t, call, n) {
					died++
				} else {
					survived++
				}
			}
			t.Logf("killed %d times", died)
		})
	}
}

func inlineKilled(t *testing.T, call string, n int) (died bool) {
	t.Helper()
	o := testOptions(t)
	o.EphemeralMax = 1 << 30
	work := order{Pool: o.Pool, Op: "pod", ID: "csi-pod", Name: "64Mi", Type: "ext4", Dir: t.TempDir()}
	_ = open(t, o).Close() // makes the pool
	died = traced(t, work, call, n)
	when := fmt.Sprintf("killed after %s %d", call, n)
	b, e := startPod(t, o, work)
	if n%2 == 0 {
		if err := errors.Join(e.do(t.Context()), e.do(t.Context())); err != nil {
			t.Errorf("%s: go on: %v", when, err)
		} else if err := os.WriteFile(filepath.Join(e.target, "g"), []byte("data"), 0o600); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	if err := e.undo(t.Context()); err != nil {
		t.Errorf("%s: undo: %v", when, err)
	}
	wantNoPod(t, b, e, when)
	_ = e.Close()
	_ = b.Close()
	if t.Failed() {
		t.FailNow()
	}
	return died
}
