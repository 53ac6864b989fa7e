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

	"github.com/csikit/csikit/internal/testenv"
)

// locks is what replicas share.
type locks struct {
	mu      sync.Mutex
	free    *sync.Cond
	held    map[string]*lease
	order   []string // what happened
	refuse  error    // of Lock
	failing error    // of Unlock
	hang    bool     // Lock ignores its context's end
	tokens  int64
}

func newLocks() *locks {
	l := &locks{held: make(map[string]*lease)}
	l.free = sync.NewCond(&l.mu)
	return l
}

type lease struct {
	all   *locks
	key   string
	token int64
	lost  chan struct{}
}

func (l *locks) Lock(ctx context.Context, key string) (Lease, error) {
	if strings.HasPrefix(key, "local") {
		return nil, nil
	}
	defer context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.free.Broadcast()
	})()
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.held[key] != nil && (l.hang || ctx.Err() == nil) {
		l.free.Wait()
	}
	if l.refuse != nil {
		return nil, l.refuse
	}
	if err := ctx.Err(); err != nil && !l.hang {
		return nil, err
	}
	l.tokens++
	h := &lease{all: l, key: key, token: l.tokens, lost: make(chan struct{})}
	l.held[key] = h
	l.order = append(l.order, "lock "+key)
	return h, nil
}

func (h *lease) Token() int64          { return h.token }
func (h *lease) Lost() <-chan struct{} { return h.lost }

func (h *lease) Unlock(context.Context) error {
	l := h.all
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[h.key] == h {
		delete(l.held, h.key)
		l.order = append(l.order, "unlock "+h.key)
		l.free.Broadcast()
	}
	return l.failing
}

// lose gives the key's lease to nobody.
func (l *locks) lose(key string) {
	l.mu.Lock()
	h := l.held[key]
	delete(l.held, key)
	close(h.lost)
	l.free.Broadcast()
	l.mu.Unlock()
	synctest.Wait()
}

func (l *locks) mustBeFree(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held) > 0 {
		t.Errorf("locked: %v", l.held)
	}
}

// replicas runs f with two tables that share locks.
func replicas(t *testing.T, o Options, f func(t *testing.T, l *locks, a, b *rig)) {
	t.Helper()
	testenv.Bubble(t, func(t *testing.T) {
		l := newLocks()
		o.Locker = l
		oa, ob := o, o
		a, b := newRig(t, &oa), newRig(t, &ob)
		defer func() { a.stop(); b.stop() }()
		f(t, l, a, b)
		a.mustBeEmpty()
		b.mustBeEmpty()
		l.mustBeFree(t)
	})
}

func TestLockerExcludesReplicas(t *testing.T) {
	replicas(t, Options{}, func(t *testing.T, l *locks, a, b *rig) {
		create := a.do(op("create", "name:v", "~id:src", "local:path"))
		create.mustRun()
		other := b.do(op("create", "name:v"))
		other.mustWait()
		beside := b.do(op("beside", "~id:src", "local:path"))
		beside.mustRun() // what is shared, or local, holds in one process
		if in := b.table.Running(); len(in) != 2 || in[0].Step != "waiting for the lock of name:v" {
			t.Errorf("Running() = %+v", in)
		}
		create.end(nil)
		create.mustEnd(nil)
		other.mustRun()
		other.end(nil)
		beside.end(nil)
		if want := []string{"lock name:v", "unlock name:v", "lock name:v", "unlock name:v"}; !slices.Equal(l.order, want) {
			t.Errorf("order %v", l.order)
		}
	})
}

func TestLockerTakesKeysInOrder(t *testing.T) {
	replicas(t, Options{}, func(t *testing.T, l *locks, a, b *rig) {
		x, y := a.do(op("x", "b", "a", "c")), b.do(op("y", "c", "b", "a"))
		x.mustRun()
		y.mustWait()
		x.end(nil)
		y.mustRun()
		y.end(nil)
		want := []string{"lock a", "lock b", "lock c"}
		if !slices.Equal(l.order[:3], want) {
			t.Errorf("order %v", l.order)
		}
	})
}

// A caller waits for another replica as it does for another operation: for a
// bounded time; and what nobody waits for gives up its place.
func TestLockerWaitIsBounded(t *testing.T) {
	replicas(t, Options{}, func(t *testing.T, l *locks, a, b *rig) {
		x := a.do(op("x", "k"))
		y := b.do(op("y", "k"))
		sleep(9 * time.Second)
		y.mustWait()
		sleep(time.Second)
		if p := y.mustPend(); p.Name != "y" || p.Step != "waiting for the lock of k" {
			t.Errorf("pending %+v", p)
		}
		b.mustBeEmpty()
		x.end(nil)
		if y.started {
			t.Error("began without a caller")
		}
		l.mustBeFree(t)
		z := b.do(op("y", "k"))
		z.mustRun()
		sleep(time.Minute) // its turn has come: it may take its time
		z.mustRun()
		z.end(nil)
		z.mustEnd(nil)
	})
}

// Without a Wait for others, the lock is waited for until the caller's deadline.
func TestLockerWithoutWait(t *testing.T) {
	replicas(t, Options{Wait: -1}, func(_ *testing.T, _ *locks, a, b *rig) {
		x, y := a.do(op("x", "k")), b.do(op("y", "k"))
		y.mustWait()
		x.end(nil)
		y.mustRun()
		y.end(nil)
		y.mustEnd(nil)
	})
}

