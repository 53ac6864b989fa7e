package co

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/mounter/mountertest"
)

// world is an orchestrator with its components, a driver in two processes, and
// storage in which things go wrong by a schedule. All of it is in one bubble.
type world struct {
	t        *testing.T
	m        *machine
	eye      *mem.Backend // looks at the storage, and nothing goes wrong with it
	schedule *schedule
	plant    grpc.UnaryServerInterceptor
	block    bool                 // volumes are raw block devices
	scale    time.Duration        // how many times faster than the real one the clock is
	spawn    func(p *incarnation) // makes its process
	mounted  func(path string) bool
	called   func(method string) // before each call; nil ok
	dir      string
	began    time.Time
	done     chan struct{} // closed at the end, for what still waits
	wg       sync.WaitGroup

	mu       sync.Mutex
	api      *api
	changed  chan struct{} // closed when the API's objects have changed
	procs    map[csidriver.Services]*incarnation
	conns    []*clients
	restarts map[csidriver.Services]bool // under way
	disks    map[string]*mountertest.Disk
	trace    []string
	failures []string
	over     bool     // nothing is started any more
	lost     []func() // what components do when their connection is lost
}

// incarnation is a process of the driver from its start to its death.
type incarnation struct {
	*process
	role   csidriver.Services
	dead   chan struct{}
	served atomic.Bool // it is over its recovery

	mu    sync.Mutex
	conns []net.Conn
}

// newWorld starts the driver. plant is a fault of the driver itself; nil: none.
func newWorld(t *testing.T, s *schedule, plant grpc.UnaryServerInterceptor) *world {
	w := &world{
		t: t, m: newMachine(t), schedule: s, plant: plant, scale: 1, dir: t.TempDir(), began: time.Now(), done: make(chan struct{}),
		api: newAPI(), changed: make(chan struct{}), procs: make(map[csidriver.Services]*incarnation), restarts: make(map[csidriver.Services]bool), disks: make(map[string]*mountertest.Disk),
	}
	eye, err := mem.New(&mem.Options{Store: w.m.store})
	if err != nil {
		t.Fatal(err)
	}
	w.eye, w.spawn, w.mounted = eye, w.overMem, w.mountedAt
	w.start(csidriver.ServeController)
	w.start(csidriver.ServeNode)
	return w
}

func (w *world) start(role csidriver.Services) {
	p := &incarnation{role: role, dead: make(chan struct{})}
	w.spawn(p)
	if p.engine != nil {
		p.engine.before = func(ctx context.Context, method string) error { return w.point(ctx, p, mem.Before, "engine."+method) }
		p.engine.after = func(ctx context.Context, method string) error { return w.point(ctx, p, mem.After, "engine."+method) }
	}
	w.mu.Lock()
	w.procs[role] = p
	w.mu.Unlock()
}

// overMem is a process over the storage and the kernel in memory.
func (w *world) overMem(p *incarnation) {
	p.process = w.m.spawn(w.t, mem.Options{Node: thisNode}, func(s *setup) {
		s.cfg.Serve = p.role
		s.opts.Drain = 5 * time.Second
		if w.plant != nil {
			s.opts.UnaryInterceptors = []grpc.UnaryServerInterceptor{w.plant}
		}
		s.kernel = &fenced{Kernel: w.m.kernel, p: p, w: w}
		w.plug(s.backend)
		for _, at := range []mem.Point{mem.Before, mem.Midway, mem.After} {
			s.backend.Inject(mem.Fault{At: at, Do: func(ctx context.Context, c mem.Call) error { return w.point(ctx, p, at, c.Method) }})
		}
	})
}

