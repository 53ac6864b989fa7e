package idempotency

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csikit/csikit/internal/testenv"
)

// rig runs calls on a table inside a synctest bubble and keeps what became of
// them.
type rig struct {
	t      *testing.T
	table  *Table
	calls  []*call
	mu     sync.Mutex // of all that follows, and of the results of calls
	events []string
}

func newRig(t *testing.T, o *Options) *rig {
	r := &rig{t: t}
	if o == nil {
		o = &Options{}
	}
	if o.Observer == nil {
		o.Observer = func(e Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e.Kind.String()+" "+e.Name)
		}
	}
	r.table = NewTable(o)
	return r
}

// stop ends what a failed test has left, so that its failure can be read.
func (r *rig) stop() {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	r.table.Shutdown(ended)
	for _, c := range r.calls {
		close(c.giveUp)
	}
	synctest.Wait()
}

// call is one call of Do under way.
type call struct {
	r       *rig
	started bool
	fnCtx   context.Context
	finish  chan error // what fn returns
	giveUp  chan struct{}
	cancel  context.CancelFunc
	done    bool
	val     string
	err     error
	at      time.Duration // when Do returned, since the call
}

func equal(a, b any) bool { return a == b }

// op is an operation with exclusive keys; a key that begins with ~ is shared.
func op(name string, keys ...string) Operation {
	o := Operation{Name: name, Owner: "req-" + name, Request: name, Equal: equal}
	for _, k := range keys {
		if n, shared := strings.CutPrefix(k, "~"); shared {
			o.Keys = append(o.Keys, Shared(n))
		} else {
			o.Keys = append(o.Keys, Exclusive(k))
		}
	}
	return o
}

// goDo calls Do with an fn that returns when the test says so, or when its
// context ends and obeys is set.
func (r *rig) goDo(ctx context.Context, o Operation, obeys bool) *call {
	ctx, cancel := context.WithCancel(ctx)
	c := &call{r: r, finish: make(chan error, 1), giveUp: make(chan struct{}), cancel: cancel}
	r.t.Cleanup(cancel)
	r.calls = append(r.calls, c)
	begin := time.Now()
	go func() {
		val, err := Do(ctx, r.table, o, func(ctx context.Context) (string, error) {
			r.mu.Lock()
			c.started, c.fnCtx = true, ctx
			r.mu.Unlock()
			gone := ctx.Done()
			if !obeys {
				gone = nil
			}
			select {
			case err := <-c.finish:
				return "by " + o.Owner, err
			case <-gone:
				return "", ctx.Err()
			case <-c.giveUp:
				return "", errTest
			}
		})
		r.mu.Lock()
		defer r.mu.Unlock()
		c.done, c.val, c.err, c.at = true, val, err, time.Since(begin)
	}()
	synctest.Wait()
	return c
}

func (r *rig) do(o Operation) *call { return r.goDo(context.Background(), o, true) }

// sleep lets time pass, and then all that it set off happen.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (c *call) end(err error) {
	c.finish <- err
	synctest.Wait()
}

func (c *call) mustRun() {
	c.r.t.Helper()
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if !c.started || c.done {
		c.r.t.Fatalf("started %v, done %v (%v); want running", c.started, c.done, c.err)
	}
}

func (c *call) mustWait() {
	c.r.t.Helper()
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if c.started || c.done {
		c.r.t.Fatalf("started %v, done %v (%v); want waiting", c.started, c.done, c.err)
	}
}

func (c *call) mustEnd(err error) {
	c.r.t.Helper()
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if !c.done || !errors.Is(c.err, err) {
		c.r.t.Fatalf("done %v with %v; want %v", c.done, c.err, err)
	}
}

func (c *call) mustPend() *PendingError {
	c.r.t.Helper()
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	p, ok := errors.AsType[*PendingError](c.err)
	if !c.done || !ok {
		c.r.t.Fatalf("done %v with %v; want a PendingError", c.done, c.err)
	}
	return p
}

// mustBeEmpty checks that the table keeps nothing.
func (r *rig) mustBeEmpty() {
	r.t.Helper()
	t := r.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all != nil || t.keys.len() > 0 || t.kept.len() > 0 || t.keptOrder.Len() > 0 {
		r.t.Errorf("table keeps: operations %v, %d keys, %d errors", t.all != nil, t.keys.len(), t.kept.len())
	}
}

var errTest = errors.New("test error")

func bubble(t *testing.T, o *Options, f func(t *testing.T, r *rig)) {
	t.Helper()
	testenv.Bubble(t, func(t *testing.T) {
		r := newRig(t, o)
		defer r.stop()
		f(t, r)
	})
}
