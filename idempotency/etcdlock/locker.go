package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Lease is idempotency.Lease.
type Lease = interface {
	Token() int64
	Lost() <-chan struct{}
	Unlock(ctx context.Context) error
}

// Options of a [Locker]. Nil or zero values mean the defaults.
type Options struct {
	// Prefix of all keys in etcd, the same in all replicas of a driver and in
	// nothing else: empty: "/csikit/locks/".
	Prefix string
	// TTL is after which time without a sign of life the locks of a process are
	// given to others: 0: 15 s. Etcd counts in seconds, and no fewer than its own
	// election takes.
	TTL time.Duration
	// Keys says whether a key is locked across processes at all. Nil: every key. A
	// driver leaves out what belongs to one node.
	Keys func(key string) bool
}

// Errors for errors.Is.
var (
	// ErrClosed: the Locker was closed.
	ErrClosed = errors.New("etcdlock: closed")
	// ErrLost: the process lost its lease while it waited for a lock, or a lock was
	// gone when it was given back.
	ErrLost = errors.New("etcdlock: the lease was lost")
)

// Locker gives locks. Its methods may be called concurrently.
type Locker struct {
	client *clientv3.Client
	prefix string
	ttl    time.Duration
	keys   func(string) bool

	turn   chan struct{} // to make a session; buffered
	work   sync.WaitGroup
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu      sync.Mutex
	session *session
	seq     uint64
}

// New makes a Locker; nil options are the defaults. The client stays the
// caller's, who closes it after the Locker.
func New(client *clientv3.Client, o *Options) *Locker {
	if o == nil {
		o = &Options{}
	}
	l := &Locker{client: client, prefix: o.Prefix, ttl: o.TTL, keys: o.Keys, turn: make(chan struct{}, 1)}
	if l.prefix == "" {
		l.prefix = "/csikit/locks/"
	}
	l.prefix = strings.TrimSuffix(l.prefix, "/") + "/"
	if l.ttl <= 0 {
		l.ttl = 15 * time.Second
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Close gives all locks back: what holds one has lost it.
func (l *Locker) Close() error {
	l.mu.Lock()
	l.cancel()
	l.mu.Unlock()
	l.work.Wait()
	return nil
}

// spawn runs what Close waits for; after that nothing, for the session has ended.
func (l *Locker) spawn(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() == nil {
		l.work.Go(f)
	}
}

// Lock waits for the lock of key until ctx ends, and takes it.
func (l *Locker) Lock(ctx context.Context, key string) (Lease, error) {
	return l.lock(ctx, key, false)
}

// LockShared is Lock for a lock that others may share.
func (l *Locker) LockShared(ctx context.Context, key string) (Lease, error) {
	return l.lock(ctx, key, true)
}

func (l *Locker) lock(ctx context.Context, key string, share bool) (Lease, error) {
	if l.keys != nil && !l.keys(key) {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := l.current(ctx)
	if err != nil {
		return nil, err
	}
	// Apart, and no two with a common beginning: a slash is escaped.
	name := url.PathEscape(key)
	k := &lock{s: s, queue: l.prefix + "held/" + name + "/", share: share}
	mark := ""
	if share {
		mark = sharedMark
	}
	k.key = fmt.Sprintf("%s%s%016x-%d", k.queue, mark, uint64(s.id), l.next())
	if err := k.acquire(ctx); err != nil {
		return nil, fmt.Errorf("etcdlock: %s: %w", key, err)
	}
	return k, nil
}

func (l *Locker) next() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	return l.seq
}