// plug keeps the disks of the node as big as the volumes.
func (w *world) plug(b *mem.Backend) {
	const path = "/dev/mem/"
	b.Inject(mem.Fault{Method: "OpenVolume", Do: func(_ context.Context, c mem.Call) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.disks[c.Object] == nil {
			w.disks[c.Object] = w.m.kernel.AddDisk(path+c.Object, w.sizeOf(c.Object), backends.Identity{Serial: c.Object})
		}
		return nil
	}})
	for _, method := range []string{"DeleteVolume", "DeleteEphemeral"} {
		b.Inject(mem.Fault{Method: method, At: mem.After, Do: func(context.Context, mem.Call) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			// The next volume of this ID reads as zeros.
			maps.DeleteFunc(w.disks, func(id string, _ *mountertest.Disk) bool {
				return errors.Is(w.m.store.SetHealth(id, ""), backends.ErrNotFound)
			})
			return nil
		}})
	}
	b.Inject(mem.Fault{Method: "ExpandVolume", At: mem.After, Do: func(ctx context.Context, c mem.Call) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if v, err := w.eye.Volume(ctx, backends.VolumeRequest{ID: c.Object}); err == nil && w.disks[c.Object] != nil {
			w.disks[c.Object].Resize(v.Capacity)
		}
		return nil
	}})
}

func (w *world) sizeOf(id string) int64 {
	if v, err := w.eye.Volume(context.Background(), backends.VolumeRequest{ID: id}); err == nil {
		return v.Capacity
	}
	return 64 * mi // an inline one
}

// errDead ends the goroutines of a dead process, when all is over.
var errDead = errors.New("this process is dead")

// alive blocks for ever in a process that is dead: it does nothing any more.
func (w *world) alive(p *incarnation) error {
	select {
	case <-p.dead:
		<-w.done
		return errDead
	default:
		return nil
	}
}

// point is a moment in a call of the backend or the engine, where the schedule may
// have something go wrong.
func (w *world) point(ctx context.Context, p *incarnation, at mem.Point, method string) error {
	if err := w.alive(p); err != nil {
		return err
	}
	if strings.HasPrefix(method, "engine.") {
		p.served.Store(true)
	}
	t := w.schedule.next(method, at)
	if t == nil {
		return nil
	}
	what := t.what
	if p.role == csidriver.ServeNode && !p.served.Load() && slices.Contains([]string{forGood, killed, restarts, untilCancelled}, what) {
		// In a recovery: its lock on the records would outlive this process here.
		what = slower
	}
	w.note("        %s at %s: %s", method, pointName(at), what)
	if err := w.trouble(ctx, p, what); err != nil {
		return err
	}
	return w.alive(p)
}

// trouble makes it happen.
func (w *world) trouble(ctx context.Context, p *incarnation, what string) error {
	switch what {
	case slow:
		return w.pause(ctx, p, 40*time.Second, false)
	case slower:
		return w.pause(ctx, p, 100*time.Second, false)
	case untilCancelled:
		if ctx.Done() == nil { // a system call that nothing cancels
			return w.pause(ctx, p, 10*time.Minute, false)
		}
		return w.pause(ctx, p, 1000*time.Hour, true)
	case forGood:
		// A liveness probe, or a person, ends the process in the end.
		w.wg.Go(func() { w.sleep(15 * time.Minute); w.restart(p, true) })
		return w.pause(ctx, p, 1000*time.Hour, false)
	case panics:
		panic("by the schedule")
	case cut:
		p.cut()
		w.connectionLost()
		return nil
	case restarts:
		w.wg.Go(func() { w.restart(p, false) })
		return w.pause(ctx, p, 1000*time.Hour, true)
	case killed:
		w.restart(p, true)
		return nil
	}
	return fmt.Errorf("%s: %w", what, troubles[what])
}

// pause waits; a dead process waits until all is over.
func (w *world) pause(ctx context.Context, p *incarnation, d time.Duration, heed bool) error {
	var ended <-chan struct{}
	if heed {
		ended = ctx.Done()
	}
	timer := time.NewTimer(d / w.scale)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ended:
		return context.Cause(ctx)
	case <-p.dead:
		return w.alive(p)
	case <-w.done:
		return errDead
	}
	return nil
}

