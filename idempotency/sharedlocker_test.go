package idempotency

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csikit/csikit/internal/testenv"
)

// sharedLocks are locks that may be shared. Leases of LockShared are kept as keys
// of their own, so that locks' tests of what is left see them.
type sharedLocks struct {
	*locks
	readers map[string][]*lease
}

func (s *sharedLocks) Lock(ctx context.Context, key string) (Lease, error) {
	defer s.wake(ctx)()
	s.mu.Lock()
	for len(s.readers[key]) > 0 && ctx.Err() == nil {
		s.free.Wait()
	}
	s.mu.Unlock()
	return s.locks.Lock(ctx, key)
}

func (s *sharedLocks) LockShared(ctx context.Context, key string) (Lease, error) {
	defer s.wake(ctx)()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.held[key] != nil && ctx.Err() == nil {
		s.free.Wait()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.tokens++
	h := &lease{all: s.locks, key: key, token: s.tokens, lost: make(chan struct{})}
	s.readers[key] = append(s.readers[key], h)
	s.order = append(s.order, "share "+key)
	return &sharedLease{h, s}, nil
}

func (s *sharedLocks) wake(ctx context.Context) func() bool {
	return context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.free.Broadcast()
	})
}

type sharedLease struct {
	*lease
	from *sharedLocks
}

func (l *sharedLease) Unlock(context.Context) error {
	l.from.mu.Lock()
	defer l.from.mu.Unlock()
	l.from.readers[l.key] = slices.DeleteFunc(l.from.readers[l.key], func(h *lease) bool { return h == l.lease })
	l.from.order = append(l.from.order, "unshare "+l.key)
	l.from.free.Broadcast()
	return nil
}

func sharingReplicas(t *testing.T, o Options, f func(t *testing.T, l *sharedLocks, a, b *rig)) {
	t.Helper()
	testenv.Bubble(t, func(t *testing.T) {
		l := &sharedLocks{newLocks(), make(map[string][]*lease)}
		o.Locker = l
		oa, ob := o, o
		a, b := newRig(t, &oa), newRig(t, &ob)
		defer func() { a.stop(); b.stop() }()
		f(t, l, a, b)
		a.mustBeEmpty()
		b.mustBeEmpty()
		l.mustBeFree(t)
		for k, h := range l.readers {
			if len(h) > 0 {
				t.Errorf("%d share %s", len(h), k)
			}
		}
	})
}

// What is shared, as the source of a copy, is shared with other replicas, and
// keeps them from deleting it.
func TestSharedLockerHoldsSources(t *testing.T) {
	sharingReplicas(t, Options{}, func(t *testing.T, l *sharedLocks, a, b *rig) {
		clone, other := a.do(op("clone", "name:v", "~id:src")), b.do(op("other", "name:w", "~id:src"))
		clone.mustRun()
		other.mustRun()
		remove := b.do(op("remove", "id:src")) // waits in its own process for other, and then for clone
		other.end(nil)
		remove.mustWait()
		if in := b.table.Running(); len(in) != 1 || in[0].Step != "waiting for the lock of id:src" {
			t.Errorf("Running() = %+v", in)
		}
		clone.end(nil)
		remove.mustRun()
		late := a.do(op("late", "name:x", "~id:src"))
		late.mustWait()
		remove.end(nil)
		late.mustRun()
		late.end(nil)
		late.mustEnd(nil)
		if want := []string{"share id:src", "lock name:v", "share id:src", "lock name:w", "unlock name:w", "unshare id:src"}; !slices.Equal(l.order[:6], want) {
			t.Errorf("order %v", l.order)
		}
	})
}

func TestSharedLockerWaitIsBounded(t *testing.T) {
	sharingReplicas(t, Options{}, func(_ *testing.T, _ *sharedLocks, a, b *rig) {
		remove := a.do(op("remove", "id:src"))
		read := b.do(op("read", "~id:src")) // with no exclusive key at all
		read.mustWait()
		sleep(10 * time.Second)
		read.mustPend()
		b.mustBeEmpty()
		remove.end(nil)
	})
}

func TestSharedLeaseIsLost(t *testing.T) {
	sharingReplicas(t, Options{}, func(t *testing.T, l *sharedLocks, a, _ *rig) {
		clone := a.goDo(t.Context(), op("clone", "name:v", "~id:src"), false)
		l.mu.Lock()
		close(l.readers["id:src"][0].lost)
		l.mu.Unlock()
		synctest.Wait()
		if cause := context.Cause(clone.fnCtx); !errors.Is(cause, ErrLost) {
			t.Errorf("cause %v", cause)
		}
		clone.end(nil)
		clone.mustEnd(ErrLost)
	})
}

func TestSharedFence(t *testing.T) {
	sharingReplicas(t, Options{}, func(t *testing.T, _ *sharedLocks, a, b *rig) {
		first := token(t, a, op("delete", "id:src"), Fence)
		second := token(t, b, op("clone", "~id:src"), SharedFence)
		third := token(t, a, op("delete", "id:src"), Fence)
		if first <= 0 || second <= first || third <= second {
			t.Errorf("tokens %d, %d, %d", first, second, third)
		}
		if n := token(t, a, op("clone", "~id:src"), Fence) + token(t, a, op("delete", "id:src"), SharedFence); n != 0 {
			t.Errorf("tokens of the other kind: %d", n)
		}
	})
}

// token is what of says of id:src inside of o; 0: it is not known.
func token(t *testing.T, r *rig, o Operation, of func(context.Context, string) (int64, bool)) int64 {
	t.Helper()
	n, err := Do(t.Context(), r.table, o, func(ctx context.Context) (int64, error) {
		n, ok := of(ctx, "id:src")
		if ok != (n != 0) {
			t.Errorf("token %d, %v", n, ok)
		}
		return n, nil
	})
	if err != nil {
		t.Error(err)
	}
	return n
}
