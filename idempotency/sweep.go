package idempotency

import "time"

// One clock watches all operations: a timer for each would cost more than the
// rest of an operation.

// arm makes sweep run at the given time, or before.
func (t *Table) arm(at time.Time) {
	if !t.armed.IsZero() && !at.Before(t.armed) {
		return
	}
	t.armed = at
	if d := time.Until(at); t.timer == nil {
		t.timer = time.AfterFunc(d, t.sweep)
	} else {
		t.timer.Reset(d)
	}
}

// sweep cancels what has stalled, marks what is stuck, drops what is kept for too
// long, and arms the clock for the next of these.
func (t *Table) sweep() {
	var b batch
	t.mu.Lock()
	defer t.unlock(&b)
	now := time.Now()
	t.armed = time.Time{}
	for o := t.all; o != nil; {
		if o.state == running {
			t.watch(o, now, &b)
		}
		if o = o.next; o == t.all {
			break
		}
	}
	t.expire(now)
}

// watch looks after one running operation.
func (t *Table) watch(o *operation, now time.Time, b *batch) {
	if o.cause == nil {
		if t.o.Stall == 0 {
			return
		}
		_, since, busy := o.act.look()
		if busy {
			since = now // it can end at any moment, and then the clock starts
		}
		if due := since.Add(t.o.Stall); now.Before(due) {
			t.arm(due)
			return
		}
		t.note(b, EventStall, o, "", nil)
		t.cutOff(o, ErrStalled)
		return
	}
	if o.stuck {
		return
	}
	if due := o.cut.Add(t.o.Grace); now.Before(due) {
		t.arm(due)
		return
	}
	o.stuck = true
	t.note(b, EventStuck, o, "", nil)
	close(o.left)
}
