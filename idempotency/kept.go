package idempotency

import (
	"container/list"
	"errors"
	"time"
)

const (
	maxKept    = 1024             // errors that wait for a call to take them
	maxKeptAge = 10 * time.Minute // clients repeat a call after at most 5 minutes
)

// kept is an error that no caller was left to receive.
type kept struct {
	holds   []hold // only the keys of it
	request any
	typ     any
	err     error
	until   time.Time
	place   *list.Element // in Table.keptOrder, oldest first
}

// keep stores the error of o for the next equal call.
func (t *Table) keep(o *operation) {
	if o.callers > 0 || o.err == nil || o.op.Equal == nil || len(o.holds) == 0 {
		return
	}
	if o.cause != nil && !errors.Is(o.cause, ErrStalled) {
		return // the next call wants what was cut off on purpose, and no excuse
	}
	t.touch(o)
	k := &kept{
		request: o.op.Request, typ: o.self.typ(), err: o.err,
		until: time.Now().Add(maxKeptAge),
	}
	for _, h := range o.holds {
		k.holds = append(k.holds, hold{Key: h.Key})
		t.kept.set(h.Name, k)
	}
	k.place = t.keptOrder.PushBack(k)
	if t.keptOrder.Len() > maxKept {
		t.forget(t.keptOrder.Front().Value.(*kept))
	}
	t.arm(k.until)
}

// handOver finds the kept error that an equal call has left for o. It changes
// nothing, for Equal may panic.
func (t *Table) handOver(o *operation) *kept {
	if o.op.Equal == nil || len(o.holds) == 0 {
		return nil
	}
	k := t.kept.get(o.holds[0].Name)
	if k == nil || k.typ != o.self.typ() || !sameKeys(k.holds, o.holds) ||
		!time.Now().Before(k.until) || !o.op.Equal(k.request, o.op.Request) {
		return nil
	}
	return k
}

// touch drops the kept errors of o's keys: they tell of a state that o changes.
func (t *Table) touch(o *operation) {
	if t.kept.len() == 0 {
		return
	}
	for i := range o.holds {
		if k := t.kept.get(o.holds[i].Name); k != nil {
			t.forget(k)
		}
	}
}

func (t *Table) forget(k *kept) {
	for _, h := range k.holds {
		t.kept.delete(h.Name)
	}
	t.keptOrder.Remove(k.place)
}

// expire drops the kept errors that are too old and arms the clock for the next.
func (t *Table) expire(now time.Time) {
	for e := t.keptOrder.Front(); e != nil; e = t.keptOrder.Front() {
		k := e.Value.(*kept)
		if now.Before(k.until) {
			t.arm(k.until)
			return
		}
		t.forget(k)
	}
}
