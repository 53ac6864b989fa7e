package mounter

import (
	"context"
	"fmt"
	"sync"

	"github.com/csikit/csikit/backends"
)

// keyLocks is one lock for each key that somebody wants; a key that nobody
// wants costs nothing. The zero value is ready.
type keyLocks struct {
	mu sync.Mutex
	m  map[string]*keyLock
}

type keyLock struct {
	held chan struct{} // holds one token while the key is locked
	n    int           // holders and waiters
}

// lock waits for the key, no longer than ctx.
func (l *keyLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	if l.m == nil {
		l.m = map[string]*keyLock{}
	}
	k := l.m[key]
	if k == nil {
		k = &keyLock{held: make(chan struct{}, 1)}
		l.m[key] = k
	}
	k.n++
	l.mu.Unlock()
	select {
	case k.held <- struct{}{}:
		return func() { <-k.held; l.release(key, k) }, nil
	case <-ctx.Done():
		l.release(key, k)
		return nil, fmt.Errorf("%w: another call for %s is at work: %w", backends.ErrPending, key, context.Cause(ctx))
	}
}

// taken reports whether somebody has the key or waits for it.
func (l *keyLocks) taken(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.m[key] != nil
}

func (l *keyLocks) release(key string, k *keyLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.n--; k.n == 0 {
		delete(l.m, key)
	}
}

// volumeKey is the lock of a volume.
func volumeKey(id string) string { return fmt.Sprintf("volume %q", id) }