// client connects a component. Each call is noted, and its code looked at.
func (w *world) client(component string, role csidriver.Services) *clients {
	c := dial(w.t, w.dialer(role), grpc.WithUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if w.called != nil {
				w.called(method)
			}
			err := invoke(ctx, method, req, reply, cc, opts...)
			w.judge(component, method, err)
			return err
		}))
	w.mu.Lock()
	w.conns = append(w.conns, c)
	w.mu.Unlock()
	return c
}

func (w *world) capability() *csi.VolumeCapability {
	c := mountCapability()
	if w.block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	}
	return c
}

// hangUp closes a connection of its own.
func (w *world) hangUp(c *clients) {
	w.mu.Lock()
	w.conns = slices.DeleteFunc(w.conns, func(o *clients) bool { return o == c })
	w.mu.Unlock()
	if err := c.conn.Close(); err != nil {
		w.fail("%v", err)
	}
}

// judge notes a code, and refuses one that ends what may be going on: nothing of
// what the schedule does tells that it is at its end.
func (w *world) judge(component, method string, err error) {
	code := status.Code(err)
	name := method[strings.LastIndexByte(method, '/')+1:]
	if err == nil {
		w.note("%s %s OK", component, name)
		return
	}
	w.note("%s %s %s: %s", component, name, codeName(code), status.Convert(err).Message())
	if final(method, code) && code != codes.OK && !w.schedule.definite() {
		w.fail("%s: %s answered %s, after which it forgets", component, name, codeName(code))
	}
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, fmt.Sprintf("%10s ", time.Since(w.began).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures = append(w.failures, fmt.Sprintf(format, args...))
	w.trace = append(w.trace, "FAIL: "+fmt.Sprintf(format, args...))
}

// sleep ends early when all is over.
func (w *world) sleep(d time.Duration) {
	select {
	case <-time.After(d / w.scale):
	case <-w.done:
	}
}

// close ends the bubble's goroutines.
func (w *world) close() {
	// What restarts shall not be cut in the middle.
	for {
		w.mu.Lock()
		busy := w.restarts[csidriver.ServeController] || w.restarts[csidriver.ServeNode]
		w.over = !busy
		w.mu.Unlock()
		if !busy {
			break
		}
		time.Sleep(time.Second)
	}
	for _, p := range w.procs {
		// What reads and hangs has no operation that is cancelled for it.
		if err := p.end(); err != nil && !w.schedule.has(forGood) && !strings.Contains(err.Error(), "1 still running: ListVolumes (") {
			w.fail("process %d: %v", p.role, err)
		}
	}
	close(w.done)
	w.wg.Wait()
	for _, c := range w.conns {
		if err := c.conn.Close(); err != nil {
			w.fail("%v", err)
		}
	}
}

// nothing is what must be left of everything: no volume, snapshot, attachment,
// mount, or record.
func (w *world) nothing(records bool) {
	if !w.m.store.Empty() {
		vols, _, err := w.eye.ListVolumes(context.Background(), listAll)
		w.fail("the storage is not empty: %d volumes %v", len(vols), err)
		for _, v := range vols {
			w.note("left: volume %s, %d bytes, at %v", v.Name, v.Capacity, v.Nodes)
		}
	}
	if open := w.m.store.Open(thisNode); len(open) > 0 {
		w.fail("open: %q", open)
	}
	for _, m := range w.m.kernel.Mounts() {
		w.fail("mounted: %s", m.Point)
	}
	err := filepath.WalkDir(w.m.state, func(path string, d fs.DirEntry, err error) error {
		if err == nil && records && strings.HasSuffix(path, ".json") {
			w.fail("record %s is left", filepath.Base(path))
		}
		return err
	})
	if err != nil {
		w.fail("%v", err)
	}
}

var listAll = backends.ListVolumesRequest{Page: backends.Page{Limit: 1000}}
