package mounter_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/internal/fusetest"
	"github.com/csikit/csikit/mounter/mnt"
)

func child() {
	if was, err := fusetest.Child(); was {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	fuseDriver()
}

// fuseNode is a backend of FUSE file systems: a volume is a file of its name.
type fuseNode struct {
	t   testing.TB
	dir string

	mu    sync.Mutex
	modes map[string]string // by volume
	opens map[string]int
	edit  func(*backends.FUSE)
}

func newFUSENode(t testing.TB, dir string) *fuseNode {
	return &fuseNode{t: t, dir: dir, modes: map[string]string{}, opens: map[string]int{}}
}

func (n *fuseNode) file(id string) string { return filepath.Join(n.dir, "volume-"+id) }

func (n *fuseNode) OpenVolume(_ context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opens[req.ID]++
	run := fusetest.Run(n.t, n.modes[req.ID], n.file(req.ID))
	if n.edit != nil {
		n.edit(run)
	}
	return &backends.Source{FUSE: run, State: []byte("state of " + req.ID)}, nil
}

func (n *fuseNode) CloseVolume(_ context.Context, req backends.CloseVolumeRequest) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.opens, req.ID)
	return nil
}

// fuseRig is an engine with a host of FUSE servers in a process of its own.
type fuseRig struct {
	*realRig
	node  *fuseNode
	host  *fusetest.Host
	opts  mounter.Options
	quiet bool
}

func newFUSERig(t testing.TB) *fuseRig {
	t.Helper()
	testenv.Root(t)
	must(t, syscall.Close(testenv.FUSE(t, 0)))
	r := &fuseRig{realRig: &realRig{t: t, dir: shortDir(t)}}
	r.state = r.path("state")
	r.node = newFUSENode(t, r.dir)
	r.startHost()
	// What answers has the time that a busy machine takes; a test of what does not says less.
	r.opts = mounter.Options{
		StateDir: r.state, AllowVolatileState: true, Servers: r.host,
		StatsTimeout: time.Minute, ServerAnswer: time.Minute, ServerStart: time.Minute,
	}
	r.restart()
	t.Cleanup(func() {
		must(t, r.Close())
		for _, m := range r.mounts() {
			t.Errorf("left mounted: %s", m.Point)
			_, _ = mnt.Detach(m.Point)
		}
		if left := r.servers(); len(left) > 0 && !t.Failed() {
			t.Errorf("servers left: %v", left)
		}
	})
	return r
}

// shortDir is a directory for a socket, whose path may have 107 bytes: t.TempDir has
// the whole name of a test in it.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "f") //nolint:usetesting // too long
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

func (r *fuseRig) startHost() {
	r.host = fusetest.StartHost(r.t, r.path("host.sock"), r.path("host.log"))
}

// restart is a new driver, the old one being closed.
func (r *fuseRig) restart() {
	r.t.Helper()
	if r.Engine != nil {
		must(r.t, r.Close())
	}
	r.opts.Servers = r.host
	if r.quiet {
		r.opts.Servers = noWatcher{r.host}
	}
	e, err := mounter.New(r.node, &r.opts)
	must(r.t, err)
	must(r.t, e.Start(r.t.Context()))
	r.Engine = e
}

func (r *fuseRig) volume(id, data string) {
	r.t.Helper()
	must(r.t, os.WriteFile(r.node.file(id), []byte(data), 0o600))
}

func (r *fuseRig) mounts() []mnt.Info {
	list, err := mnt.List()
	must(r.t, err)
	return slices.DeleteFunc(list, func(m mnt.Info) bool { return !strings.HasPrefix(m.Point, r.dir+"/") })
}

// servers are the command lines of servers that run, whoever started them.
func (r *fuseRig) servers() []string {
	var all []string
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(r.t, err)
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if s := strings.ReplaceAll(string(b), "\x00", " "); strings.Contains(s, r.dir+"/volume-") {
			all = append(all, filepath.Base(filepath.Dir(f))+": "+s)
		}
	}
	return all
}

func (r *fuseRig) pid(id string) int {
	r.t.Helper()
	st, err := r.host.Find(r.t.Context(), id)
	must(r.t, err)
	if st.State != mounter.ServerRunning {
		r.t.Fatalf("%s: %s", id, st)
	}
	return st.PID
}

func (r *fuseRig) kill(id string, s unix.Signal) {
	r.t.Helper()
	must(r.t, unix.Kill(r.pid(id), s))
}

func (r *fuseRig) read(name string) string {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.path(name), fusetest.Data))
	if err != nil {
		r.t.Errorf("read %s: %v", name, err)
	}
	return string(b)
}

func (r *fuseRig) wantData(want string, names ...string) {
	r.t.Helper()
	for _, n := range names {
		if got := r.read(n); got != want {
			r.t.Errorf("%s holds %q, want %q", n, got, want)
		}
	}
}

// waitDead waits until nobody serves a mount any more.
func (r *fuseRig) waitDead(name string) {
	r.t.Helper()
	r.until("dead", func() bool {
		var st unix.Statfs_t
		return errors.Is(unix.Statfs(r.path(name), &st), unix.ENOTCONN)
	})
}

// until waits for what another process does.
func (r *fuseRig) until(what string, is func() bool) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if is() {
			return
		}
	}
	r.t.Fatalf("not %s", what)
}

// noWatcher is a host that tells nothing by itself.
type noWatcher struct{ mounter.ServerHost }

const envFUSEDriver = "CSIKIT_TEST_FUSE_DRIVER"

// fuseDriver is a driver that is killed: it stages and publishes a volume, says so,
// and waits.
func fuseDriver() {
	dir := os.Getenv(envFUSEDriver)
	if dir == "" {
		return
	}
	err := runFUSEDriver(dir)
	fmt.Println("driver:", err)
	os.Exit(1)
}
