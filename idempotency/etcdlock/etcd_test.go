package etcdlock

import (
	"context"
	"testing"
	"time"

	"github.com/csikit/csikit/idempotency/etcdlock/internal/etcdtest"
)

type etcd struct {
	*etcdtest.Etcd
	t *testing.T
}

func startEtcd(t *testing.T) *etcd {
	t.Helper()
	return &etcd{etcdtest.Start(t), t}
}

// TTL of the tests' leases: a short one, which is to be lost, is so after 4 s without
// etcd, and somebody else's after 6; the others are not lost while a test runs, however
// busy the machine is.
const (
	short = 6 * time.Second
	long  = 2 * time.Minute
)

// locker is a replica, whose etcd has the given address.
func (e *etcd) locker(address string) *Locker {
	e.t.Helper()
	return e.lockerFor(address, long)
}

func (e *etcd) lockerFor(address string, ttl time.Duration) *Locker {
	e.t.Helper()
	l := New(e.Dial(address), &Options{Prefix: "/test/", TTL: ttl})
	e.t.Cleanup(func() { _ = l.Close() })
	return l
}

// wantKeys waits until there are so many keys of locks.
func (e *etcd) wantKeys(n int64) {
	e.t.Helper()
	e.WantKeys("/test/", n)
}

func mustLock(t *testing.T, l *Locker, key string) Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	k, err := l.Lock(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustUnlock(t *testing.T, k Lease) {
	t.Helper()
	if err := k.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func isLost(k Lease) bool {
	select {
	case <-k.Lost():
		return true
	default:
		return false
	}
}

// mustLose waits until the lease is lost.
func mustLose(t *testing.T, k Lease) {
	t.Helper()
	select {
	case <-k.Lost():
	case <-time.After(30 * time.Second):
		t.Fatal("not lost")
	}
}

// outcome is what a Lock gave that another goroutine waited for.
type outcome struct {
	name  string
	lease Lease
	err   error
}

func goLock(ctx context.Context, l *Locker, name, key string, to chan<- outcome) {
	go func() {
		k, err := l.Lock(ctx, key)
		to <- outcome{name, k, err}
	}()
}

func wantNone(t *testing.T, from <-chan outcome) {
	t.Helper()
	select {
	case o := <-from:
		t.Fatalf("%s has the lock of somebody else: %v", o.name, o.err)
	case <-time.After(200 * time.Millisecond): // too short proves less, and breaks nothing
	}
}

func want(t *testing.T, from <-chan outcome, name string) Lease {
	t.Helper()
	select {
	case o := <-from:
		if o.err != nil || o.name != name {
			t.Fatalf("%s, %v; want %s to have the lock", o.name, o.err, name)
		}
		return o.lease
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not get the lock", name)
	}
	return nil
}
