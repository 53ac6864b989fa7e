package idempotency

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// The model says what the table must do, in the simplest words: an operation runs
// when no earlier one that is still there conflicts with it. It is slow and has no
// clocks or goroutines of its own.

const (
	modelWait   = 10 * time.Second
	modelMargin = time.Second
	modelGrace  = 5 * time.Second
	never       = time.Duration(1<<63 - 1)
)

// modelKeys are as in op: sorted, no name twice, ~ for shared.
type modelKeys []string

func newModelKeys(keys []string) modelKeys {
	byName := map[string]string{}
	for _, k := range keys {
		n := strings.TrimPrefix(k, "~")
		if old, ok := byName[n]; !ok || old != n {
			byName[n] = k
		}
	}
	var m modelKeys
	for _, k := range byName {
		m = append(m, k)
	}
	slices.Sort(m)
	return m
}

func (m modelKeys) conflicts(o modelKeys) bool {
	return m.meets(o, func(a, b string) bool { return a[0] != '~' || b[0] != '~' })
}

func (m modelKeys) touches(o modelKeys) bool {
	return m.meets(o, func(_, _ string) bool { return true })
}

func (m modelKeys) meets(o modelKeys, how func(a, b string) bool) bool {
	for _, a := range m {
		for _, b := range o {
			if strings.TrimPrefix(a, "~") == strings.TrimPrefix(b, "~") && how(a, b) {
				return true
			}
		}
	}
	return false
}

// modelCall is a call: what it asked for and what it must get.
type modelCall struct {
	id       int
	op       *modelOp // what it waits for; nil when it has its answer
	at       time.Duration
	waitTill time.Duration // when it gives up its place in the queue
	limit    time.Duration // its deadline less the margin
	answer   string        // "" while it waits
	inTheWay []string      // for pending: what it may be told of
}

type modelOp struct {
	id      int
	keys    modelKeys
	request string
	running bool
	cutAt   time.Duration // when it was negated; never: not
	stuck   bool
}

type modelKept struct {
	keys    modelKeys
	request string
	answer  string
	until   time.Duration
}

type model struct {
	now   time.Duration
	ops   []*modelOp // by arrival
	calls []*modelCall
	kept  []*modelKept
}

// call is what happens at a call that negates the given request.
func (m *model) call(id int, keys []string, request, negates string, deadline time.Duration) *modelCall {
	c := &modelCall{id: id, at: m.now, waitTill: never, limit: never}
	if deadline > 0 {
		c.limit = m.now + deadline - min(modelMargin, deadline/2)
	}
	m.calls = append(m.calls, c)
	k := newModelKeys(keys)
	if c.op = m.joinable(k, request); c.op == nil {
		if e := m.take(k, request); e != nil {
			c.answer = e.answer
			return c
		}
		m.negate(k, negates)
		c.op = &modelOp{id: id, keys: k, request: request, cutAt: never}
		m.ops = append(m.ops, c.op)
		m.settle()
	}
	if !c.op.running {
		c.waitTill = m.now + modelWait
	}
	return c
}

func (m *model) joinable(k modelKeys, request string) *modelOp {
	for i, o := range slices.Backward(m.ops) {
		overtaken := slices.ContainsFunc(m.ops[i+1:], func(l *modelOp) bool { return l.keys.conflicts(o.keys) })
		if o.request == request && slices.Equal(o.keys, k) && o.cutAt == never && !overtaken {
			return o
		}
	}
	return nil
}

func (m *model) take(k modelKeys, request string) *modelKept {
	for i, e := range m.kept {
		if slices.Equal(e.keys, k) && e.request == request && m.now < e.until {
			m.kept = slices.Delete(m.kept, i, i+1)
			return e
		}
	}
	return nil
}

func (m *model) negate(k modelKeys, request string) {
	var dropped []*modelOp
	for _, o := range m.ops {
		switch {
		case o.request != request || o.cutAt != never || !o.keys.conflicts(k):
		case o.running:
			o.cutAt = m.now
		default:
			dropped = append(dropped, o)
		}
	}
	for _, o := range dropped {
		m.remove(o, "negated")
	}
	m.settle()
}

