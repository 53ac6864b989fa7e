package model

import (
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/idempotency"
)

// checkJoin: who asks for what runs waits for it and does nothing himself, unless
// somebody with other wishes waits already: then the later call has the last word.
func (w *world) checkJoin(c *asking) {
	if !c.arrived.was() || c.kind == "DeleteVolumeGroupSnapshot" {
		return // which looks before it is an operation
	}
	for _, o := range w.ops {
		if o.proc != c.proc || o.call == c || o.call.same != c.same || !o.within(c.arrived.at) || o.cut.was() && o.cut.at <= c.arrived.at {
			continue
		}
		overtaken := false
		for _, d := range w.inFlight(c.proc, c.arrived.at) {
			if d == c || d == o.call || !conflict(d.keys, c.keys) || d.same == c.same && d.op == nil {
				continue
			}
			overtaken = true
			if d.op != nil && d.op.first.at >= o.last.at && d.arrived.at < c.arrived.at && d.arrived.at > o.call.arrived.at && d.same != c.same {
				w.checkOvertaken(c, o, d)
			}
		}
		if c.op != nil && !overtaken {
			w.violated("%v did not join %v, which ran", c, o.call)
		}
	}
}

// checkHanded: an error that nobody was there to hear is handed to the next who
// asks for the same.
func (w *world) checkHanded(c *asking) {
	if c.op == nil || c.service() == nodeService || c.kind == "DeleteVolumeGroupSnapshot" {
		return
	}
	for _, o := range w.ops {
		if o.proc != c.proc || o.call.same != c.same || o.last.at >= c.arrived.at || !o.fails() || w.heard(o) || w.withheld(c, o) != "" {
			continue
		}
		quiet := true
		for _, d := range w.calls {
			between := d.arrived.was() && d.arrived.at < c.arrived.at && (!d.handled.was() || d.handled.at >= o.last.at || d.op != nil && d.op.last.at >= o.last.at)
			if d != c && d != o.call && d.proc == c.proc && between && touch(d.keys, c.keys) {
				quiet = false
			}
		}
		if quiet {
			w.violated("%v was not handed the error of %v, which nobody had heard", c, o.call)
		}
	}
}

// heard tells whether somebody was, or may have been, told how an operation ended.
func (w *world) heard(o *operation) bool {
	for _, d := range w.calls {
		if d.handled.was() && d.same == o.call.same && (d.handled.at == o.last.at || w.faultOf(d.err) == o) {
			return true
		}
	}
	return false
}

// fails tells whether an operation surely ended with the error that it was given.
func (o *operation) fails() bool {
	f := o.failed
	return f != nil && f.where != "lookup" && f.kind != "panic" && !o.cut.was() && !o.died
}

// checkOvertaken: an OK of before d is no answer to c, which came after d.
func (w *world) checkOvertaken(c *asking, o *operation, d *asking) {
	if c.handled.was() && status.Code(c.err) == codes.OK && c.handled.at <= d.op.first.at {
		w.violated("%v joined %v, which %v had overtaken", c, o.call, d)
	}
}

// checkLife: what runs is cancelled for a reason, and when it shows no progress.
func (w *world) checkLife(o *operation) {
	stalled := errors.Is(o.cause, idempotency.ErrStalled)
	if o.cut.was() && !stalled && !errors.Is(o.cause, idempotency.ErrNegated) && !errors.Is(o.cause, idempotency.ErrClosed) {
		w.violated("%v was cancelled in the backend: %v", o.call, o.cause)
	}
	if o.call.service() == nodeService {
		return // which may wait for the engine's own locks
	}
	plan := &o.call.action.plan
	if stalled && (plan.alive || o.cut.at < o.first.at+stall) {
		w.violated("%v was cancelled after %v for want of progress, which it had shown", o.call, o.cut.at-o.first.at)
	}
	if long := o.last.at - o.first.at; !o.cut.was() && !plan.alive && !o.died && long > 2*stall+time.Second {
		w.violated("%v was at work for %v without progress, and was not cancelled", o.call, long)
	}
}
