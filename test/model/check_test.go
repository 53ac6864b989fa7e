package model

import (
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/csikit/csikit/idempotency"
)

// The rules. Each is sound: whatever order the driver's goroutines run in, one
// that keeps csikit's promises breaks none. Where two things happen at one instant
// of the bubble's clock, both orders are allowed.

// final are the codes after which a CO takes a call for surely not in progress.
func final(c codes.Code) bool {
	switch c {
	case codes.OK, codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Aborted:
		return false
	}
	return true
}

// same gives equal texts to requests that ask for the same: all but secrets. A
// publish is compared to the letter, because it hands its secrets on.
func (r *request) same() string {
	m := proto.Clone(r.in)
	if r.kind != "NodePublishVolume" {
		if f := m.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name("secrets")); f != nil {
			m.ProtoReflect().Clear(f)
		}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return r.kind + string(b)
}

// opposite tells whether d undoes what c does.
func opposite(d, c *asking) bool {
	return d.undoes == c.kind && d.about == c.about && (d.path == c.path || d.path == "*")
}

// check holds the history against the rules.
func (w *world) check() {
	w.checkExclusion()
	for _, c := range w.calls {
		if !c.returned.was() {
			w.violated("%v has not returned", c)
		}
		if c.action.deadline > 0 && c.returned.at > c.invoked.at+c.action.deadline {
			w.violated("%v returned %v after its deadline", c, c.returned.at-c.invoked.at-c.action.deadline)
		}
		w.checkClient(c)
		w.checkOrder(c)
		w.checkNegation(c)
		w.checkJoin(c)
		w.checkHanded(c)
		if c.op != nil {
			w.checkLife(c.op)
		}
		if c.handled.was() {
			w.checkAnswer(c)
		}
	}
}

// checkClient: what the client has is what the driver answered, or nothing.
func (w *world) checkClient(c *asking) {
	got := status.Code(c.got)
	switch {
	case got == codes.Unavailable, got == codes.Canceled, got == codes.DeadlineExceeded:
		return // it was cut off, or went away
	case !c.handled.was() && c.reads && got == codes.Internal && (c.action.plan.fails == "panic" || c.kind == "NodeGetVolumeStats"):
		// a panic; of which, for figures, one call may answer for several
	case !c.handled.was():
		w.violated("%v has %v, and the driver did not answer", c, answer(c.got))
	case got != status.Code(c.err), c.got == nil && !proto.Equal(c.resp, c.out):
		w.violated("%v has %v %v, and the driver answered %v %v", c, answer(c.got), c.out, answer(c.err), c.resp)
	}
}

// checkExclusion: no two operations with conflicting keys are in the backend at
// the same time.
func (w *world) checkExclusion() {
	for i, a := range w.ops {
		for _, b := range w.ops[:i] {
			if a.proc == b.proc && conflict(a.call.keys, b.call.keys) && a.first.seq < b.last.seq && b.first.seq < a.last.seq {
				w.violated("%v and %v were in the backend at the same time", b.call, a.call)
			}
		}
	}
}

// checkOrder: of two calls that conflict, the first to come is the first to be
// served, or gives up.
func (w *world) checkOrder(c *asking) {
	if !c.arrived.was() || len(c.keys) == 0 || c.kind == "DeleteVolumeGroupSnapshot" {
		return // which looks before it is an operation
	}
	for _, d := range w.calls {
		o := d.op
		if o == nil || o.proc != c.proc || d == c || d.arrived.at <= c.arrived.at || !conflict(c.keys, d.keys) {
			continue
		}
		waited := !c.handled.was() || c.handled.at > o.first.at
		began := c.op != nil && c.op.first.at <= o.first.at
		if waited && !began {
			w.violated("%v came after %v, was in its way, and was served first", d, c)
		}
	}
}

// joined is an operation of another call that c may have joined.
func (w *world) joined(c *asking) *operation {
	for _, o := range w.ops {
		if o.call != c && o.proc == c.proc && o.call.same == c.same && o.call.arrived.at <= c.arrived.at && (o.last.at >= c.arrived.at || o.inside > 0) {
			return o
		}
	}
	return nil
}

