package idempotency

import (
	"cmp"
	"container/list"
	"context"
	"slices"
	"sync"
	"time"
)

// Options of a table. Nil or zero values mean the defaults.
type Options struct {
	// Wait is the longest wait for a conflicting operation: 0: 10 s, negative: none.
	Wait time.Duration
	// Stall is how long an operation may go without progress or work that
	// has a deadline of its own: 0: 2 min, negative: for ever.
	Stall time.Duration
	// Margin is kept before the caller's deadline, so that the answer still
	// arrives: 0: 500 ms, negative: none. It is never more than half of the time
	// that the caller gave.
	Margin time.Duration
	// Grace is how long an operation may go on after its context was cancelled,
	// before it counts as stuck: 0: 10 s, negative: none.
	Grace time.Duration
	// Locker makes exclusive keys hold across processes, and if it is a SharedLocker
	// shared ones too. Nil: they hold in this one.
	Locker Locker
	// Observer is told what happens. It is called on the goroutine that made it
	// happen, so it must be quick; it may use the table.
	Observer func(Event)
}

// Table holds the operations of one process. Make it with [NewTable].
type Table struct {
	o      Options
	shares SharedLocker // o.Locker, if it is one

	mu        sync.Mutex
	keys      keyMap[*hold] // the first of each key's queue
	seq       uint64        // of the latest operation
	all       *operation    // queued and running, by age; a ring
	kept      keyMap[*kept] // by each of its keys
	keptOrder *list.List
	timer     *time.Timer // runs sweep
	armed     time.Time   // when; zero: not
	closed    bool
	idle      chan struct{} // made by Shutdown, closed when all is empty
}

// NewTable makes a table; nil options are the defaults.
func NewTable(o *Options) *Table {
	t := &Table{keptOrder: list.New()}
	if o != nil {
		t.o = *o
	}
	orDefault(&t.o.Wait, 10*time.Second)
	orDefault(&t.o.Stall, 2*time.Minute)
	orDefault(&t.o.Margin, 500*time.Millisecond)
	orDefault(&t.o.Grace, 10*time.Second)
	t.shares, _ = t.o.Locker.(SharedLocker)
	return t
}

func orDefault(v *time.Duration, d time.Duration) {
	if *v == 0 {
		*v = d
	}
	*v = max(*v, 0)
}

// Do runs fn as the operation op, or joins an equal one, and returns the result.
//
// The context of fn has ctx's values but not its end: it is cancelled when
// the operation stalls, is negated, or outlasts Shutdown; see [ErrStalled],
// [ErrNegated], [ErrClosed]. If ctx ends first, Do returns its error and fn runs
// on. If ctx's deadline is near, or the wait for other operations was too long,
// Do returns a [*PendingError]. A panic of fn is returned as a [*PanicError] to
// all callers, and one of Equal or Negates to this one.
//
// A call joins an equal one that runs or waits, unless a conflicting call came
// in between: then the later call has the last word, and runs again.
func Do[T any](ctx context.Context, t *Table, op Operation, fn func(ctx context.Context) (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	k := newTask(ctx, op, fn)
	o, err := t.admit(&k.operation)
	if err != nil {
		return none, err
	}
	if err := t.await(ctx, o, &op); err != nil {
		return none, err
	}
	k = o.self.(*task[T])
	return k.val, k.err
}

// admit finds the operation that a call waits for: one that it joins, or its own.
func (t *Table) admit(o *operation) (*operation, error) {
	var b batch
	t.mu.Lock()
	defer t.unlock(&b)
	if t.closed {
		return nil, ErrClosed
	}
	d := t.decide(o)
	switch {
	case d.err != nil:
		return nil, d.err
	case d.join != nil:
		d.join.callers++
		t.note(&b, EventJoin, d.join, o.op.Owner, nil)
		return d.join, nil
	case d.take != nil:
		t.forget(d.take)
		t.note(&b, EventHandOver, o, o.op.Owner, d.take.err)
		return nil, d.take.err
	}
	for _, n := range d.negate {
		t.negate(n, o, &b)
	}
	t.add(o, &b)
	return o, nil
}

// decision is what becomes of a call; nothing set: it takes its place.
type decision struct {
	err    error
	join   *operation
	take   *kept
	negate []*operation
}

// decide changes nothing, for it calls foreign code, which may panic.
func (t *Table) decide(o *operation) (d decision) {
	defer func() {
		if v := recover(); v != nil {
			d = decision{err: newPanicError(o.op.Name, v)}
		}
	}()
	if d.join = t.equal(o); d.join != nil {
		return d
	}
	if d.take = t.handOver(o); d.take != nil {
		return d
	}
	d.negate = t.negated(o)
	return d
}

// equal finds the operation that o may join.
func (t *Table) equal(o *operation) *operation {
	if o.op.Equal == nil || len(o.holds) == 0 {
		return nil
	}
	first := t.keys.get(o.rarest())
	if first == nil {
		return nil
	}
	// The latest first: an earlier one with the same keys is overtaken, or both
	// are shared.
	for h := first.prev; ; h = h.prev {
		e := h.op
		if e.joinable() && e.self.typ() == o.self.typ() && sameKeys(e.holds, o.holds) &&
			!t.overtaken(e) && o.op.Equal(e.op.Request, o.op.Request) {
			return e
		}
		if h == first {
			return nil
		}
	}
}

// negated lists the operations in o's way whose opposite it is, the latest first,
// so that to drop one does not let the next begin.
func (t *Table) negated(o *operation) []*operation {
	if o.op.Negates == nil {
		return nil
	}
	var all []*operation
	t.inTheWay(o, func(e *operation) bool {
		if e.joinable() && o.op.Negates(e.op) {
			all = append(all, e)
		}
		return true
	})
	slices.SortFunc(all, func(a, b *operation) int { return cmp.Compare(b.seq, a.seq) })
	return slices.Compact(all)
}

// negate cuts a running operation off. One that has not begun shall not begin:
// it would undo what the later call is about to do.
func (t *Table) negate(n, by *operation, b *batch) {
	t.note(b, EventNegate, n, by.op.Owner, nil)
	if n.state == running {
		t.cutOff(n, ErrNegated)
		return
	}
	t.end(n, ErrNegated, b)
}

// add puts o into the table and starts it if nothing is in its way.
func (t *Table) add(o *operation, b *batch) {
	t.seq++
	o.seq, o.callers = t.seq, 1
	if t.all == nil {
		o.prev, o.next = o, o
		t.all = o
	} else {
		o.prev, o.next = t.all.prev, t.all
		o.prev.next, o.next.prev = o, o
	}
	t.enqueue(o)
	if o.missing == 0 {
		t.start(o, b)
		return
	}
	t.note(b, EventWait, o, "", nil)
}

func (t *Table) unlist(o *operation) {
	if o.next == o {
		t.all = nil
		if t.idle != nil {
			close(t.idle)
			t.idle = nil
		}
	} else {
		if t.all == o {
			t.all = o.next
		}
		o.prev.next, o.next.prev = o.next, o.prev
	}
	o.prev, o.next = nil, nil
}
