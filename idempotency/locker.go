package idempotency

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Locker makes exclusive keys hold across processes: the replicas of a
// controller. A table with one (Options.Locker) locks each exclusive key of an
// operation before it calls fn, in the order of their names, and unlocks them
// when fn has returned.
//
// Shared keys hold across processes when the Locker is a [SharedLocker] too, and
// else within the process only. Then a process does not see that another one uses
// what it is about to delete or to change (a volume that is being cloned or
// attached to a second node, a snapshot that is being restored or read): its
// storage has to refuse that, or what is made of the deleted must fail and not be
// told of as made.
//
// Package idempotency/etcdlock has one over etcd.
type Locker interface {
	// Lock waits for the lock of key and takes it. It returns soon after ctx has
	// ended, and then holds nothing. A nil Lease without an error says that key
	// needs no lock across processes, as that of a path on one node.
	//
	// A lock is not of the process: two calls of Lock for one key exclude each
	// other.
	Lock(ctx context.Context, key string) (Lease, error)
}

// SharedLocker is a [Locker] that also has locks for shared keys.
type SharedLocker interface {
	// LockShared is Lock for a lock that any number of callers may hold, and nobody
	// together with one of Lock. Who asks for either waits for all who asked for the
	// other before him, so that neither kind starves.
	//
	// Its token is greater than that of every earlier lease of Lock for the key, and
	// smaller than that of every later one.
	LockShared(ctx context.Context, key string) (Lease, error)
}

// Lease is a lock that is held for as long as its holder can be heard of. It is
// an alias, so that a Locker can be written without this package.
type Lease = interface {
	// Token is the fencing token: greater than that of every earlier lease of the
	// same key, whoever had it.
	Token() int64
	// Lost is closed when the lease may belong to somebody else, other than by
	// Unlock: at the latest when it could be given to the next holder.
	Lost() <-chan struct{}
	// Unlock gives the lease back. By ctx's end it returns, also if that has
	// failed; the lease then ends by itself.
	Unlock(ctx context.Context) error
}

// ErrLost is the cause by which the context of an operation is cancelled that has
// lost the lease of a key ([Options].Locker), and the error that its callers get,
// whatever fn returns.
//
// An OK is not told because another replica may have undone what it says, and an
// error's kind is not told because it may be final for what another replica is
// doing: errors.Is finds ErrLost and nothing of fn's error. The call can be made
// again, and looks again.
var ErrLost = errors.New("the lock was lost to another replica, or nobody knows")

// unlockTime is how long an unlocking may take; after that the lease has to end
// by itself.
const unlockTime = 5 * time.Second

// held is a lease with its key.
type held struct {
	Lease
	Key
}

// Fence gives the fencing token of a key of the operation whose context ctx is:
// it is greater than the token of every earlier holder of the key, in any
// process. Storage that remembers the greatest token that it has seen for an
// object, and refuses smaller ones, is safe from a holder that was paused, lost
// its lease, and goes on.
//
// Tokens are of one key: those of two keys say nothing about each other. False:
// the key is not one that the operation has locked exclusively.
func Fence(ctx context.Context, key string) (token int64, ok bool) {
	return fence(ctx, Exclusive(key))
}

// SharedFence is [Fence] for a key that the operation has locked shared, as the
// source of a copy. It is to be compared with what storage remembers of the
// object and not to be remembered: of those who share a key none has to give way
// to another. False: the key is not one that the operation has locked shared.
func SharedFence(ctx context.Context, key string) (token int64, ok bool) {
	return fence(ctx, Shared(key))
}

func fence(ctx context.Context, key Key) (token int64, ok bool) {
	a := FromContext(ctx)
	if a == nil || a.op == nil {
		return 0, false
	}
	for i := range a.op.leases {
		if l := &a.op.leases[i]; l.Key == key {
			return l.Token(), true
		}
	}
	return 0, false
}

// needsLock tells whether a key of o is to be locked before o may go on.
func (t *Table) needsLock(o *operation) bool {
	if t.o.Locker == nil {
		return false
	}
	for i := range o.holds {
		if !o.holds[i].Shared || t.shares != nil {
			return true
		}
	}
	return false
}

// lock locks the keys of o, which holds them in this process already. That they
// are sorted is why processes do not wait for each other in a circle.
func (t *Table) lock(o *operation) error {
	for i := range o.holds {
		if err := t.lockKey(o, o.holds[i].Key); err != nil {
			return fmt.Errorf("locking %s: %w", o.holds[i].Name, err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	o.locking = false
	// Who was negated, or left by all callers, while it waited, does not begin.
	return o.ctx.Err()
}

func (t *Table) lockKey(o *operation, key Key) error {
	lock := t.o.Locker.Lock
	if key.Shared {
		if t.shares == nil {
			return nil
		}
		lock = t.shares.LockShared
	}
	// As long as it takes: when no caller is left to wait, it is cancelled.
	defer o.act.Busy("waiting for the lock of " + key.Name)()
	l, err := lock(o.ctx, key.Name)
	if l == nil || err != nil {
		return err
	}
	o.leases = append(o.leases, held{l, key})
	go func() {
		select {
		case <-l.Lost():
			t.lost(o)
		case <-o.ctx.Done():
		}
	}()
	return nil
}

// lost cuts o off.
func (t *Table) lost(o *operation) {
	var b batch
	t.mu.Lock()
	defer t.unlock(&b)
	if o.state != running || o.cause != nil {
		return
	}
	t.note(&b, EventLost, o, "", nil)
	t.cutOff(o, ErrLost)
}

// unlockKeys gives back what lock has taken, and says what o's callers get when
// its fn has returned err.
func (t *Table) unlockKeys(o *operation, err error) error {
	if len(o.leases) == 0 {
		return err
	}
	defer o.act.Busy("unlocking")()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(o.ctx), unlockTime)
	defer cancel()
	lost := false
	for _, l := range slices.Backward(o.leases) {
		if uerr := unlockKey(ctx, l); uerr != nil {
			t.tell(EventUnlock, o, fmt.Errorf("unlocking %s: %w", l.Name, uerr))
		}
		select {
		case <-l.Lost(): // also when it was Unlock that found out
			lost = true
		default:
		}
	}
	if !lost {
		return err
	}
	t.lost(o)
	end := "OK"
	if err != nil {
		end = err.Error()
	}
	return fmt.Errorf("%w; it ended with: %s", ErrLost, end)
}

func unlockKey(ctx context.Context, l held) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = newPanicError("Unlock", v)
		}
	}()
	return l.Unlock(ctx)
}

// tell tells the observer of something about o outside of the table's own work.
func (t *Table) tell(kind EventKind, o *operation, err error) {
	var b batch
	t.mu.Lock()
	defer t.unlock(&b)
	t.note(&b, kind, o, "", err)
}
