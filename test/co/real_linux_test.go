package co

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/internal/driverproc"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/mnt"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// realNode is kubelet over examples/loopfile: a process, its socket, loop devices and
// mounts. Its clock is 50 times as fast as the real one, so that pauses and deadlines
// are short; nothing is said about how long anything takes.
type realNode struct {
	*world
	k     *kubelet
	proc  driverproc.Process
	mu    sync.Mutex // held while proc is killed, started or ended
	over  bool       // proc was ended for good
	calls int
	kills map[int]time.Duration // by the number of the call: how long after its begin
}

const clockScale = 50

func newRealNode(t *testing.T, bin string, block bool, seed uint64) *realNode {
	dir, err := os.MkdirTemp("", "co") //nolint:usetesting // a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := testenv.TakeBack(dir); err != nil {
			t.Error(err)
		}
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	if out, err := exec.CommandContext(t.Context(), bin, "-init", "-allow-root-fs", "-pool", at("pool")).CombinedOutput(); err != nil {
		t.Fatalf("init pool: %v\n%s", err, out)
	}
	s := newSchedule()
	s.seed = seed
	n := &realNode{kills: map[int]time.Duration{}, world: &world{
		t: t, schedule: s, dir: dir, began: time.Now(), done: make(chan struct{}), api: newAPI(), changed: make(chan struct{}),
		procs: map[csidriver.Services]*incarnation{}, restarts: map[csidriver.Services]bool{}, scale: clockScale, block: block,
	}}
	n.proc = driverproc.Process{
		Argv: []string{bin, "-endpoint", "unix://" + at("s"), "-node-id", thisNode, "-state-dir", at("state"), "-pool", at("pool"), "-allow-root-fs"},
		Log:  at("log"), Socket: at("s"),
	}
	if err := n.proc.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := &incarnation{dead: make(chan struct{}), process: &process{end: n.end, connect: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", at("s"))
	}}}
	n.procs[csidriver.ServeNode] = p
	n.mounted = func(path string) bool { is, err := mnt.IsMountPoint(path); return is && err == nil }
	n.called = n.count
	r := rand.New(rand.NewPCG(seed, 7))
	for range 4 {
		n.kills[1+r.IntN(12)] = time.Duration(r.IntN(60)) * time.Millisecond
	}
	return n
}

// count kills the driver in the middle of some calls.
func (n *realNode) count(method string) {
	if !strings.Contains(method, "Volume") || strings.Contains(method, "Get") {
		return
	}
	n.mu.Lock()
	n.calls++
	after, kill := n.kills[n.calls]
	n.mu.Unlock()
	if !kill {
		return
	}
	n.wg.Go(func() {
		time.Sleep(after)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.over {
			return
		}
		n.note("        the driver is killed")
		if err := n.proc.Kill(); err != nil {
			n.fail("%v", err)
		}
		if err := n.proc.Start(context.Background()); err != nil {
			n.fail("%v", err)
		}
	})
}

// end stops the driver, and what wanted to kill it later finds nothing to kill.
func (n *realNode) end() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.over = true
	return n.proc.Close()
}

// TestRealKubelet: kubelet over real disks, with a driver that is killed.
func TestRealKubelet(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs.ext4")
	bin := filepath.Join(t.TempDir(), "loopfile")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "grpcnotrace", "-o", bin, "github.com/csikit/csikit/examples/loopfile").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	seeds := uint64(1)
	if *full {
		seeds = 25
	}
	for _, block := range []bool{false, true} {
		for seed := uint64(1); seed <= seeds; seed++ {
			t.Run(fmt.Sprintf("block %v, seed %d", block, seed), func(t *testing.T) {
				n := newRealNode(t, bin, block, seed)
				n.story()
				n.close()
				n.empty() // what is deleted may be freed later than the call is answered
				if len(n.failures) > 0 {
					t.Errorf("%s\n%s\nthe driver:\n%s", strings.Join(n.failures, "\n"), strings.Join(n.trace, "\n"), n.proc.Tail(30))
				}
			})
		}
	}
}

func (n *realNode) story() {
	control := n.client("provisioner", csidriver.ServeNode)
	var vol *csi.Volume
	n.persist("created", sidecarQueue, func() error {
		ctx, cancel := timeout(provisionTimeout)
		defer cancel()
		req := createRequest("a")
		req.VolumeCapabilities = []*csi.VolumeCapability{n.capability()}
		resp, err := control.CreateVolume(ctx, req)
		vol = resp.GetVolume()
		return err
	})
	if vol == nil {
		return
	}
	name := volumeName("a")
	n.k = runKubelet(n.world)
	n.update(func(a *api) {
		a.pvs[name] = &pv{name: name, handle: vol.GetVolumeId(), context: vol.GetVolumeContext(), size: vol.GetCapacityBytes()}
		a.vas[name] = &attachment{pv: name, attached: true} // the driver has no attachments
	})
	pods := &kubernetes{world: n.world, kubelet: n.k}
	for i, p := range []string{"p", "q"} {
		pods.start(p, "a")
		pods.running(p)
		n.data(n.k.target(name, p), i == 0)
		if i == 0 {
			n.k.restart()
		}
		n.sleep(30 * time.Second)
		pods.stop(p)
		pods.stopped(p)
		n.until("nothing is in use", func(*api) bool { return len(n.k.volumes) == 0 })
	}
	n.persist("deleted", sidecarQueue, func() error {
		ctx, cancel := timeout(provisionTimeout)
		defer cancel()
		return done(control.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: vol.GetVolumeId(), Secrets: secrets()}))
	})
}

// data is written by the first pod, and read by the second.
func (n *realNode) data(path string, write bool) {
	flags := os.O_RDWR
	if !n.block {
		path, flags = filepath.Join(path, "file"), flags|os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		n.fail("%v", err)
		return
	}
	defer f.Close() //nolint:errcheck // Sync has said what is wrong
	if write {
		if _, err := f.WriteAt([]byte("data"), 0); err != nil {
			n.fail("%v", err)
		}
		if err := f.Sync(); err != nil {
			n.fail("%v", err)
		}
		return
	}
	b := make([]byte, 4)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "data" {
		n.fail("read %q, %v", b, err)
	}
}

// empty looks for what is left: mounts, files of the pool, records.
func (n *realNode) empty() {
	all, err := mnt.List()
	if err != nil {
		n.fail("%v", err)
	}
	for _, m := range all {
		if strings.HasPrefix(m.Point, n.dir+"/") {
			n.fail("mounted: %s", m.Point)
		}
	}
	for _, dir := range []string{"pool", "state"} {
		err := filepath.WalkDir(filepath.Join(n.dir, dir), func(path string, d os.DirEntry, err error) error {
			// Locks, and files that the next record is written into, have names with a dot.
			if err == nil && !d.IsDir() && d.Name() != "pool.json" && d.Name() != "lock" && !strings.HasPrefix(d.Name(), ".") {
				n.fail("left: %s", path)
			}
			return err
		})
		if err != nil {
			n.fail("%v", err)
		}
	}
}
