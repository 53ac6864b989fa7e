package etcdlock

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/csikit/csikit/idempotency/etcdlock/internal/etcdtest"
)

func goShare(ctx context.Context, l *Locker, name, key string, to chan<- outcome) {
	go func() {
		k, err := l.LockShared(ctx, key)
		to <- outcome{name, k, err}
	}()
}

// Those who share wait for who asked for all of it before them, who wants all of it
// waits for those who shared it before him; neither is overtaken by the other kind.
func TestSharedOrder(t *testing.T) {
	e := startEtcd(t)
	a, b := e.locker(e.Address), e.locker(e.Address)
	readers, writers := make(chan outcome, 9), make(chan outcome, 9)
	goShare(t.Context(), a, "r1", "k", readers)
	r1 := want(t, readers, "r1")
	goShare(t.Context(), b, "r2", "k", readers)
	r2 := want(t, readers, "r2") // beside r1
	goLock(t.Context(), b, "w1", "k", writers)
	e.wantKeys(3)
	goShare(t.Context(), a, "r3", "k", readers)
	e.wantKeys(4)
	goLock(t.Context(), a, "w2", "k", writers)
	e.wantKeys(5)
	wantNone(t, writers)
	mustUnlock(t, r2) // the later one first: r1 still has it
	wantNone(t, writers)
	wantNone(t, readers) // not past w1
	mustUnlock(t, r1)
	w1 := want(t, writers, "w1")
	wantNone(t, readers)
	mustUnlock(t, w1)
	r3 := want(t, readers, "r3")
	wantNone(t, writers)
	if r1.Token() >= w1.Token() || r2.Token() >= w1.Token() || w1.Token() >= r3.Token() {
		t.Errorf("tokens of readers %d, %d, of who came then %d, of the reader after him %d", r1.Token(), r2.Token(), w1.Token(), r3.Token())
	}
	mustUnlock(t, r3)
	mustUnlock(t, want(t, writers, "w2"))
	e.wantKeys(0)
}

// Who gives up waiting is in nobody's way, and who is cut off loses what he shares.
func TestSharedGivesUpAndIsLost(t *testing.T) {
	e := startEtcd(t)
	net := etcdtest.NewProxy(t, e.Address)
	a, b := e.lockerFor(net.Address, short), e.locker(e.Address)
	got := make(chan outcome, 9)
	goShare(t.Context(), a, "r1", "k", got)
	r1 := want(t, got, "r1")
	ctx, cancel := context.WithCancel(t.Context())
	goLock(ctx, b, "w1", "k", got)
	e.wantKeys(2)
	goShare(t.Context(), b, "r2", "k", got)
	e.wantKeys(3)
	cancel()
	if o := <-got; o.name != "w1" || !errors.Is(o.err, context.Canceled) {
		t.Errorf("%s: %v", o.name, o.err)
	}
	mustUnlock(t, want(t, got, "r2"))
	goLock(t.Context(), b, "w2", "k", got)
	e.wantKeys(2)
	net.Cut()
	w2 := want(t, got, "w2")
	if !isLost(r1) {
		t.Error("is shared and not, and both believe it")
	}
	mustUnlock(t, w2)
}

func TestSharedExclusion(t *testing.T) {
	e := startEtcd(t)
	var wg sync.WaitGroup
	var inside sync.RWMutex // not waited for
	for i := range 6 {
		l, r := e.locker(e.Address), rand.New(rand.NewPCG(1, uint64(i)))
		wg.Go(func() {
			for range 15 {
				if share := r.IntN(2) == 0; !once(t, l, share, &inside) {
					return
				}
			}
		})
	}
	wg.Wait()
	e.wantKeys(0)
}

// once takes the lock and looks who else is inside.
func once(t *testing.T, l *Locker, share bool, inside *sync.RWMutex) bool {
	lock, try, leave := l.Lock, inside.TryLock, inside.Unlock
	if share {
		lock, try, leave = l.LockShared, inside.TryRLock, inside.RUnlock
	}
	k, err := lock(t.Context(), "k")
	if err != nil {
		t.Error(err)
		return false
	}
	if !try() {
		t.Errorf("not alone, shared %v", share)
		return false
	}
	leave()
	if err := k.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	return true
}
