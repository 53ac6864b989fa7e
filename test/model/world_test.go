package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/idempotency"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mountertest"
)

const (
	clients  = 3
	thisNode = "n1"
)

// world is a storage, a node, clients, and one process of the driver after the
// other.
type world struct {
	t      *testing.T
	ctx    context.Context
	dir    string
	state  string // the engine's directory; each kill makes another
	store  *mem.Store
	eye    *mem.Backend // looks without being watched
	kernel *mountertest.Kernel
	co     []*client
	begun  time.Time
	grave  chan struct{} // closed at the end: what dead processes still did goes on, and fails
	work   sync.WaitGroup

	mu     sync.Mutex // of all that follows, and of what calls and operations hold
	seq    int
	proc   *process // that serves; nil: none
	drains *process // that shuts down; nil: none
	procs  []*process
	calls  []*asking
	ops    []*operation
	places map[int]int // where a plan might have happened, by call
	makers map[object]*asking
	lines  []line
	faults []string
}

// process is one run of the driver.
type process struct {
	w      *world
	n      int
	driver *csidriver.Driver
	engine *mounter.Engine
	lis    *listener
	stop   context.CancelFunc
	served chan error // Serve's answer

	gone     chan struct{} // closed when it is dead
	dead     bool          // as gone; w.mu guards it
	draining moment
	died     moment
}

func newWorld(t *testing.T, dir string) (*world, error) {
	w := &world{
		t: t, ctx: t.Context(), dir: dir, state: filepath.Join(dir, "state-0"), begun: time.Now(), grave: make(chan struct{}), kernel: mountertest.NewKernel(),
		places: map[int]int{}, makers: map[object]*asking{},
	}
	w.store = mem.NewStore(&mem.StoreOptions{Devices: true})
	for _, n := range nodeNames {
		w.store.AddNode(n, "", 0)
	}
	var err error
	if w.eye, err = mem.New(&mem.Options{Store: w.store}); err != nil {
		return nil, err
	}
	for range clients {
		c, err := w.newClient()
		if err != nil {
			return nil, err
		}
		w.co = append(w.co, c)
	}
	return w, w.start()
}

// now is the next moment. w.mu is held.
func (w *world) now() moment {
	w.seq++
	return moment{time.Since(w.begun), w.seq}
}

func (w *world) serving() *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.proc
}

// violated notes that a promise is broken.
func (w *world) violated(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, readable.Replace(fmt.Sprintf(format, args...)))
}

func (w *world) start() error {
	p := &process{w: w, n: len(w.procs), lis: newListener(), served: make(chan error, 1), gone: make(chan struct{})}
	b, err := mem.New(&mem.Options{Store: w.store, Node: thisNode})
	if err != nil {
		return err
	}
	p.watch(b)
	traits, quiet := b.Traits(), slog.New(slog.NewTextHandler(p, &slog.HandlerOptions{Level: slog.LevelError}))
	p.engine, err = mounter.New(b, &mounter.Options{
		StateDir: w.state, AllowVolatileState: true, Kernel: w.kernel, FSTypes: traits.FSTypes, Logger: quiet,
	})
	if err != nil {
		return err
	}
	p.driver, err = csidriver.New(
		csidriver.Config{Name: "model.csikit.dev", Version: "1", Traits: traits, Controller: b, Node: b},
		&csidriver.Options{
			NodeID: thisNode, Engine: watched{p.engine, p}, Logger: quiet, Wait: wait, Stall: stall, Drain: drain,
			UnaryInterceptors: []grpc.UnaryServerInterceptor{p.intercept},
		})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(w.ctx)
	p.stop = stop
	w.mu.Lock()
	w.note(w.now(), "process %d starts", p.n)
	w.proc, w.procs = p, append(w.procs, p)
	w.mu.Unlock()
	go func() { p.served <- p.driver.Serve(ctx, p.lis) }()
	return nil
}

// Write takes what the driver logs of errors.
func (p *process) Write(b []byte) (int, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if text := string(b); !strings.Contains(text, "panic=fault-") { // which was put there
		p.w.note(p.w.now(), "process %d logs %s", p.n, strings.ReplaceAll(text, `\n`, "\n\t"))
	}
	return len(b), nil
}

// gate holds what a dead process would still do, until nobody looks any more.
func (p *process) gate() (dead bool) {
	select {
	case <-p.gone:
		<-p.w.grave
		return true
	default:
		return false
	}
}

// bury ends what a process does, wherever it is. Everything sleeps now.
func (p *process) bury() {
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	p.dead, p.died = true, w.now()
	close(p.gone)
	for _, o := range w.ops {
		if o.proc == p && o.inside > 0 {
			o.inside, o.last, o.died = 0, p.died, true
		}
	}
	if w.proc == p {
		w.proc = nil
	}
	w.note(p.died, "process %d is dead", p.n)
}

