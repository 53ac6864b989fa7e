package model

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/idempotency"
)

// checkAborted: something was in the way, and the time to wait was over; or the
// opposite had come.
func (w *world) checkAborted(c *asking) {
	text := c.err.Error()
	switch {
	case strings.Contains(text, "negated by a later call"):
		for _, d := range w.calls {
			if d.proc == c.proc && opposite(d, c) && w.couldNegate(d, c) {
				return
			}
		}
		w.violated("%v was answered that it was negated, and nobody had asked for the opposite", c)
	case strings.Contains(text, "is pending for"):
		w.checkPending(c, text)
	case strings.Contains(text, "another call for"): // the engine's own order within a volume
		for _, o := range w.ops {
			if o.proc == c.proc && o.call.about == c.about && o.call != c && o.touches(c.handled.at) {
				return
			}
		}
		w.violated("%v was answered %v, and there is no other call", c, text)
	default:
		w.violated("%v was answered %v", c, text)
	}
}

// couldNegate tells whether d, an opposite, can have cut off what c waited for.
func (w *world) couldNegate(d, c *asking) bool {
	if !d.arrived.was() || d.arrived.at > c.handled.at {
		return false
	}
	if d.arrived.at >= c.arrived.at {
		return true
	}
	if d.kind == "DeleteVolumeGroupSnapshot" { // which looks before it is an operation
		return !d.handled.was() || d.handled.at >= c.arrived.at
	}
	j := w.joined(c)
	return j != nil && j.cut.was() // before c joined
}

func (w *world) checkPending(c *asking, text string) {
	now := c.handled.at
	if !w.busy(c, now) {
		w.violated("%v was answered %q, and nothing in its way was at work", c, text)
	}
	if !w.names(c, now, text) {
		w.violated("%v was answered %q, and that was not in its way", c, text)
	}
	if strings.Contains(text, "does not end") {
		for _, o := range w.ops {
			if o.proc == c.proc && o.touches(now) && o.cut.was() && o.cut.at+grace <= now && touch(o.call.keys, c.keys) {
				return
			}
		}
		w.violated("%v was told of something stuck, and nothing was", c)
		return
	}
	patience := wait
	if limit := c.limit(); limit > 0 {
		patience = min(patience, limit-time.Millisecond)
	}
	if c.kind != "DeleteVolumeGroupSnapshot" && now < c.arrived.at+patience-2*time.Millisecond {
		w.violated("%v was answered after %v that it is pending, and could have waited for %v", c, now-c.arrived.at, patience)
	}
}

// inFlight are the calls that had come and were not answered, or whose operation
// was at work.
func (w *world) inFlight(p *process, at time.Duration) []*asking {
	var list []*asking
	for _, d := range w.calls {
		if d.proc != p || !d.arrived.was() || d.arrived.at > at {
			continue
		}
		if !d.handled.was() || d.handled.at >= at || d.op != nil && d.op.touches(at) {
			list = append(list, d)
		}
	}
	return list
}

// busy tells whether an operation was at work that was in c's way, or in the way
// of one that was.
func (w *world) busy(c *asking, at time.Duration) bool {
	flying := w.inFlight(c.proc, at)
	reached, next := map[*asking]bool{c: true}, []*asking{c}
	for len(next) > 0 {
		x := next[0]
		next = next[1:]
		for _, d := range flying {
			if x != c && reached[d] || d == c && d.op == nil {
				continue
			}
			if d.same != c.same && !conflict(x.keys, d.keys) {
				continue
			}
			if d.op != nil && d.op.touches(at) {
				return true
			}
			if !reached[d] {
				reached[d] = true
				next = append(next, d)
			}
		}
	}
	return false
}

// names tells whether a PendingError speaks of something that was in c's way, or
// of what c asked for.
func (w *world) names(c *asking, at time.Duration, text string) bool {
	for _, d := range w.inFlight(c.proc, at) {
		if (d.same == c.same || conflict(d.keys, c.keys)) && strings.Contains(text, d.kind+" "+d.said+" is pending for") {
			return true
		}
	}
	return false
}

// namedIn tells whether a list of what was cut has the operation of a call.
func namedIn(names []string, c *asking) bool {
	for _, n := range names {
		if strings.HasPrefix(n, c.kind+" "+c.said) {
			return true
		}
	}
	return false
}

