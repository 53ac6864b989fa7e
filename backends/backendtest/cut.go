package backendtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/csikit/csikit/backends"
)

// operation is something that a backend does and that changes something. It can
// be done again at any time, with the same result.
type operation struct {
	name  string
	needs string
	holds string
	// prepare makes what the operation needs. It is called once for each time that
	// the operation is tried, and gives it names of its own.
	prepare func(t *T) task
	// opposite says that the task can be undone.
	opposite bool
}

// task is one operation, ready to be done.
type task struct {
	do   func(ctx context.Context) (any, error)
	done func(result any)                // looks at what is there afterwards; nil ok
	undo func(ctx context.Context) error // the opposite operation
	gone func()                          // looks at what is there after undo; nil ok
}

// What the cuts hold a backend to.
const (
	again   = "A method may be called again with the same request after any failure, a crash included, and must then finish or redo the work."
	negated = "it ends when the operation makes no [Progress] for Options.Stall, when the opposite operation is asked for, or when the driver stops."
)

// operationChecks are what every operation has to stand.
func operationChecks() []check {
	var list []check
	for _, op := range operations {
		list = append(list,
			check{op.name + "/twice", op.holds, op.needs, op.twice},
			check{op.name + "/reopened", again, op.needs, op.reopened},
			check{op.name + "/cut", again, op.needs, op.cut},
		)
		if op.opposite {
			list = append(list, check{op.name + "/cut and undone", negated, op.needs, op.undone})
		}
	}
	return list
}

func (op operation) twice(t *T) {
	task := op.prepare(t)
	first := t.perform(op.name, task)
	for range 2 {
		t.same(op.name+" again", t.perform(op.name, task), first)
	}
}

// perform does the task, and looks.
func (t *T) perform(name string, task task) any {
	t.Helper()
	result, err := task.do(t.Context())
	t.must(name, err)
	if task.done != nil {
		task.done(result)
	}
	return result
}

func (op operation) reopened(t *T) {
	t.want(t.cfg.Reopen != nil, "Reopen")
	task := op.prepare(t)
	t.reopen()
	first := t.perform(op.name, task)
	t.reopen()
	if task.done != nil {
		task.done(first)
	}
	t.reopen()
	t.same(op.name+" after the storage was opened again", t.perform(op.name, task), first)
}

// maxLooks bounds how late an operation is cut by the number of its looks at the
// context.
const maxLooks = 24

// eachCut does the operation until a cut comes too late, and hands every one that
// was cut to then: in the same process, and in the next one.
func (op operation) eachCut(t *T, then func(task)) {
	start := time.Now()
	t.perform(op.name, op.prepare(t)) // uncut, to know how long it takes
	whole := time.Since(start)
	for looks := range maxLooks {
		late := false
		for _, next := range []bool{false, true} {
			f := newFuse(t.TB, looks)
			op.cutBy(f, t, next, then)
			late = late || !f.burnt()
		}
		if late {
			break
		}
	}
	seed := rand.Uint64()
	t.Logf("seed of the random moments: %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range 4 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.Int64N(int64(whole)+1)))
		op.cutBy(ctx, t, i%2 == 1, then)
		cancel()
	}
}

// cutBy does the operation with a context that may end. One that says that it is
// done is done.
func (op operation) cutBy(ctx context.Context, t *T, next bool, then func(task)) {
	task := op.prepare(t)
	result, err := task.do(ctx)
	if err == nil && task.done != nil {
		task.done(result)
	}
	t.cutShort(op.name, err)
	if next && t.cfg.Reopen != nil {
		t.reopen()
	}
	then(task)
}

// cutShort looks at the answer of an operation whose context ended.
func (t *T) cutShort(name string, err error) {
	t.Helper()
	for _, kind := range []error{backends.ErrInvalid, backends.ErrNotFound, backends.ErrIncompatible, backends.ErrInUse, backends.ErrPermission, backends.ErrUnsupported, backends.ErrDataLoss} {
		if errors.Is(t.watch(name, err), kind) {
			t.Errorf("%s, whose context ended, says %q: %v", name, kind, err)
		}
	}
}

func (op operation) cut(t *T) {
	op.eachCut(t, func(task task) { t.perform(op.name+" after one that was cut short", task) })
}

func (op operation) undone(t *T) {
	op.eachCut(t, func(task task) {
		t.must("the opposite of "+op.name+" that was cut short", task.undo(t.Context()))
		if task.gone != nil {
			task.gone()
		}
	})
}
