package idempotency

import (
	"context"
	"slices"
	"time"
)

// Info describes a running operation.
type Info struct {
	Name         string
	Owner        string
	Step         string // the last that it told of
	Started      time.Time
	LastProgress time.Time
	Waiters      int  // calls that wait for its end: joined and conflicting
	Stuck        bool // its context has ended and it has not
	Keys         []Key
}

// Running lists the operations that run, the oldest call first.
func (t *Table) Running() []Info {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.running()
}

func (t *Table) running() []Info {
	waiting := make(map[*operation]int)
	t.each(func(o *operation) {
		if o.state != queued {
			return
		}
		seen := make(map[*operation]bool)
		t.inTheWay(o, func(e *operation) bool {
			if !seen[e] {
				seen[e] = true
				waiting[e] += o.callers
			}
			return true
		})
	})
	var all []Info
	t.each(func(o *operation) {
		if o.state != running {
			return
		}
		step, last, _ := o.act.look()
		all = append(all, Info{
			Name: o.op.Name, Owner: o.op.Owner, Step: step, Started: o.started,
			LastProgress: last, Waiters: o.callers + waiting[o], Stuck: o.stuck, Keys: o.keys(),
		})
	})
	return all
}

func (o *operation) keys() []Key {
	keys := make([]Key, len(o.holds))
	for i := range o.holds {
		keys[i] = o.holds[i].Key
	}
	return keys
}

// each calls f for every operation, by age; f may take the one it gets out.
func (t *Table) each(f func(*operation)) {
	o := t.all
	for n := t.count(); n > 0; n-- {
		next := o.next
		f(o)
		o = next
	}
}

func (t *Table) count() int {
	n := 0
	if o := t.all; o != nil {
		for n++; o.next != t.all; n++ {
			o = o.next
		}
	}
	return n
}

// Shutdown refuses calls from now on with [ErrClosed] and waits until all
// operations, running and waiting, have ended. When ctx ends first, it drops
// the waiting ones, cancels the running ones with ErrClosed and returns what it
// cut off. Those may take a moment to end: another Shutdown waits for them.
func (t *Table) Shutdown(ctx context.Context) (cut []Info) {
	idle := t.refuse()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
	}
	var b batch
	t.mu.Lock()
	defer t.unlock(&b)
	t.dropQueued(&b)
	cut = t.running()
	t.each(func(o *operation) {
		if o.cause == nil {
			t.cutOff(o, ErrClosed)
		}
	})
	return cut
}

// dropQueued ends what has not begun, the latest first, so that none of them
// begins because of it.
func (t *Table) dropQueued(b *batch) {
	var all []*operation
	t.each(func(o *operation) {
		if o.state == queued {
			all = append(all, o)
		}
	})
	for _, o := range slices.Backward(all) {
		t.end(o, ErrClosed, b)
	}
}

// refuse turns calls away and gives a channel that is closed when the table is
// empty; nil if it is empty now.
func (t *Table) refuse() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.all == nil {
		return nil
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	return t.idle
}
