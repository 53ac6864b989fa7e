package idempotency

import (
	"context"
	"sync"
	"time"
)

// Activity is how the running operation shows that it is alive. A nil *Activity
// does nothing.
type Activity struct {
	op *operation // constant

	mu   sync.Mutex
	step string
	last time.Time // of the last sign of life
	busy int
}

type activityKey struct{}

// FromContext gives the Activity of the operation whose context ctx is, or comes
// from; nil outside of one.
func FromContext(ctx context.Context) *Activity {
	a, _ := ctx.Value(activityKey{}).(*Activity)
	return a
}

// Progress restarts the stall clock and names the step that begins, for callers
// who wait and for [Table.Running].
func (a *Activity) Progress(step string) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.step, a.last = step, time.Now()
}

// Busy stops the stall clock until done is called: for work that has a deadline
// of its own. Done may be called more than once.
func (a *Activity) Busy(step string) (done func()) {
	if a == nil {
		return func() {}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.step, a.last = step, time.Now()
	a.busy++
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.busy--
		a.last = time.Now()
	})
}

// names says which operation it is and who asked for it.
func (a *Activity) names() (name, owner string) {
	if a == nil || a.op == nil {
		return "", ""
	}
	return a.op.op.Name, a.op.op.Owner
}

func (a *Activity) look() (step string, last time.Time, busy bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.step, a.last, a.busy > 0
}

// opContext has the values of the caller's context, not its end, and the
// Activity.
type opContext struct {
	context.Context
	act *Activity
}

func (c *opContext) Value(key any) any {
	if key == (activityKey{}) {
		return c.act
	}
	return c.Context.Value(key)
}
