package idempotency

import (
	"slices"
	"strings"
)

// Key is a name that an operation holds while it runs. Any number of operations
// may hold it shared, or one exclusively.
type Key struct {
	Name   string
	Shared bool
}

// Exclusive is a key that shuts out every other holder.
func Exclusive(name string) Key { return Key{Name: name} }

// Shared is a key that shuts out exclusive holders.
func Shared(name string) Key { return Key{Name: name, Shared: true} }

// hold is the place of one operation in the queue of one key. A queue is a ring
// in order of arrival: first who hold the key, then who wait. Table.keys points
// at the first.
type hold struct {
	Key
	granted    bool
	op         *operation
	prev, next *hold
}

func (h *hold) conflicts(o *hold) bool { return !h.Shared || !o.Shared }

// setKeys fills o.holds, sorted by name; of a name given twice, exclusive wins.
func (o *operation) setKeys(keys []Key) {
	o.holds = o.inline[:0]
	for _, k := range keys {
		o.holds = append(o.holds, hold{Key: k})
	}
	if len(o.holds) > 1 {
		slices.SortFunc(o.holds, func(a, b hold) int { return strings.Compare(a.Name, b.Name) })
		n := 0
		for _, h := range o.holds[1:] {
			if h.Name == o.holds[n].Name {
				o.holds[n].Shared = o.holds[n].Shared && h.Shared
				continue
			}
			n++
			o.holds[n] = h
		}
		o.holds = o.holds[:n+1]
	}
	for i := range o.holds {
		o.holds[i].op = o
	}
}

// rarest names the key with the shortest queue, as far as one can tell: all in
// the world may hold a shared one.
func (o *operation) rarest() string {
	for i := range o.holds {
		if !o.holds[i].Shared {
			return o.holds[i].Name
		}
	}
	return o.holds[0].Name
}

// sameKeys tells whether both want the same names in the same way.
func sameKeys(a, b []hold) bool {
	return slices.EqualFunc(a, b, func(x, y hold) bool { return x.Key == y.Key })
}

// enqueue puts o at the end of the queue of each of its keys. That this happens
// under one lock is why there is no deadlock: an operation waits only for those
// that came before it.
func (t *Table) enqueue(o *operation) {
	o.missing = 0
	for i := range o.holds {
		h := &o.holds[i]
		first := t.keys.get(h.Name)
		if first == nil {
			h.prev, h.next, h.granted = h, h, true
			t.keys.set(h.Name, h)
			continue
		}
		last := first.prev
		h.prev, h.next = last, first
		last.next, first.prev = h, h
		if h.granted = h.Shared && last.Shared && last.granted; !h.granted {
			o.missing++
		}
	}
}

// dequeue takes o out of all queues and starts whom that lets through.
func (t *Table) dequeue(o *operation, b *batch) {
	for i := range o.holds {
		h := &o.holds[i]
		if h.next == h {
			t.keys.delete(h.Name)
		} else {
			first := t.keys.get(h.Name)
			if first == h {
				first = h.next
				t.keys.set(h.Name, first)
			}
			h.prev.next, h.next.prev = h.next, h.prev
			t.grant(first, b)
		}
		h.prev, h.next = nil, nil
	}
}

// grant gives the key to the first of a queue, and with a shared one to all
// shared ones that follow it directly.
func (t *Table) grant(first *hold, b *batch) {
	for h := first; ; {
		if h != first && !h.Shared {
			return
		}
		if !h.granted {
			h.granted = true
			if h.op.missing--; h.op.missing == 0 {
				t.start(h.op, b)
			}
		}
		if h = h.next; h == first || !first.Shared {
			return
		}
	}
}

// inTheWay yields the operations that come before o's place on one of its keys
// and conflict with it; for an o that is not in the queues yet, all that
// conflict. One may come up more than once.
func (t *Table) inTheWay(o *operation, yield func(*operation) bool) {
	for i := range o.holds {
		h := &o.holds[i]
		first := t.keys.get(h.Name)
		for x := first; x != nil && x != h; {
			if x.conflicts(h) && !yield(x.op) {
				return
			}
			if x = x.next; x == first {
				break
			}
		}
	}
}

// overtaken tells whether a conflicting operation has its place behind o.
func (t *Table) overtaken(o *operation) bool {
	for i := range o.holds {
		h := &o.holds[i]
		for x := h.next; x != t.keys.get(h.Name); x = x.next {
			if x.conflicts(h) {
				return true
			}
		}
	}
	return false
}
