package etcdlock

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/csikit/csikit/idempotency/etcdlock/internal/etcdtest"
)

const envHold = "ETCDLOCK_TEST_HOLD" // an address: take the lock, say so, and wait

func TestMain(m *testing.M) {
	if address := os.Getenv(envHold); address != "" {
		hold(address)
	}
	os.Exit(m.Run())
}

func hold(address string) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{address}})
	if err != nil {
		panic(err)
	}
	k, err := New(c, &Options{Prefix: "/test/", TTL: short}).Lock(context.Background(), "k")
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.WriteString("locked\n")
	<-k.Lost()
	os.Exit(3)
}

// Who asks first gets the lock first, across replicas and within one.
func TestOrder(t *testing.T) {
	e := startEtcd(t)
	a, b := e.locker(e.Address), e.locker(e.Address)
	held := mustLock(t, a, "k")
	got := make(chan outcome, 9)
	names := []string{"b", "a", "b2", "a2"}
	for i, l := range []*Locker{b, a, b, a} {
		goLock(t.Context(), l, names[i], "k", got)
		e.wantKeys(int64(i) + 2)
	}
	beside := mustLock(t, b, "k/x") // another key, although it begins with the first
	mustUnlock(t, beside)
	for _, name := range names {
		wantNone(t, got)
		mustUnlock(t, held)
		next := want(t, got, name)
		if next.Token() <= held.Token() {
			t.Errorf("token %d after %d", next.Token(), held.Token())
		}
		held = next
	}
	mustUnlock(t, held)
	e.wantKeys(0)
}