// checkNegation: the opposite of what runs cuts it short, at once.
func (w *world) checkNegation(d *asking) {
	late := d.proc != nil && d.proc.draining.was() && d.arrived.at >= d.proc.draining.at
	if d.undoes == "" || !d.arrived.was() || late || d.kind == "DeleteVolumeGroupSnapshot" {
		return
	}
	for _, o := range w.ops {
		if o.proc == d.proc && opposite(d, o.call) && o.within(d.arrived.at) && !o.died && (!o.cut.was() || o.cut.at > d.arrived.at) {
			w.violated("%v did not cancel %v, which ran", d, o.call)
		}
	}
}

// checkAnswer: what a call was told is true, and may be told.
func (w *world) checkAnswer(c *asking) {
	code := status.Code(c.err)
	if limit := c.limit(); limit > 0 && c.handled.at > c.arrived.at+limit && len(c.keys) > 0 && c.kind != "DeleteVolumeGroupSnapshot" {
		w.violated("%v was answered %v after its deadline less the margin", c, c.handled.at-c.arrived.at-limit)
	}
	switch {
	case code == codes.OK && c.reads:
		w.checkRead(c)
	case code == codes.OK:
		w.checkOK(c)
	case w.checkFault(c, code):
	case code == codes.Aborted:
		w.checkAborted(c)
	case code == codes.Unavailable:
		w.checkUnavailable(c)
	case code == codes.DeadlineExceeded:
		w.checkDeadline(c)
	case code == codes.Canceled:
		if c.action.cancel == 0 && !w.wasCut(c) && c.action.deadline == 0 {
			w.violated("%v was answered %v, and nobody cancelled it", c, answer(c.err))
		}
	default:
		w.checkRefusal(c, code)
	}
	if final(code) {
		w.checkFinal(c, code)
	}
}

// limit is how long a call with a deadline may take to be answered.
func (c *asking) limit() time.Duration {
	d := c.action.deadline
	if d == 0 {
		return 0
	}
	return d - min(500*time.Millisecond, d/2) + time.Millisecond // grpc rounds
}

// wasCut tells whether a connection, or the process, ended under a call.
func (w *world) wasCut(c *asking) bool { return c.returned.at <= c.handled.at && c.got != nil }

// answered are the ends of methods that an answer to c can be made of: of
// operations for the same that were at work after c came.
func (w *world) answered(c *asking) []*event {
	list := slices.Clone(c.looks)
	for _, o := range w.ops {
		if o.proc != c.proc || o.call.same != c.same {
			continue
		}
		for _, e := range o.events {
			if e.ended.was() && e.ended.at >= c.arrived.at && e.ended.at <= c.handled.at {
				list = append(list, e)
			}
		}
	}
	return list
}

// checkOK: after the call came, the backend or the kernel was asked, and what the
// answer says was so.
func (w *world) checkOK(c *asking) {
	events := w.answered(c)
	if len(events) == 0 {
		w.violated("%v was answered OK, and nobody was asked after it came", c)
		return
	}
	why := ""
	for _, e := range events {
		if why = c.holds(e); why == "" {
			return
		}
	}
	w.violated("%v was answered OK, and it was not so: %s", c, why)
}

// faultOf finds the injected failure of which an error speaks.
func (w *world) faultOf(err error) *operation {
	for _, o := range w.ops {
		if o.failed != nil && strings.Contains(status.Convert(err).Message(), o.failed.text) {
			return o
		}
	}
	return nil
}

// checkFault: an error of the backend goes to the calls that waited for it, or to
// one later call for the same if there were none and nobody touched the keys since.
func (w *world) checkFault(c *asking, code codes.Code) bool {
	if strings.Contains(answer(c.err), "fault-") && w.faultOf(c.err) == nil {
		return w.checkOwnFault(c, code) // of a call that is no operation
	}
	o := w.faultOf(c.err)
	if o == nil {
		return false
	}
	if o.call.same != c.same {
		w.violated("%v was answered with the error of %v: %v", c, o.call, answer(c.err))
	}
	if o.proc != c.proc {
		w.violated("%v was answered with the error of another process", c)
	}
	w.checkCode(c, code, o.failed, o.done())
	if o.last.at < c.arrived.at {
		w.checkHandOver(c, o)
	}
	return true
}

