package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/driverproc"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/mnt"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const loopfile = "github.com/csikit/csikit/examples/loopfile"

// build makes a driver with fault points, without the race detector; overlay: of
// files that are replaced, "" for none.
func build(t testing.TB, overlay string) string {
	t.Helper()
	testenv.Tool(t, "go")
	bin := filepath.Join(t.TempDir(), "loopfile")
	args := []string{"build", "-tags", "grpcnotrace,csikit_faults", "-o", bin}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	if out, err := exec.CommandContext(t.Context(), "go", append(args, loopfile)...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// bench is what the cases of a run share.
type bench struct {
	bin   string
	dir   string            // of the cases
	pools map[string]string // directories on file systems of a kind: "copy", "reflink"

	settles time.Duration // what a world may take to settle

	mu  sync.Mutex
	n   int
	ids map[string]string // by scenario and name, from the undisturbed run
}

// newBench has pools on the host's own file system and on an xfs.
func newBench(t *testing.T, bin string) *bench {
	t.Helper()
	testenv.Root(t)
	testenv.Tool(t, "strace", "mkfs.ext4", "mkfs.xfs", "fsfreeze", "flock", "setpriv")
	dir, err := os.MkdirTemp("", "c") //nolint:usetesting // the paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{bin: bin, dir: dir, ids: map[string]string{}, pools: map[string]string{}, settles: patience}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for kind, mkfs := range map[string][]string{
		"copy": {"mkfs.ext4", "-q", "-O", "^metadata_csum_seed"}, "reflink": {"mkfs.xfs", "-q", "-m", "reflink=1"},
	} {
		img, at := filepath.Join(dir, kind+".img"), filepath.Join(dir, kind)
		if err := errors.Join(os.Mkdir(at, 0o700), os.WriteFile(img, nil, 0o600), os.Truncate(img, 16<<30)); err != nil {
			t.Fatal(err)
		}
		for _, argv := range [][]string{append(mkfs, img), {"mount", "-o", "loop", img, at}} {
			if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", argv, err, out)
			}
		}
		t.Cleanup(func() {
			if err := unix.Unmount(at, 0); err != nil {
				t.Errorf("unmount %s: %v", at, err)
			}
		})
		b.pools[kind] = at
	}
	return b
}

// env is one case: a driver with a pool and paths of its own.
type env struct {
	*bench
	driverproc.Process
	s         *scenario
	dir, pool string
	client    context.Context
}

// newEnv makes a pool and starts a driver on it.
func (b *bench) newEnv(ctx context.Context, s *scenario, environ ...string) (*env, error) {
	b.mu.Lock()
	b.n++
	name := fmt.Sprint(b.n)
	b.mu.Unlock()
	e := &env{bench: b, s: s, dir: filepath.Join(b.dir, name), client: ctx}
	e.pool = filepath.Join(b.pools[s.pool], name)
	if err := os.Mkdir(e.dir, 0o750); err != nil {
		return nil, err
	}
	init := exec.CommandContext(ctx, b.bin, "-init", "-pool", e.pool, "-pool-name", "crash", "-allow-root-fs")
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("init pool: %w\n%s", err, out)
	}
	e.Process = driverproc.Process{
		Argv: append([]string{
			b.bin, "-endpoint", "unix://" + e.path("csi.sock"), "-node-id", "node-1",
			"-state-dir", e.path("state"), "-pool", e.pool, "-allow-root-fs", "-ephemeral-max", "67108864",
		}, s.flags...),
		Env:    append([]string{"GOMAXPROCS=1", "CSIKIT_FAULT=@" + e.path("fault"), "CSIKIT_FAULT_THREAD=1"}, environ...),
		Socket: e.path("csi.sock"), Log: e.path("driver.log"),
	}
	if s.offline {
		e.Argv = append([]string{"setpriv", "--bounding-set", "-sys_resource", "--"}, e.Argv...)
	}
	return e, e.Start(ctx)
}

func (e *env) path(name string) string { return filepath.Join(e.dir, name) }

// restart starts the driver that was killed, with nobody to kill it.
func (e *env) restart() error {
	if err := e.Kill(); err != nil {
		return err
	}
	e.Env = []string{"GOMAXPROCS=1"}
	return e.Start(e.client)
}

// dead reports whether the driver was killed; one that is about to die is waited
// for.
func (e *env) dead(wait time.Duration) bool {
	for end := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, e.PID(), &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == nil && info.Signo == int32(unix.SIGCHLD) {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// close ends the case. What it left is taken away, so that one finding is not
// reported by every later case.
func (e *env) close() error {
	err := e.Close()
	if all, look := mnt.List(); look == nil {
		for _, m := range slices.Backward(all) {
			if strings.HasPrefix(m.Point, e.dir+"/") {
				_, _ = mnt.Unwind(m.Point)
			}
		}
	}
	testenv.DetachLoops(e.pool)
	return errors.Join(err, os.RemoveAll(e.pool), os.RemoveAll(e.dir))
}

// killedAt runs a call in which the driver dies at a fault point, and starts it
// again.
func (e *env) killedAt(ctx context.Context, point string, call func(context.Context) error) error {
	if err := os.WriteFile(e.path("fault"), []byte(point), 0o600); err != nil {
		return err
	}
	err := call(ctx)
	if !e.dead(patience) {
		return fmt.Errorf("the driver is not dead at %s, and answered %w", point, err)
	}
	return errors.Join(os.Remove(e.path("fault")), e.Kill(), e.Start(e.client))
}