func TestExclusionAndTokens(t *testing.T) {
	e := startEtcd(t)
	var wg sync.WaitGroup
	var mu sync.Mutex // not waited for: TryLock sees whether two are inside
	var last int64
	for range 3 {
		l := e.locker(e.Address)
		for range 4 {
			wg.Go(func() {
				for range 10 {
					k, err := l.Lock(t.Context(), "k")
					if err != nil {
						t.Error(err)
						return
					}
					if !mu.TryLock() {
						t.Error("two are inside")
						return
					}
					if k.Token() <= last {
						t.Errorf("token %d after %d", k.Token(), last)
					}
					last = k.Token()
					mu.Unlock()
					if err := k.Unlock(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	e.wantKeys(0)
}

func TestGivesUpWithItsContext(t *testing.T) {
	e := startEtcd(t)
	a, b := e.locker(e.Address), e.locker(e.Address)
	held := mustLock(t, a, "k")
	got := make(chan outcome, 9)
	ctx, cancel := context.WithCancel(t.Context())
	goLock(ctx, b, "b", "k", got)
	e.wantKeys(2)
	goLock(t.Context(), a, "a", "k", got)
	e.wantKeys(3)
	cancel()
	if o := <-got; o.name != "b" || !errors.Is(o.err, context.Canceled) {
		t.Errorf("%s: %v", o.name, o.err)
	}
	e.wantKeys(2)
	wantNone(t, got)
	mustUnlock(t, held)
	mustUnlock(t, want(t, got, "a"))
	if _, err := a.Lock(ctx, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("locked after the end: %v", err)
	}
	e.wantKeys(0)
}

// A replica that is cut off knows that it has lost the lock before another has it.
func TestPartition(t *testing.T) {
	e := startEtcd(t)
	net := etcdtest.NewProxy(t, e.Address)
	a, b := e.lockerFor(net.Address, short), e.locker(e.Address)
	old := mustLock(t, a, "k")
	got := make(chan outcome, 9)
	goLock(t.Context(), b, "b", "k", got)
	e.wantKeys(2)
	net.Cut()
	k := want(t, got, "b")
	if !isLost(old) {
		t.Error("two have the lock and both believe it")
	}
	if k.Token() <= old.Token() {
		t.Errorf("token %d after %d", k.Token(), old.Token())
	}
	if err := old.Unlock(t.Context()); !errors.Is(err, ErrLost) {
		t.Errorf("given back: %v", err)
	}
	if isLost(k) {
		t.Error("the new one is lost")
	}
	net.Heal()
	goLock(t.Context(), a, "a", "k", got) // it can lock again, by another lease
	e.wantKeys(2)
	wantNone(t, got)
	mustUnlock(t, k)
	mustUnlock(t, want(t, got, "a"))
}

func TestHolderIsKilled(t *testing.T) {
	e := startEtcd(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Env = append(os.Environ(), envHold+"="+e.Address)
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "locked\n" {
		t.Errorf("%q, %v", line, err)
	}
	got := make(chan outcome, 1)
	goLock(t.Context(), e.locker(e.Address), "b", "k", got)
	e.wantKeys(2)
	wantNone(t, got)
	_ = c.Process.Kill()
	_ = c.Wait()
	mustUnlock(t, want(t, got, "b"))
	e.wantKeys(0)
}

// Etcd that is killed and comes back in time costs no lock.
func TestEtcdIsKilled(t *testing.T) {
	e := startEtcd(t)
	a, b := e.locker(e.Address), e.locker(e.Address)
	held := mustLock(t, a, "k")
	got := make(chan outcome, 1)
	goLock(t.Context(), b, "b", "k", got)
	e.wantKeys(2)
	e.Kill()
	if !e.Run() {
		t.Fatal("etcd does not start again")
	}
	if isLost(held) {
		t.Fatal("lost")
	}
	wantNone(t, got)
	mustUnlock(t, held)
	mustUnlock(t, want(t, got, "b"))
}

func TestEtcdIsGone(t *testing.T) {
	e := startEtcd(t)
	a, b := e.lockerFor(e.Address, short), e.lockerFor(e.Address, short)
	held := mustLock(t, a, "k")
	got := make(chan outcome, 1)
	goLock(t.Context(), b, "b", "k", got)
	e.wantKeys(2)
	e.Kill()
	mustLose(t, held)
	if o := <-got; !errors.Is(o.err, ErrLost) {
		t.Errorf("who waited: %v", o.err)
	}
	if err := held.Unlock(t.Context()); !errors.Is(err, ErrLost) {
		t.Errorf("given back: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := a.Lock(ctx, "k"); err == nil {
		t.Error("locked without etcd")
	}
	if !e.Run() {
		t.Fatal("etcd does not start again")
	}
	// A lease may be lost once more while etcd comes up: who asks again gets the lock.
	var again Lease
	err := ErrLost
	for end := time.Now().Add(30 * time.Second); errors.Is(err, ErrLost) && time.Now().Before(end); {
		again, err = b.Lock(t.Context(), "k")
	}
	if err != nil {
		t.Fatal(err)
	}
	if again.Token() <= held.Token() {
		t.Errorf("token %d after %d", again.Token(), held.Token())
	}
	mustUnlock(t, again)
}

func TestLeaseIsRevoked(t *testing.T) {
	e := startEtcd(t)
	a := e.lockerFor(e.Address, short)
	k := mustLock(t, a, "k")
	if _, err := e.Dial(e.Address).Revoke(t.Context(), a.session.id); err != nil {
		t.Fatal(err)
	}
	mustLose(t, k)
	mustUnlock(t, mustLock(t, a, "k"))
}

// A key that somebody has deleted was no lock any more.
func TestKeyIsGone(t *testing.T) {
	e := startEtcd(t)
	k := mustLock(t, e.locker(e.Address), "k")
	if _, err := e.Dial(e.Address).Delete(t.Context(), "/test/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	if err := k.Unlock(t.Context()); !errors.Is(err, ErrLost) || !isLost(k) {
		t.Errorf("given back: %v; lost: %v", err, isLost(k))
	}
}

// A request to make a key that comes after the key was given up makes nothing; it
// is in nobody's way, and however many there were, one key is left of them.
func TestLateRequest(t *testing.T) {
	e := startEtcd(t)
	l := e.locker(e.Address)
	for range 3 {
		k := mustLock(t, l, "k").(*lock)
		k.doubt = true // as if an earlier request had not been answered
		epoch := k.s.epochNow()
		mustUnlock(t, k)
		if made, err := k.make(t.Context(), epoch); made || err != nil {
			t.Errorf("made: %v, %v", made, err)
		}
		e.wantKeys(1)
		k.s.epoch.Store(epoch) // as if the answer to its end had been lost
	}
	mustUnlock(t, mustLock(t, l, "k"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	e.wantKeys(0)
}

func TestClose(t *testing.T) {
	e := startEtcd(t)
	a, b := e.locker(e.Address), e.locker(e.Address)
	k := mustLock(t, a, "k")
	got := make(chan outcome, 2)
	goLock(t.Context(), b, "b", "k", got)
	e.wantKeys(2)
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	if !isLost(k) {
		t.Error("not lost")
	}
	mustUnlock(t, want(t, got, "b")) // at once, and not when the lease ends
	if _, err := a.Lock(t.Context(), "k"); !errors.Is(err, ErrClosed) {
		t.Errorf("locked after Close: %v", err)
	}
}

func TestKeysThatAreLocal(t *testing.T) {
	l := New(nil, &Options{Keys: func(key string) bool { return key != "node:v" }})
	if k, err := l.Lock(t.Context(), "node:v"); k != nil || err != nil {
		t.Errorf("%v, %v", k, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
