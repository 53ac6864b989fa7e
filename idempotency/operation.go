package idempotency

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/csikit/csikit/internal/faultpoint"
)

// Operation describes a call.
type Operation struct {
	// Name says what is done to what, for messages: "CreateVolume pvc-1".
	Name string
	// Owner says who asked, for messages: a request id.
	Owner string
	// Keys are taken all at once. Where a name comes twice, exclusive wins.
	Keys []Key
	// Request is what Equal compares. It is looked at only when there is a second
	// call with the same keys.
	Request any
	// Equal tells whether the call asks for the same as an earlier one with the
	// same keys and result type; a is the earlier Request. Nil: never equal. The
	// table is locked while it runs: it must be quick and must not use the table.
	Equal func(earlier, a any) bool
	// Negates tells whether the call asks for the opposite of an earlier one that
	// is in its way. Nil: of none. As for Equal, the table is locked.
	Negates func(earlier Operation) bool
}

type state uint8

const (
	queued state = iota
	running
	ended
)

// operation is one entry of a table. Fields are guarded by Table.mu unless said
// otherwise.
type operation struct {
	op      Operation // constant
	self    runner    // constant
	base    opContext // constant
	act     Activity  // guards itself
	ctx     context.Context
	cancel  context.CancelCauseFunc
	holds   []hold
	inline  [3]hold // room for holds
	missing int     // holds not yet granted
	seq     uint64  // order of arrival
	state   state
	callers int           // calls that wait for its result
	left    chan struct{} // closed when callers must go: it has ended, or is stuck
	called  time.Time
	started time.Time
	cut     time.Time // when cause was set
	cause   error     // why ctx was cancelled
	stuck   bool      // does not change any more once left is closed
	locking bool      // runs, but waits for the Locker
	leases  []held    // written before fn is called
	err     error     // what callers get once left is closed

	prev, next *operation // in Table.all
	launch     *operation // in batch
}

// runner is a task[T] without its T.
type runner interface {
	run(t *Table)
	typ() any
}

type task[T any] struct {
	operation
	fn  func(context.Context) (T, error)
	val T
}

// typ gives a value that is equal for tasks of one type, and holds on to none.
func (k *task[T]) typ() any { return (*task[T])(nil) }

func newTask[T any](ctx context.Context, op Operation, fn func(context.Context) (T, error)) *task[T] {
	k := &task[T]{fn: fn}
	k.op, k.self, k.act.op = op, k, &k.operation
	k.base = opContext{context.WithoutCancel(ctx), &k.act}
	k.left = make(chan struct{})
	k.called = time.Now()
	k.setKeys(op.Keys)
	return k
}

func (k *task[T]) run(t *Table) {
	returned := false
	var err error
	defer func() {
		if !returned {
			err = newPanicError(k.op.Name, recover())
		}
		err = t.unlockKeys(&k.operation, err)
		t.finish(&k.operation, err)
	}()
	if t.needsLock(&k.operation) {
		err = t.lock(&k.operation)
	}
	faultpoint.Reach("idempotency.keys.held")
	if err == nil {
		k.val, err = k.fn(k.ctx)
	}
	faultpoint.Reach("idempotency.work.done")
	returned = true
}

func (o *operation) age() time.Duration {
	if o.state == queued {
		return time.Since(o.called)
	}
	return time.Since(o.started)
}

// joinable tells whether a call may still share o's fate.
func (o *operation) joinable() bool { return o.state != ended && o.cause == nil }

// start lets o run.
func (t *Table) start(o *operation, b *batch) {
	o.state, o.started = running, time.Now()
	o.act.last = o.started
	// Where callers do not wait for their turn, they wait for a lock as they do for
	// fn.
	o.locking = t.needsLock(o) && t.o.Wait > 0
	o.ctx, o.cancel = context.WithCancelCause(&o.base)
	t.touch(o)
	t.note(b, EventStart, o, "", nil)
	if b.launch == nil {
		b.launch = o
	} else {
		b.last.launch = o
	}
	b.last = o
	if t.o.Stall > 0 {
		t.arm(o.started.Add(t.o.Stall))
	}
}

// finish ends o: its fn has returned err.
func (t *Table) finish(o *operation, err error) {
	var b batch
	t.mu.Lock()
	if err != nil && o.cause != nil && !errors.Is(err, o.cause) {
		err = fmt.Errorf("%w: %w", o.cause, err)
	}
	o.cancel(nil) // frees what hangs on the context
	t.end(o, err, &b)
	t.unlock(&b)
	faultpoint.Reach("idempotency.keys.freed")
}

// end takes o out of the table and tells its callers.
func (t *Table) end(o *operation, err error, b *batch) {
	ran := o.state == running
	o.state, o.err = ended, err
	if ran {
		t.note(b, EventDone, o, "", err)
		t.keep(o)
	}
	t.dequeue(o, b)
	t.unlist(o)
	if !o.stuck {
		close(o.left)
	}
}

// cutOff cancels the context of a running operation, once.
func (t *Table) cutOff(o *operation, cause error) {
	o.cause, o.cut = cause, time.Now()
	o.cancel(cause)
	t.arm(o.cut.Add(t.o.Grace))
}
