package idempotency

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/csikit/csikit/internal/testenv"
)

// action is one step of a random program.
type action struct {
	kind     string // call, finish, cancel, pass
	keys     []string
	request  string
	negates  string
	deadline time.Duration
	which    int // of those that run, or wait
	fails    bool
	time     time.Duration
}

func (a action) String() string {
	switch a.kind {
	case "call":
		return fmt.Sprintf("call %v for %s, negates %q, deadline %v", a.keys, a.request, a.negates, a.deadline)
	case "finish":
		return fmt.Sprintf("finish %d, fails: %v", a.which, a.fails)
	case "cancel":
		return fmt.Sprintf("cancel %d", a.which)
	default:
		return fmt.Sprintf("pass %v", a.time)
	}
}

var actions = rapid.Custom(func(t *rapid.T) action {
	return action{
		kind:     rapid.SampledFrom([]string{"call", "call", "call", "finish", "finish", "cancel", "pass"}).Draw(t, "kind"),
		keys:     rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "~a", "~b", "c", "~c"}), 1, 4).Draw(t, "keys"),
		request:  rapid.SampledFrom([]string{"x", "y"}).Draw(t, "request"),
		negates:  rapid.SampledFrom([]string{"", "", "", "x", "y"}).Draw(t, "negates"),
		deadline: rapid.SampledFrom([]time.Duration{0, 0, time.Second, 4 * time.Second, time.Minute}).Draw(t, "deadline"),
		which:    rapid.IntRange(0, 5).Draw(t, "which"),
		fails:    rapid.Bool().Draw(t, "fails"),
		time:     rapid.SampledFrom([]time.Duration{time.Second, 3 * time.Second, 8 * time.Second, 2 * time.Minute, 11 * time.Minute}).Draw(t, "time"),
	}
})

// TestModel runs random programs on a table and on the model, and compares after
// each step who runs and who was answered what.
func TestModel(t *testing.T) {
	for range 10 { // of a hundred programs
		rapid.Check(t, func(rt *rapid.T) { checkProgram(t, rt) })
	}
}

func checkProgram(t *testing.T, rt *rapid.T) {
	n := rapid.IntRange(1, 60).Draw(rt, "length")
	program := rapid.SliceOfN(actions, n, n).Draw(rt, "program")
	var fault string
	testenv.Bubble(t, func(t *testing.T) {
		m := newMachine(t)
		defer m.stop()
		for i, a := range program {
			m.step(a)
			if fault = m.compare(); fault != "" {
				fault = fmt.Sprintf("after step %d, %v: %s", i, a, fault)
				return
			}
		}
		fault = m.drain()
	})
	if fault != "" {
		rt.Fatal(fault)
	}
}

// machine is a table, the model of it, and what was seen.
type machine struct {
	ctx   context.Context
	table *Table
	model model
	calls []*machineCall

	mu      sync.Mutex // of what follows, and the answers of calls
	running []*machineCall
	clash   string
}

type machineCall struct {
	id     int
	name   string
	keys   modelKeys
	finish chan error
	cancel context.CancelFunc
	answer string
}

func newMachine(t *testing.T) *machine {
	return &machine{ctx: t.Context(), table: NewTable(&Options{
		Wait: modelWait, Margin: modelMargin, Grace: modelGrace, Stall: -1,
	})}
}

func (m *machine) step(a action) {
	switch a.kind {
	case "call":
		m.pass(time.Millisecond) // so that no two calls' times are up at once
		m.call(a)
	case "finish":
		if run := m.model.running(); len(run) > 0 {
			m.finish(run[a.which%len(run)], a.fails)
		}
	case "cancel":
		var wait []*modelCall
		for _, c := range m.model.calls {
			if c.op != nil {
				wait = append(wait, c)
			}
		}
		if len(wait) > 0 {
			c := wait[a.which%len(wait)]
			m.model.leave(c, "canceled")
			m.calls[c.id].cancel()
		}
	case "pass":
		m.pass(a.time)
	}
	synctest.Wait()
}

func (m *machine) pass(d time.Duration) {
	m.model.pass(d)
	sleep(d)
}

