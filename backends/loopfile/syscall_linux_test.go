package loopfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// TestKilledAfterEachSyscall does not depend on the steps that the code names:
// the kernel kills the process after the N-th call that changes something on
// disk, for N = 1, 2, ... until the operation survives.
func TestKilledAfterEachSyscall(t *testing.T) {
	testenv.Tool(t, "strace")
	if testing.Short() {
		t.Skip("about 60 processes under strace")
	}
	data := bytes.Repeat([]byte("d"), 4*mib)
	for op, calls := range map[string][]string{
		"create": {"mkdirat", "fallocate", "ftruncate", "fsync", "renameat2", "renameat"},
		"expand": {"fallocate", "ftruncate", "fsync", "renameat"},
		"delete": {"fsync", "renameat2", "unlinkat"},
	} {
		for _, call := range calls {
			t.Run(op+" "+call, func(t *testing.T) {
				o := testOptions(t)
				needThick(t, o)
				// strace counts for each thread apart, and a program has several: the
				// first survival need not be the end.
				died, survived := 0, 0
				for n := 1; survived < 3; n++ {
					v := fresh(t, o, op, data)
					killed := traced(t, order{Pool: o.Pool, Op: op, Name: "v", ID: v, Size: map[string]int64{"create": 4 * mib, "expand": 8 * mib}[op], Type: typeThick}, call, n)
					wantWhole(t, o, fmt.Sprintf("%s killed after %s %d", op, call, n), op, data)
					if killed {
						died++
					} else {
						survived++
					}
				}
				if died == 0 {
					t.Errorf("%s never calls %s: the test proves nothing", op, call)
				}
				t.Logf("killed %d times", died)
			})
		}
	}
}

// fresh makes a pool in which the operation has something to do.
func fresh(t *testing.T, o Options, op string, data []byte) (id string) {
	t.Helper()
	b := open(t, o)
	defer func() { _ = b.Close() }()
	for _, id := range list(t, b, 10) {
		remove(t, b, id)
	}
	if op == "create" {
		return ""
	}
	v := create(t, b, "v", 4*mib)
	if err := os.WriteFile(imgPath(b, v.ID), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return v.ID
}

// traced runs an order under strace and says whether it was killed.
func traced(t *testing.T, o order, call string, n int) bool {
	t.Helper()
	c := orderCommand(t, o)
	c.Args = append([]string{"strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=" + call,
		"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n)}, c.Args...)
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal(err)
	}
	c.Path = path
	c.Env = append(c.Env, "GOMAXPROCS=1", "GORACE=atexit_sleep_ms=0")
	out, err := c.CombinedOutput()
	var ee *exec.ExitError
	switch {
	case err == nil:
		return false
	case errors.As(err, &ee) && ee.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return true
	case strings.Contains(string(out), "ptrace"):
		t.Skipf("missing: ptrace: %s", out)
	}
	t.Fatalf("%v\n%s", err, out)
	return false
}

// wantWhole says that the next driver finds the volume as before or as after,
// with its data, and nothing else.
func wantWhole(t *testing.T, o Options, when, op string, data []byte) {
	t.Helper()
	b := open(t, o)
	defer func() { _ = b.Close() }()
	wantClean(t, o.Pool)
	v, err := b.FindVolume(t.Context(), request("v", 4*mib))
	if errors.Is(err, backends.ErrNotFound) {
		if op == "expand" {
			t.Errorf("%s: the volume is gone", when)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	fi := stat(t, imgPath(b, v.ID))
	if fi.Size() != v.Capacity || allocated(fi) < fi.Size() || (v.Capacity != 4*mib && (op != "expand" || v.Capacity != 8*mib)) {
		t.Errorf("%s: capacity %d, %d bytes, %d allocated", when, v.Capacity, fi.Size(), allocated(fi))
	}
	if op == "create" {
		return
	}
	got, err := os.ReadFile(imgPath(b, v.ID))
	if err != nil || !bytes.Equal(got[:len(data)], data) {
		t.Errorf("%s: data is lost: %v", when, err)
	}
}
