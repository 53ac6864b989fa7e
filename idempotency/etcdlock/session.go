package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// requestTime is how long one request to etcd may take.
const requestTime = 5 * time.Second

// session is the process's lease. It ends when it may have ended in etcd, and
// never begins again: the Locker makes another.
type session struct {
	l    *Locker
	id   clientv3.LeaseID
	ttl  time.Duration   // what etcd gave
	live context.Context // until it is lost
	lose context.CancelFunc

	epochKey string       // its revision is that of the epoch; not there: 0
	epoch    atomic.Int64 // that is known
}

// A request to make a key that was not answered may come to etcd at any time. So
// it names the epoch of its session, and who gives up a key that such a request may
// still make begins another one. Of all keys that were ever given up one is left,
// for as long as the session.
func (s *session) epochNow() int64 { return s.epoch.Load() }

func (s *session) epochIs(rev int64) {
	for {
		known := s.epoch.Load()
		if rev <= known || s.epoch.CompareAndSwap(known, rev) {
			return
		}
	}
}

// current gives a session that is not lost.
func (l *Locker) current(ctx context.Context) (*session, error) {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-l.turn }()
	if l.ctx.Err() != nil {
		return nil, ErrClosed
	}
	l.mu.Lock()
	s := l.session
	l.mu.Unlock()
	if s != nil && !s.isLost() {
		return s, nil
	}
	s, err := l.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("etcdlock: a lease: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = s
	return s, nil
}

func (l *Locker) begin(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	sent := time.Now()
	g, err := l.client.Grant(ctx, int64((l.ttl+time.Second-1)/time.Second))
	if err != nil {
		return nil, err // one that was granted after all ends by itself
	}
	s := &session{l: l, id: g.ID, ttl: time.Duration(g.TTL) * time.Second, epochKey: fmt.Sprintf("%sepoch/%016x", l.prefix, uint64(g.ID))}
	s.live, s.lose = context.WithCancel(l.ctx)
	l.spawn(func() { s.keep(sent) })
	return s, nil
}

func (s *session) isLost() bool { return s.live.Err() != nil }

// keep renews the lease until it is lost, and then gives it back, in case that
// etcd thinks otherwise.
func (s *session) keep(sent time.Time) {
	defer s.revoke()
	defer s.lose()
	for {
		limit := sent.Add(s.ttl * 2 / 3)
		if !s.sleep(min(s.ttl/6, time.Until(limit))) || !time.Now().Before(limit) {
			return
		}
		now := time.Now()
		ctx, cancel := context.WithDeadline(s.live, earlier(limit, now.Add(s.ttl/4)))
		_, err := s.l.client.KeepAliveOnce(ctx, s.id)
		cancel()
		switch {
		case err == nil:
			sent = now
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			return
		}
	}
}

// sleep says false when the session is lost meanwhile.
func (s *session) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.live.Done():
		return false
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (s *session) revoke() {
	ctx, cancel := context.WithTimeout(context.Background(), min(requestTime, s.ttl/3))
	defer cancel()
	// Without etcd it ends by itself.
	_, _ = s.l.client.Revoke(ctx, s.id)
}