// checkUnavailable: something was away: the driver shut down, the backend
// panicked, or the object was half made.
func (w *world) checkUnavailable(c *asking) {
	if c.service() == nodeService || strings.Contains(c.err.Error(), "was not known when it was locked") {
		return // whatever the engine has to undo, and a group that came in between
	}
	if c.proc.draining.was() && c.handled.at >= c.proc.draining.at {
		return
	}
	for _, o := range w.ops {
		if o.proc != c.proc || o.call.same != c.same || o.last.at < c.arrived.at && !handedOver(c, o) {
			continue
		}
		if o.failed != nil && o.failed.kind == "panic" {
			return
		}
		for _, e := range o.events {
			for _, s := range e.seen {
				if s.half {
					return
				}
			}
		}
	}
	for _, e := range c.looks {
		for _, s := range e.seen {
			if s.half {
				return
			}
		}
	}
	if c.reads && c.action.plan.fails == "panic" {
		return
	}
	w.violated("%v was answered %v, and nothing was away", c, answer(c.err))
}

// handedOver tells whether c may have the error of an operation that had ended.
func handedOver(c *asking, o *operation) bool { return o.last.at < c.arrived.at }

func (w *world) checkDeadline(c *asking) {
	if c.action.deadline > 0 && c.handled.at >= c.arrived.at+c.action.deadline-time.Millisecond {
		return
	}
	for _, o := range w.ops {
		if o.proc == c.proc && o.call.same == c.same && errors.Is(o.cause, idempotency.ErrStalled) && o.cut.at <= c.handled.at {
			return
		}
		if o.proc == c.proc && o.call.same == c.same && errors.Is(o.cause, context.DeadlineExceeded) {
			return
		}
	}
	w.violated("%v was answered %v, in time", c, answer(c.err))
}

// checkRefusal: a final code has a reason that was seen after the call came.
func (w *world) checkRefusal(c *asking, code codes.Code) {
	if c.kind == "NodeGetVolumeStats" || c.kind == "DeleteVolume" && code == codes.FailedPrecondition && w.staged(c) {
		return
	}
	for _, e := range w.answered(c) {
		if c.refuses(e, code) {
			return
		}
	}
	why := "for no reason"
	for _, o := range w.ops {
		if o.call.same != c.same || o.proc != c.proc || o.last.at >= c.arrived.at {
			continue
		}
		for _, e := range o.events {
			if c.refuses(e, code) {
				if why = w.withheld(c, o); why == "" {
					return
				}
				why = "handed over from " + o.call.String() + ", " + why
			}
		}
	}
	w.violated("%v was answered %v, %s", c, answer(c.err), why)
}

// staged tells whether somebody had tried to stage the volume of c: what the
// engine has of it forbids a deletion, before the backend is asked.
func (w *world) staged(c *asking) bool {
	for _, o := range w.ops {
		if o.call.kind == "NodeStageVolume" && o.call.about == c.about && o.first.at <= c.handled.at {
			return true
		}
	}
	return false
}

// refuses tells whether what an event saw is a reason for a code.
func (c *asking) refuses(e *event, code codes.Code) bool {
	s := e.seen[c.about]
	switch code {
	case codes.NotFound:
		for _, s := range e.seen {
			if s.gone() {
				return true
			}
		}
		return c.service() == nodeService
	case codes.AlreadyExists:
		switch c.kind {
		case "CreateVolume", "CreateSnapshot", "CreateVolumeGroupSnapshot":
			return s.there && c.holdsObject(s) != ""
		}
		return c.kind == "ControllerPublishVolume" || c.kind == "NodePublishVolume"
	case codes.OutOfRange:
		return c.kind == "CreateVolume" && len(c.sources) > 0 || c.kind == "NodeExpandVolume"
	case codes.FailedPrecondition:
		switch c.kind {
		case "DeleteVolume":
			return e.staged || s.volume != nil && len(s.volume.Nodes) > 0
		case "ControllerPublishVolume":
			return s.volume != nil && len(s.volume.Nodes) > 0
		}
		return c.service() == nodeService
	}
	return false
}

func (r *request) service() string { return r.full[:strings.LastIndexByte(r.full, '/')+1] }

