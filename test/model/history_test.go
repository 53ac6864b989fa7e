package model

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// moment is a time in the bubble, and a place in the order of all that happened.
// Times are compared where two goroutines may be at work at one instant.
type moment struct {
	at  time.Duration
	seq int // 0: it has not happened
}

func (m moment) was() bool { return m.seq > 0 }

// asking is one call: what was asked, and what became of it.
type asking struct {
	*request
	id     int
	action *action
	proc   *process // where it arrived
	same   string   // equal for calls that ask for the same

	invoked, arrived, handled, returned moment

	resp proto.Message // the driver's answer
	err  error
	op   *operation // that it began
	// of a call without operation: what it saw
	looks []*event
	// what the client has
	out proto.Message
	got error
}

func (c *asking) String() string { return fmt.Sprintf("#%d %s", c.id, c.title()) }

func (c *asking) title() string {
	s := c.kind
	if c.about != "" {
		s += " " + string(c.about)
	}
	if len(c.sources) > 0 {
		s += fmt.Sprintf(" of %v", c.sources)
	}
	if c.path != "" {
		s += " at " + c.path[strings.LastIndexByte(c.path, '/')+1:]
	}
	if c.action.variant > 0 {
		s += fmt.Sprintf(" variant %d", c.action.variant)
	}
	return s
}

// operation is what the backend and the engine are asked for in one operation of
// the driver.
type operation struct {
	call   *asking
	proc   *process
	events []*event
	inside int
	first  moment
	last   moment
	cut    moment // when it noticed that it was cancelled
	cause  error
	failed *failure // that was put in its way
	died   bool     // its process did first
}

// within tells whether it was at work before and after an instant, touches whether
// it may have been at it. They compare times, for what happens at one instant has
// no order.
func (o *operation) within(at time.Duration) bool {
	return o.first.at < at && (at < o.last.at || o.inside > 0)
}

func (o *operation) touches(at time.Duration) bool {
	return o.first.at <= at && (at <= o.last.at || o.inside > 0)
}

// event is the end of a call of the backend or of the engine.
type event struct {
	begun, ended moment
	method       string
	seen         map[object]sight // of the objects that the call is about
	mounts       int              // at its path, when it ended
	own          int              // those of its volume
	target       bool             // its path exists
	staged       bool             // the engine says that the volume is in use
	err          error            // of the engine, or what was injected
}

// sight is an object as the storage has it.
type sight struct {
	there, half bool
	volume      *backends.Volume
	snapshot    *backends.Snapshot
	group       *backends.GroupSnapshot
	maker       *asking // who made it
}

// failure is an error that was injected.
type failure struct {
	kind   string
	where  string
	method string
	at     moment
	text   string // that only this one has
}

// look asks the storage itself.
func (w *world) look(o object) sight {
	ctx, s := context.Background(), sight{maker: w.makers[o]}
	var err error
	switch o[0] {
	case 'v':
		s.volume, err = w.eye.Volume(ctx, backends.VolumeRequest{ID: ids[o]})
	case 's':
		s.snapshot, err = w.eye.Snapshot(ctx, backends.SnapshotRequest{ID: ids[o]})
	case 'g':
		s.group, err = w.eye.GroupSnapshot(ctx, backends.GroupSnapshotRequest{ID: ids[o]})
	}
	s.there = err == nil
	s.half = isUnavailable(err)
	return s
}

func (s sight) gone() bool { return !s.there && !s.half }

func (s sight) String() string {
	switch {
	case s.half:
		return "half"
	case !s.there:
		return "gone"
	case s.volume != nil:
		return fmt.Sprintf("there (%dGi %v at %v)", s.volume.Capacity/gib, s.volume.Mutable["tier"], s.volume.Nodes)
	}
	return "there"
}

// note adds a line to the history. w.mu is held.
func (w *world) note(m moment, format string, args ...any) {
	w.lines = append(w.lines, line{m, format, args})
}

type line struct {
	moment
	format string
	args   []any
}

func (l line) String() string {
	return readable.Replace(fmt.Sprintf("%12.6fs  ", l.at.Seconds()) + fmt.Sprintf(l.format, l.args...))
}

// history is all that happened, for people.
func (w *world) history() string {
	var b strings.Builder
	for _, l := range w.lines {
		b.WriteString(l.String() + "\n")
	}
	return strings.ReplaceAll(b.String(), w.dir+"/", "")
}

func answer(err error) string {
	if err == nil {
		return "OK"
	}
	s := status.Convert(err)
	return fmt.Sprintf("%v: %s", s.Code(), s.Message())
}
