package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const mkfsKills = 50

// TestMkfsKilled kills mkfs at random moments, in odd rounds together with the
// driver, as a container's end does. Whatever was left on the device, the retry
// makes the volume usable; once it was used it is never formatted again.
func TestMkfsKilled(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			shim := newShim(t, fsType)
			d := newDriver(t, "PATH="+shim.dir+":"+os.Getenv("PATH"))
			longest := shim.measure(t, d, fsType)
			for i := range mkfsKills {
				v := d.newVolume(numbered("mkfs-"+fsType, i), fsType)
				must(t, v.create, "create")
				withDriver := i%2 == 1
				shim.order(t, time.Duration(rand.Int64N(int64(longest))), withDriver)
				err := v.stage(t.Context())
				if withDriver {
					if err := d.Kill(); err != nil {
						t.Fatal(err)
					}
					d.start()
				} else if err == nil {
					t.Errorf("round %d: stage says OK, and its mkfs was killed", i)
				}
				v.surviveMkfs(t, shim)
			}
		})
	}
}

// TestOrphanedMkfs kills the driver and not its mkfs, which goes on a while
// later: until then the device is left alone, and afterwards it is one volume.
func TestOrphanedMkfs(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			shim := newShim(t, fsType)
			d := newDriver(t, "PATH="+shim.dir+":"+os.Getenv("PATH"))
			longest := shim.measure(t, d, fsType)
			for i := range 8 {
				v := d.newVolume(numbered("orphan-"+fsType, i), fsType)
				must(t, v.create, "create")
				shim.orderOrphan(t, time.Duration(rand.Int64N(int64(longest))))
				_ = v.stage(t.Context()) // nobody is left to answer
				if err := d.Kill(); err != nil {
					t.Fatal(err)
				}
				d.start()
				v.surviveMkfs(t, shim)
			}
		})
	}
}

// surviveMkfs takes a volume whose first stage was cut through a whole life, and
// looks that it is one file system from its first use on.
func (v *volume) surviveMkfs(t *testing.T, shim *shim) {
	t.Helper()
	retry(t, v.stage, "stage after a killed mkfs")
	retry(t, v.publish, "publish")
	sum := v.write(t)
	runs := shim.runs(t)
	retry(t, v.unpublish, "unpublish")
	retry(t, v.unstage, "unstage")
	retry(t, v.stage, "second stage")
	retry(t, v.publish, "second publish")
	v.reads(t, sum)
	if n := shim.runs(t); n != runs {
		t.Errorf("mkfs ran %d times more on a volume that was in use", n-runs)
	}
	retry(t, v.unpublish, "last unpublish")
	retry(t, v.unstage, "last unstage")
	retry(t, v.delete, "delete")
	_ = os.Remove(v.staging)
}

// shim is a directory for the driver's PATH with an mkfs that is this test
// binary. It runs the real one, and kills it when it finds an order to.
type shim struct{ dir, real string }

func newShim(t *testing.T, fsType string) *shim {
	t.Helper()
	name := "mkfs." + fsType
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("missing: program %s", name)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &shim{dir: t.TempDir(), real: path}
	if err := os.Symlink(exe, filepath.Join(s.dir, name)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, filepath.Join(s.dir, "real")); err != nil {
		t.Fatal(err)
	}
	return s
}

// order has the next mkfs killed after a while, and with driver its parent too.
func (s *shim) order(t *testing.T, after time.Duration, driver bool) {
	t.Helper()
	s.write(t, fmt.Sprintf("%d %t %t", after, driver, false))
}

// orderOrphan has the parent of the next mkfs killed after a while, and mkfs
// itself stopped for a longer one.
func (s *shim) orderOrphan(t *testing.T, after time.Duration) {
	t.Helper()
	s.write(t, fmt.Sprintf("%d %t %t", after, true, true))
}

func (s *shim) write(t *testing.T, order string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "order"), []byte(order), 0o600); err != nil {
		t.Fatal(err)
	}
}

// runs is how often mkfs was started so far.
func (s *shim) runs(t *testing.T) int {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(s.dir, "runs"))
	if err != nil {
		t.Fatal(err)
	}
	return len(log)
}

// measure lets one mkfs end and tells how long it took.
func (s *shim) measure(t *testing.T, d *driver, fsType string) time.Duration {
	t.Helper()
	v := d.newVolume("measure-"+fsType, fsType)
	for _, step := range []func(context.Context) error{v.create, v.stage, v.unstage, v.delete} {
		must(t, step, "a life that nobody disturbs")
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "took"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(n)
}

// killedMkfs is this binary as mkfs.
func killedMkfs() int {
	dir := filepath.Dir(os.Args[0])
	runs, err := os.OpenFile(filepath.Join(dir, "runs"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 99
	}
	_, _ = runs.WriteString("x")
	_ = os.WriteFile(filepath.Join(dir, "argv"), []byte(strings.Join(append(os.Args, os.Environ()...), "\n")), 0o600)
	var after time.Duration
	var driver, orphan bool
	order := filepath.Join(dir, "order")
	if b, err := os.ReadFile(order); err == nil {
		_, _ = fmt.Sscanf(string(b), "%d %t %t", &after, &driver, &orphan)
		_ = os.Remove(order)
	}
	cmd := exec.Command(filepath.Join(dir, "real"), os.Args[1:]...)
	cmd.Args[0] = filepath.Base(os.Args[0]) // mke2fs looks at it
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 98
	}
	if after > 0 {
		time.Sleep(after)
		if orphan {
			_ = cmd.Process.Signal(syscall.SIGSTOP)
		}
		if driver {
			_ = syscall.Kill(os.Getppid(), syscall.SIGKILL)
		}
		if orphan {
			time.Sleep(300 * time.Millisecond)
			_ = cmd.Process.Signal(syscall.SIGCONT)
			_ = cmd.Wait()
			return 0
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return 137
	}
	if err := cmd.Wait(); err != nil {
		return 1
	}
	_ = os.WriteFile(filepath.Join(dir, "took"), fmt.Append(nil, int64(time.Since(start))), 0o600)
	return 0
}