func (w *world) checkHandOver(c *asking, o *operation) {
	if why := w.withheld(c, o); why != "" {
		w.violated("%v was handed the error of %v, %s: %v", c, o.call, why, answer(c.err))
	}
}

// withheld says why c may not be handed the error with which an operation had
// ended before it came; "": it may.
func (w *world) withheld(c *asking, o *operation) string {
	if o.cause != nil && !errors.Is(o.cause, idempotency.ErrStalled) {
		return "which was cut off on purpose"
	}
	for _, d := range w.calls {
		if c.kind == "DeleteVolumeGroupSnapshot" {
			break // two of which may know other members, and hold other keys
		}
		if d == c || d.same != c.same || d.proc != c.proc || !d.arrived.was() {
			continue
		}
		if d.arrived.at <= o.last.at && d.handled.was() && d.handled.at == o.last.at && status.Code(d.err) == status.Code(c.err) {
			return "which " + d.String() + " was there to hear"
		}
		if d.arrived.at > o.last.at && d.arrived.at < c.arrived.at {
			return "which " + d.String() + " had been handed, or had asked again"
		}
	}
	for _, x := range w.ops {
		if x != o && x.proc == o.proc && x.first.at > o.last.at && x.first.at < c.arrived.at && touch(x.call.keys, o.call.keys) {
			return "after " + x.call.String() + " had touched its keys"
		}
	}
	return ""
}

// checkOwnFault is of a call that reads: its own failure alone can be told.
func (w *world) checkOwnFault(c *asking, code codes.Code) bool {
	if c.kind == "NodeGetVolumeStats" {
		return true // of which one call may answer for several
	}
	plan := &c.action.plan
	if !strings.Contains(answer(c.err), faultText(c.id)) {
		w.violated("%v was answered with the error of another call: %v", c, answer(c.err))
		return true
	}
	w.checkCode(c, code, &failure{kind: plan.fails}, nil)
	return true
}

// checkCode: the code is that of the error's kind, unless something had been done
// before.
func (w *world) checkCode(c *asking, code codes.Code, f *failure, done *event) {
	want := codes.Unavailable
	looks := f.where == "lookup" && !c.reads && c.undoes == "" && c.service() != nodeService
	switch {
	case done != nil:
	case looks && (f.method != "CheckVolume" || !final(code)): // an earlier call may have made it
	case f.kind == "failed", f.kind == "plain" && c.reads:
		want = codes.Internal
	case f.kind == "nospace":
		want = codes.ResourceExhausted
	}
	if c.service() == nodeService && !final(code) {
		return // the engine may have more to undo
	}
	if code == want || !final(want) && !final(code) || f.kind == "plain" && !final(code) {
		return // a context that ended has codes of its own
	}
	w.violated("%v was answered %v of a failure of kind %q", c, answer(c.err), f.kind)
}

// done is what an operation had changed when it was made to fail.
func (o *operation) done() *event {
	for _, e := range o.events {
		half := o.failed.where == "midway" || o.failed.where == "after"
		if changes[e.method] && e.method != "engine" && e.method != "OpenVolume" && e.ended.was() && (e.ended.seq < o.failed.at.seq || half) {
			return e
		}
	}
	return nil
}

// checkFinal: after a final code nothing of the call is in progress.
func (w *world) checkFinal(c *asking, code codes.Code) {
	for _, o := range w.ops {
		if o.proc == c.proc && o.call.same == c.same && o.within(c.handled.at) {
			w.violated("%v was answered with the final code %v, and %v was still at work", c, code, o.call)
		}
	}
	f := w.faultOf(c.err)
	if f == nil {
		return
	}
	if e := f.done(); e != nil {
		w.violated("%v was answered with the final code %v, after %v had been done", c, code, e.method)
	}
}