// kill ends the process like kill -9, and another one starts. One that is draining
// is not given its time.
func (w *world) kill() error {
	synctest.Wait()
	if err := w.inherit(); err != nil {
		return err
	}
	w.mu.Lock()
	p, drains := w.proc, w.drains
	w.mu.Unlock()
	if p == nil {
		drains.bury()
		return nil
	}
	p.bury()
	p.stop()
	p.disconnect()
	return w.start()
}

// inherit copies the engine's records for the next process: the lock of the
// directory stays with the dead one, which is only asleep.
func (w *world) inherit() error {
	old := w.state
	w.state = filepath.Join(w.dir, fmt.Sprintf("state-%d", w.seq))
	err := os.CopyFS(w.state, os.DirFS(old))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it had not come so far
	}
	return errors.Join(err, os.Chmod(w.state, 0o700))
}

// disconnect is what the kernel does with the sockets of a dead process.
func (p *process) disconnect() {
	p.lis.close()
	for _, c := range p.w.co {
		c.cut()
	}
}

// shutdown ends the process as a supervisor does, and starts another one then.
func (w *world) shutdown() {
	w.mu.Lock()
	p := w.proc
	if p == nil {
		w.mu.Unlock()
		return
	}
	w.proc, w.drains = nil, p
	p.draining = w.now()
	w.note(p.draining, "process %d shuts down", p.n)
	w.mu.Unlock()
	p.stop()
	w.work.Go(func() {
		select {
		case err := <-p.served:
			p.served <- err
			w.drained(p, err)
			p.bury()
		case <-p.gone: // killed meanwhile
			p.disconnect()
		}
		if err := w.start(); err != nil {
			w.violated("start: %v", err)
		}
	})
}

// drained checks that everything has ended, or is named.
func (w *world) drained(p *process, err error) {
	cut := (*csidriver.DrainError)(nil)
	if err != nil && !errors.As(err, &cut) {
		w.violated("process %d: Serve: %v", p.n, err)
	}
	var names []string
	if cut != nil {
		names = cut.Cut
	}
	w.mu.Lock()
	w.note(w.now(), "process %d has drained: %q", p.n, names)
	var dropped []*asking
	for _, o := range w.ops {
		cut := errors.Is(o.cause, idempotency.ErrClosed)
		if o.proc == p && (o.inside > 0 || cut) && !namedIn(names, o.call) {
			dropped = append(dropped, o.call)
		}
	}
	w.mu.Unlock()
	for _, c := range dropped {
		w.violated("process %d was shut down and dropped %v without a word: it named %q", p.n, c, names)
	}
}

// intercept is where a call comes to the driver, and its answer leaves.
func (p *process) intercept(ctx context.Context, in any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	w, c := p.w, p.w.callOf(ctx)
	if c == nil {
		return handler(ctx, in)
	}
	w.mu.Lock()
	c.arrived, c.proc = w.now(), p
	w.note(c.arrived, "  %v arrives", c)
	w.mu.Unlock()
	out, err := handler(ctx, in)
	w.mu.Lock()
	if !p.dead {
		c.handled, c.err = w.now(), err
		if err == nil {
			c.resp, _ = out.(proto.Message)
		}
		w.note(c.handled, "  %v is answered %s", c, answer(err))
	}
	w.mu.Unlock()
	if c.action.loses {
		w.co[c.action.client].cut()
		return nil, status.Error(codes.Unavailable, "lost")
	}
	return out, err
}

// ask sends a call and waits for the answer.
func (w *world) ask(a *action) *asking {
	r := a.request(w.dir)
	c := &asking{request: r, action: a, same: r.same()}
	w.mu.Lock()
	c.id = len(w.calls)
	w.calls = append(w.calls, c)
	c.invoked = w.now()
	w.note(c.invoked, "%v  (%v)", c, a)
	w.mu.Unlock()

	ctx, stop := context.WithCancel(metadata.AppendToOutgoingContext(w.ctx, callHeader, fmt.Sprint(c.id)))
	defer stop()
	if a.deadline > 0 {
		ctx, stop = context.WithTimeout(ctx, a.deadline)
		defer stop()
	}
	if a.cancel > 0 {
		defer time.AfterFunc(a.cancel, stop).Stop()
	}
	out := r.answer()
	err := w.co[a.client].Invoke(ctx, r.full, r.in, out)

	w.mu.Lock()
	defer w.mu.Unlock()
	c.returned, c.got, c.out = w.now(), err, out
	w.note(c.returned, "%v has %s", c, answer(err))
	return c
}

// run does a program and then cleans up, and says what was wrong.
func (w *world) run(program program) {
	for i := range program {
		a := &program[i]
		time.Sleep(a.gap)
		switch a.kind {
		case "cut":
			w.co[a.client].cut()
		case "kill":
			if err := w.kill(); err != nil {
				w.violated("kill: %v", err)
				return
			}
		case "shutdown":
			w.shutdown()
		default:
			w.work.Go(func() { w.ask(a) })
		}
	}
	w.work.Wait()
}
