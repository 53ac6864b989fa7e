package nfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
)

const (
	// callTime is how long a task may go without progress.
	callTime = 10 * time.Second
	// askTime is when the server itself is asked, by the network, why there is no answer.
	askTime = 2 * time.Second
	// idleTime is how long a worker waits for another short task, and onceTime for
	// another one of those that have it for themselves: each is a process with a mount.
	idleTime = 2 * time.Minute
	onceTime = 2 * time.Second
	// maxCalls bounds the tasks that one worker has at a time.
	maxCalls = 32
	// maxHung killed workers of one server that are still there keep new ones from it.
	maxHung = 3
)

var errClosed = errors.New("the backend is closed")

// lane says which tasks share a worker, and so end together when one of them hangs.
type lane struct {
	server string // whose breaker counts; "": none
	share  string // shareTask in JSON; "": none
	name   string
	// within the mount namespace of the driver: for mounts that others see.
	within bool
}

const (
	laneNode    = "node"
	laneUnmount = "unmount"
)

// idle is how long a worker of this lane waits for another task.
func (l lane) idle(t times) time.Duration {
	switch l.name {
	case "", laneNode, laneUnmount:
		return t.idle
	}
	return min(t.idle, onceTime)
}

// workers are the processes in which everything runs that may hang.
type workers struct {
	log      *slog.Logger
	breakers *breakers
	times    times

	mu      sync.Mutex
	closed  bool
	running map[lane]*worker
	hung    map[string]int // by server
	over    sync.WaitGroup // one for each process
}

// times can be made short by tests.
type times struct{ call, ask, idle, kill time.Duration }

// limit is how long a task may go without progress. A server that is asked for a
// mount may be waking up. An unmount ends with what is still to be written, and
// nobody waits for it once its path is free.
func (t times) limit(op string) time.Duration {
	switch op {
	case opMount:
		return 3 * t.call
	case opUnmount:
		return 6 * t.call
	}
	return t.call
}

func newWorkers(log *slog.Logger) *workers {
	return &workers{
		log: log, breakers: newBreakers(), times: times{callTime, askTime, idleTime, 5 * time.Second},
		running: map[lane]*worker{}, hung: map[string]int{},
	}
}

// close ends all workers and waits for them, but not for those that hang.
func (ws *workers) close() {
	ws.mu.Lock()
	ws.closed = true
	for _, w := range ws.running {
		w.kill(errClosed)
	}
	ws.mu.Unlock()
	done := make(chan struct{})
	go func() {
		ws.over.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(ws.times.kill):
		ws.log.Warn("workers of the NFS backend hang in the kernel and are left behind")
	}
}

// far runs a task in a worker that has the share, in a mount namespace of its own.
// Short tasks of one share have one worker together (name ""); one that takes long
// has a name of its own, so that no other one's hanging ends it.
//
// What makes no progress for callTime is ended, and from then on the server counts
// as dead until it answers: then, and when it is not reachable, the error is
// ErrUnavailable. What the task has done until then stays done.
func far[Out any](ctx context.Context, ws *workers, p place, name, op string, in any) (out Out, err error) {
	l, err := p.lane(name)
	if err != nil {
		return out, err
	}
	return call[Out](ctx, ws, l, op, in)
}

// call runs a task in the worker of a lane.
func call[Out any](ctx context.Context, ws *workers, l lane, op string, in any) (out Out, err error) {
	raw, err := json.Marshal(in)
	if err != nil {
		return out, fmt.Errorf("%w: %s: %w", backends.ErrInvalid, op, err)
	}
	answer, err := ws.call(ctx, l, op, raw)
	if err != nil || len(answer) == 0 {
		return out, err
	}
	return out, json.Unmarshal(answer, &out)
}

func (ws *workers) call(ctx context.Context, l lane, op string, in json.RawMessage) (out json.RawMessage, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	trial, err := ws.breakers.enter(ctx, l.server)
	if err != nil {
		return nil, err
	}
	defer func() { trial.leave(err) }()
	defer backends.Busy(ctx, "nfs "+op)()
	for {
		w, err := ws.worker(l)
		if err != nil {
			return nil, err
		}
		if err = w.ready(ctx); err == nil {
			out, err = w.do(ctx, op, in)
		}
		if !errors.Is(err, errIdle) {
			return out, ws.soft(l.server, err)
		}
	}
}

// soft judges an error that a mount with the option "soft" gives for its server.
func (ws *workers) soft(server string, err error) error {
	if !lost(err) {
		return err
	}
	if silent := ws.breakers.ask(server); silent != nil {
		ws.breakers.fail(server, silent)
	}
	return unavailable("%w", err)
}

// worker finds the process of a lane, or starts it.
func (ws *workers) worker(l lane) (*worker, error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.closed {
		return nil, unavailable("%w", errClosed)
	}
	if w := ws.running[l]; w != nil && !w.ended() {
		return w, nil
	}
	if n := ws.hung[l.server]; n >= maxHung {
		return nil, unavailable("%d processes hang in the kernel for server %s and cannot be killed", n, l.server)
	}
	w, err := ws.begin(l)
	if err != nil {
		return nil, unavailable("start a worker: %w", err)
	}
	ws.running[l] = w
	ws.over.Go(w.await)
	return w, nil
}

// forget takes a worker out of its lane: the next call starts another one.
func (ws *workers) forget(w *worker) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.running[w.lane] == w {
		delete(ws.running, w.lane)
	}
}

// stuck counts a killed worker that does not end, until it does.
func (ws *workers) stuck(server string, n int) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.hung[server] += n; ws.hung[server] <= 0 {
		delete(ws.hung, server)
	}
}
