package idempotency

import (
	"context"
	"time"
)

// await waits until o has ended, as far as this caller can wait.
func (t *Table) await(ctx context.Context, o *operation, caller *Operation) error {
	limit, limited := t.limit(ctx)
	until, bounded := limit, limited
	if t.waits(o) {
		if turn := time.Now().Add(t.o.Wait); !limited || turn.Before(limit) {
			until, bounded = turn, true
		}
	}
	var timer *time.Timer
	var rings <-chan time.Time
	if bounded {
		timer = time.NewTimer(time.Until(until))
		defer timer.Stop()
		rings = timer.C
	}
	for {
		select {
		case <-o.left:
			if !o.stuck {
				return nil
			}
			return t.leave(o, caller, nil)
		case <-ctx.Done():
			return t.leave(o, caller, ctx.Err())
		case <-rings:
		}
		if t.waits(o) || limited && !time.Now().Before(limit) {
			return t.leave(o, caller, nil)
		}
		// Its turn came while it waited: from now on only ctx limits the wait.
		if rings = nil; limited {
			timer.Reset(time.Until(limit))
			rings = timer.C
		}
	}
}

// limit is the last moment for an answer to a caller who has a deadline.
func (t *Table) limit(ctx context.Context) (time.Time, bool) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return time.Time{}, false
	}
	return deadline.Add(-min(t.o.Margin, time.Until(deadline)/2)), true
}

func (t *Table) waits(o *operation) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return o.state == queued || o.locking
}

// leave takes a caller away from o before o's end. Without an error of its own
// the caller is told what it waited for. If o has ended after all, leave returns
// nil and the caller takes the result. An operation that was not yet begun, and
// that nobody waits for, is dropped; one that waits for a lock too.
func (t *Table) leave(o *operation, caller *Operation, err error) error {
	var b batch
	t.mu.Lock()
	defer t.unlock(&b)
	if o.state == ended {
		return nil
	}
	o.callers--
	if err == nil {
		in := t.blocker(o)
		err = in.pending()
		t.note(&b, EventPending, in, caller.Owner, err)
	}
	switch {
	case o.callers > 0:
	case o.state == queued:
		t.end(o, err, &b)
	case o.locking && o.cause == nil:
		t.cutOff(o, err)
	}
	return err
}

// blocker is what o's callers wait for: o itself when it runs, else the oldest
// that runs of those in its way, else the first of those.
func (t *Table) blocker(o *operation) *operation {
	best := o
	if o.state != queued {
		return o
	}
	t.inTheWay(o, func(e *operation) bool {
		switch {
		case best == o, best.state == queued && e.state == running:
			best = e
		case best.state == e.state && e.started.Before(best.started):
			best = e
		}
		return true
	})
	return best
}

func (o *operation) pending() *PendingError {
	step, _, _ := o.act.look()
	return &PendingError{Name: o.op.Name, Step: step, Owner: o.op.Owner, Age: o.age(), Stuck: o.stuck}
}
