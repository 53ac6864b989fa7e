package loopfile

import (
	"errors"
	"fmt"
	"os"
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