// settle starts what may run.
func (m *model) settle() {
	for i, o := range m.ops {
		free := !slices.ContainsFunc(m.ops[:i], func(e *modelOp) bool { return e.keys.conflicts(o.keys) })
		if free && !o.running {
			o.running = true
			m.touch(o.keys)
		}
	}
}

func (m *model) touch(k modelKeys) {
	m.kept = slices.DeleteFunc(m.kept, func(e *modelKept) bool { return e.keys.touches(k) })
}

// remove answers the callers of an operation and takes it out.
func (m *model) remove(o *modelOp, answer string) {
	for _, c := range m.callers(o) {
		c.op, c.answer = nil, answer
	}
	m.ops = slices.DeleteFunc(m.ops, func(e *modelOp) bool { return e == o })
}

func (m *model) callers(o *modelOp) []*modelCall {
	var all []*modelCall
	for _, c := range m.calls {
		if c.op == o {
			all = append(all, c)
		}
	}
	return all
}

// finish ends a running operation; an answer of an error is kept if nobody gets it.
func (m *model) finish(o *modelOp, answer string, failed bool) {
	unheard := len(m.callers(o)) == 0
	m.remove(o, answer)
	if failed && unheard && o.cutAt == never {
		m.touch(o.keys)
		m.kept = append(m.kept, &modelKept{o.keys, o.request, answer, m.now + maxKeptAge})
	}
	m.settle()
}

// leave takes a caller away.
func (m *model) leave(c *modelCall, answer string) {
	o := c.op
	if answer == "pending" {
		c.inTheWay = m.inTheWay(o)
	}
	c.op, c.answer = nil, answer
	if !o.running && len(m.callers(o)) == 0 {
		m.remove(o, "")
		m.settle()
	}
}

// inTheWay names what a pending caller of o may be told of: running operations if
// there are any.
func (m *model) inTheWay(o *modelOp) []string {
	if o.running {
		return []string{modelName(o.id)}
	}
	var runs, waits []string
	for _, e := range m.ops {
		if e == o {
			break
		}
		if e.keys.conflicts(o.keys) && e.running {
			runs = append(runs, modelName(e.id))
		} else if e.keys.conflicts(o.keys) {
			waits = append(waits, modelName(e.id))
		}
	}
	if len(runs) > 0 {
		return runs
	}
	return waits
}

func modelName(id int) string { return "op" + string(rune('A'+id/26)) + string(rune('a'+id%26)) }

// pass lets time pass and does what falls due, in order.
func (m *model) pass(d time.Duration) {
	end := m.now + d
	for {
		due, do := never, func() {}
		for _, c := range m.calls {
			if c.op == nil {
				continue
			}
			if at := min(c.waitTill, c.limit); at < due {
				due, do = at, func() { m.ring(c) }
			}
		}
		for _, o := range m.ops {
			if at := o.cutAt + modelGrace; o.cutAt != never && !o.stuck && at < due {
				due, do = at, func() { m.stick(o) }
			}
		}
		if due > end {
			break
		}
		m.now = max(m.now, due)
		do()
	}
	m.now = end
	m.kept = slices.DeleteFunc(m.kept, func(e *modelKept) bool { return e.until <= m.now })
}

// ring is when the time of a caller is up.
func (m *model) ring(c *modelCall) {
	if c.op.running && m.now < c.limit {
		c.waitTill = never // its turn came in time
		return
	}
	m.leave(c, "pending")
}

// stick is when a cancelled operation has not ended in time.
func (m *model) stick(o *modelOp) {
	o.stuck = true
	for _, c := range m.callers(o) {
		m.leave(c, "pending")
	}
}

// running lists the operations that run, by the call that made them.
func (m *model) running() []int {
	ids := []int{}
	for _, o := range m.ops {
		if o.running {
			ids = append(ids, o.id)
		}
	}
	slices.SortFunc(ids, cmp.Compare)
	return ids
}