func (m *machine) call(a action) {
	c := &machineCall{id: len(m.calls), keys: newModelKeys(a.keys), finish: make(chan error, 1)}
	c.name = modelName(c.id)
	m.calls = append(m.calls, c)
	m.model.call(c.id, a.keys, a.request, a.negates, a.deadline)

	o := op(c.name, a.keys...)
	o.Request = a.request
	o.Negates = func(e Operation) bool { return e.Request == a.negates }
	ctx, cancel := context.WithCancel(m.ctx)
	if a.deadline > 0 {
		ctx, cancel = context.WithTimeout(m.ctx, a.deadline)
	}
	c.cancel = cancel
	go func() {
		val, err := Do(ctx, m.table, o, func(context.Context) (string, error) { return m.run(c) })
		m.mu.Lock()
		defer m.mu.Unlock()
		c.answer = answer(val, err)
	}()
}

// run is fn: it ends when the program says so, and watches who else runs.
func (m *machine) run(c *machineCall) (string, error) {
	m.mu.Lock()
	for _, o := range m.running {
		if o.keys.conflicts(c.keys) {
			m.clash = fmt.Sprintf("%s %v runs beside %s %v", c.name, c.keys, o.name, o.keys)
		}
	}
	m.running = append(m.running, c)
	m.mu.Unlock()

	err := <-c.finish

	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = slices.DeleteFunc(m.running, func(o *machineCall) bool { return o == c })
	return c.name, err
}

func (m *machine) finish(id int, fails bool) {
	i := slices.IndexFunc(m.model.ops, func(o *modelOp) bool { return o.id == id })
	o, c := m.model.ops[i], m.calls[id]
	if fails {
		m.model.finish(o, "failed "+c.name, true)
		c.finish <- errors.New(c.name)
	} else {
		m.model.finish(o, "ok "+c.name, false)
		c.finish <- nil
	}
}

// answer puts what Do returned into the words of the model.
func answer(val string, err error) string {
	p, pending := errors.AsType[*PendingError](err)
	switch {
	case err == nil:
		return "ok " + val
	case pending:
		return "pending " + p.Name
	case err == ErrNegated:
		return "negated"
	case errors.Is(err, context.Canceled):
		return "canceled"
	default: // a negated operation that failed has the cause in front
		return "failed " + strings.TrimPrefix(err.Error(), ErrNegated.Error()+": ")
	}
}

func (m *machine) compare() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.clash != "" {
		return m.clash
	}
	var run []int
	for _, c := range m.running {
		run = append(run, c.id)
	}
	slices.Sort(run)
	if want := m.model.running(); !slices.Equal(run, want) {
		return fmt.Sprintf("calls %v run, want %v", run, want)
	}
	for i, want := range m.model.calls {
		got := m.calls[i].answer
		if p, ok := strings.CutPrefix(got, "pending "); ok && want.answer == "pending" && slices.Contains(want.inTheWay, p) {
			continue
		}
		if got != want.answer {
			return fmt.Sprintf("call %d got %q, want %q %q", i, got, want.answer, want.inTheWay)
		}
	}
	if names := m.table.Running(); len(names) != len(run) {
		return fmt.Sprintf("Running() = %+v, want %v", names, run)
	}
	return ""
}

// drain ends all that runs until nothing is left: whoever waits must get its turn.
func (m *machine) drain() string {
	for run := m.model.running(); len(run) > 0; run = m.model.running() {
		m.finish(run[0], false)
		synctest.Wait()
		if fault := m.compare(); fault != "" {
			return "while draining: " + fault
		}
	}
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	if m.table.all != nil || m.table.keys.len() != 0 || m.table.keptOrder.Len() != len(m.model.kept) {
		return fmt.Sprintf("the empty table keeps %d keys and %d errors; want %d errors",
			m.table.keys.len(), m.table.keptOrder.Len(), len(m.model.kept))
	}
	return ""
}

// stop ends every goroutine, so that the bubble can end.
func (m *machine) stop() {
	for _, c := range m.calls {
		c.cancel()
		select {
		case c.finish <- errTest:
		default:
		}
	}
	synctest.Wait()
}