// holds says why what an event saw is not what an OK says; "": it is.
func (c *asking) holds(e *event) string {
	s := e.seen[c.about]
	switch in := c.in.(type) {
	case *csi.CreateVolumeRequest, *csi.CreateSnapshotRequest, *csi.CreateVolumeGroupSnapshotRequest:
		return c.holdsObject(s)
	case *csi.DeleteVolumeRequest, *csi.DeleteSnapshotRequest, *csi.DeleteVolumeGroupSnapshotRequest:
		return unless(s.gone(), "%v is %v", c.about, s)
	case *csi.ControllerExpandVolumeRequest:
		size := c.resp.(*csi.ControllerExpandVolumeResponse).GetCapacityBytes()
		return unless(s.there && s.volume.Capacity == size && size >= in.GetCapacityRange().GetRequiredBytes(), "%v is %v, the answer %d", c.about, s, size)
	case *csi.ControllerModifyVolumeRequest:
		return unless(s.there && s.volume.Mutable["tier"] == in.GetMutableParameters()["tier"], "%v is %v", c.about, s)
	case *csi.ControllerPublishVolumeRequest:
		return unless(s.there && has(s.volume.Nodes, c.path), "%v is %v", c.about, s)
	case *csi.ControllerUnpublishVolumeRequest:
		return unless(!s.there || c.path == "*" && len(s.volume.Nodes) == 0 || !has(s.volume.Nodes, c.path), "%v is %v", c.about, s)
	case *csi.NodeStageVolumeRequest, *csi.NodePublishVolumeRequest:
		return unless(e.mounts == 1 && e.own == 1, "%d mounts at %s, %d of the volume", e.mounts, c.path, e.own)
	case *csi.NodeUnstageVolumeRequest:
		return unless(e.mounts == 0, "%d mounts at %s", e.mounts, c.path)
	case *csi.NodeUnpublishVolumeRequest: // where another volume may be
		return unless(e.own == 0 && (e.mounts > 0 || !e.target), "%d mounts of the volume at %s, it is there: %v", e.own, c.path, e.target)
	}
	return ""
}

func has(list []string, s string) bool {
	return strings.Contains("\x00"+strings.Join(list, "\x00")+"\x00", "\x00"+s+"\x00")
}

func unless(ok bool, format string, args ...any) string {
	if ok {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

// holdsObject says why an object is not what is asked for.
func (c *asking) holdsObject(s sight) string {
	if !s.there {
		return fmt.Sprintf("%v is %v", c.about, s)
	}
	switch in := c.in.(type) {
	case *csi.CreateVolumeRequest:
		maker, _ := s.maker.in.(*csi.CreateVolumeRequest)
		src := in.GetVolumeContentSource()
		switch {
		case s.volume.Capacity < in.GetCapacityRange().GetRequiredBytes():
			return fmt.Sprintf("it has %d bytes", s.volume.Capacity)
		case maker.GetParameters()["media"] != in.GetParameters()["media"]:
			return "it was made with other parameters, by " + s.maker.String()
		case s.volume.Source.SnapshotID != src.GetSnapshot().GetSnapshotId() || s.volume.Source.VolumeID != src.GetVolume().GetVolumeId():
			return "it was made of another source, by " + s.maker.String()
		}
		return c.holdsVolume(s)
	case *csi.CreateSnapshotRequest:
		out, _ := c.resp.(*csi.CreateSnapshotResponse)
		return unless(s.snapshot.VolumeID == in.GetSourceVolumeId() && (out == nil || out.GetSnapshot().GetSnapshotId() == s.snapshot.ID),
			"it is of volume %s; the answer %v", s.snapshot.VolumeID, out)
	case *csi.CreateVolumeGroupSnapshotRequest:
		var of []string
		for _, m := range s.group.Snapshots {
			of = append(of, m.VolumeID)
		}
		for _, id := range in.GetSourceVolumeIds() {
			if len(of) != len(in.GetSourceVolumeIds()) || !has(of, id) {
				return fmt.Sprintf("it is of %v", of)
			}
		}
	}
	return ""
}

// holdsVolume compares an answer with the volume.
func (c *asking) holdsVolume(s sight) string {
	if c.resp == nil {
		return ""
	}
	v := c.resp.(*csi.CreateVolumeResponse).GetVolume()
	return unless(v.GetVolumeId() == s.volume.ID && v.GetCapacityBytes() == s.volume.Capacity, "it is %v, the answer %v", s, v)
}