func TestLockerWaitIsNegated(t *testing.T) {
	replicas(t, Options{}, func(_ *testing.T, _ *locks, a, b *rig) {
		x := a.do(op("x", "k"))
		create := b.do(op("create", "k"))
		remove := op("remove", "k")
		remove.Negates = func(o Operation) bool { return o.Name == "create" }
		r := b.do(remove)
		create.mustEnd(ErrNegated)
		if create.started {
			b.t.Error("a negated operation began")
		}
		r.mustWait()
		x.end(nil)
		r.mustRun()
		r.end(nil)
	})
}

func TestLockerFails(t *testing.T) {
	replicas(t, Options{}, func(t *testing.T, l *locks, a, _ *rig) {
		l.refuse = errTest
		x := a.do(op("x", "k"))
		x.mustEnd(errTest)
		if x.started {
			t.Error("began without a lock")
		}
		if !strings.Contains(x.err.Error(), "locking k") {
			t.Errorf("error %v", x.err)
		}
	})
}

func TestLockerThatDoesNotReturn(t *testing.T) {
	replicas(t, Options{Wait: time.Second}, func(t *testing.T, l *locks, a, b *rig) {
		l.hang = true
		x, y := a.do(op("x", "k")), b.do(op("y", "k"))
		sleep(time.Second)
		y.mustPend()
		sleep(10 * time.Second)
		if in := b.table.Running(); len(in) != 1 || !in[0].Stuck {
			t.Errorf("Running() = %+v", in)
		}
		x.end(nil)
		if y.started {
			t.Error("began after it was given up")
		}
	})
}

func TestLostLease(t *testing.T) {
	for _, end := range []error{nil, errTest} {
		replicas(t, Options{}, func(t *testing.T, l *locks, a, b *rig) {
			x := a.goDo(t.Context(), op("x", "k"), false)
			l.lose("k")
			if cause := context.Cause(x.fnCtx); !errors.Is(cause, ErrLost) {
				t.Errorf("cause %v", cause)
			}
			x.mustRun()             // it has to come to its end
			y := b.do(op("y", "k")) // and somebody else begins
			y.mustRun()
			x.end(end)
			x.mustEnd(ErrLost)
			if errors.Is(x.err, errTest) {
				t.Errorf("the kind of an error is told after the lock was lost: %v", x.err)
			}
			again := a.do(op("x", "k"))
			again.mustWait()
			y.end(nil)
			again.mustRun()
			again.end(nil)
			again.mustEnd(nil)
			if want := []string{"start x", "lost x", "done x"}; !slices.Equal(a.events[:3], want) {
				t.Errorf("events %v", a.events)
			}
		})
	}
}

// An end that comes with the loss, before anybody has seen it, is no OK either.
func TestLeaseLostUnseen(t *testing.T) {
	replicas(t, Options{}, func(t *testing.T, l *locks, a, _ *rig) {
		x := a.do(op("x", "k"))
		l.mu.Lock()
		h := l.held["k"]
		l.mu.Unlock()
		x.finish <- nil
		close(h.lost)
		synctest.Wait()
		x.mustEnd(ErrLost)
	})
}

func TestUnlockFails(t *testing.T) {
	replicas(t, Options{}, func(t *testing.T, l *locks, a, _ *rig) {
		l.failing = errTest
		x := a.do(op("x", "k"))
		x.end(nil)
		x.mustEnd(nil)
		if want := []string{"start x", "unlock x", "done x"}; !slices.Equal(a.events, want) {
			t.Errorf("events %v", a.events)
		}
	})
}

func TestPanicUnlocks(t *testing.T) {
	replicas(t, Options{}, func(t *testing.T, _ *locks, a, _ *rig) {
		_, err := Do(t.Context(), a.table, op("x", "k"), func(context.Context) (int, error) { panic("test") })
		if _, ok := errors.AsType[*PanicError](err); !ok {
			t.Errorf("error %v", err)
		}
	})
}

func TestFence(t *testing.T) {
	replicas(t, Options{}, func(t *testing.T, _ *locks, a, b *rig) {
		var last int64
		for i := range 4 {
			r := []*rig{a, b}[i%2]
			_, err := Do(t.Context(), r.table, op("x", "j", "k", "~s", "local"), func(ctx context.Context) (int, error) {
				j, ok := Fence(ctx, "j")
				k, ok2 := Fence(context.WithValue(ctx, clientKey{}, "x"), "k")
				if !ok || !ok2 || j <= last || k <= last {
					return 0, fmt.Errorf("tokens %d (%v), %d (%v) after %d", j, ok, k, ok2, last)
				}
				for _, key := range []string{"s", "local", "other"} {
					if n, ok := Fence(ctx, key); ok {
						return 0, fmt.Errorf("token %d of %s", n, key)
					}
				}
				last = k
				return 0, nil
			})
			if err != nil {
				t.Error(err)
			}
		}
		if _, ok := Fence(t.Context(), "j"); ok {
			t.Error("a token outside of an operation")
		}
	})
}
