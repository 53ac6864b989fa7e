package nfs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/csikit/csikit/backends"
)

const (
	// firstPause is how long nobody asks a server that did not answer; it doubles up
	// to lastPause while the server answers questions, but not calls.
	firstPause = 2 * time.Second
	lastPause  = 30 * time.Second
)

// breakers know which servers are dead, so that not every call finds out anew.
type breakers struct {
	ping func(ctx context.Context, server string) error
	now  func() time.Time

	mu sync.Mutex
	m  map[string]*breaker // of servers that did not answer
}

// breaker is one server that did not answer.
type breaker struct {
	why   error
	since time.Time
	next  time.Time     // when it is tried again
	pause time.Duration // after a trial that fails
	trial bool          // one call is trying
}

func newBreakers() *breakers {
	return &breakers{ping: ping, now: time.Now, m: map[string]*breaker{}}
}

// trial is the way of one call.
type trial struct {
	bs     *breakers
	server string
	alone  bool // it is the one that tries a dead server
}

// enter lets a call through to a server, or says at once that it is dead. From time
// to time one call tries: it asks the server whether it is there, which costs a
// moment, and goes on if so.
func (bs *breakers) enter(ctx context.Context, server string) (*trial, error) {
	t := &trial{bs: bs, server: server}
	if server == "" {
		return t, nil
	}
	bs.mu.Lock()
	b := bs.m[server]
	if b == nil {
		bs.mu.Unlock()
		return t, nil
	}
	if b.trial || bs.now().Before(b.next) {
		defer bs.mu.Unlock()
		return nil, bs.dead(server, b)
	}
	b.trial, t.alone = true, true
	bs.mu.Unlock()
	if err := bs.askFor(ctx, server); err != nil {
		if ctx.Err() != nil {
			t.leave(ctx.Err())
			return nil, context.Cause(ctx)
		}
		bs.fail(server, err)
		t.leave(backends.ErrUnavailable)
		return nil, bs.state(server)
	}
	return t, nil
}

func (bs *breakers) dead(server string, b *breaker) error {
	return fmt.Errorf("%w: server %s has not answered for %s: %w", backends.ErrUnavailable, server, bs.now().Sub(b.since).Round(time.Millisecond), b.why)
}

// state is nil for a server that is not known to be dead.
func (bs *breakers) state(server string) error {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if b := bs.m[server]; b != nil {
		return bs.dead(server, b)
	}
	return nil
}

// fail says that a server did not answer.
func (bs *breakers) fail(server string, why error) {
	if server == "" {
		return
	}
	bs.mu.Lock()
	defer bs.mu.Unlock()
	now := bs.now()
	b := bs.m[server]
	if b == nil {
		bs.m[server] = &breaker{why: why, since: now, next: now.Add(firstPause), pause: firstPause}
		return
	}
	b.why = why
	if b.trial && !errors.Is(why, errNoServer) {
		b.pause = min(2*b.pause, lastPause) // it answers pings, and no calls
	}
	b.next = now.Add(b.pause)
}

// leave ends the way of a call: one that was answered, be it with an error, shows
// that the server lives.
func (t *trial) leave(err error) {
	if t.server == "" {
		return
	}
	t.bs.mu.Lock()
	defer t.bs.mu.Unlock()
	b := t.bs.m[t.server]
	if b == nil {
		return
	}
	if t.alone {
		b.trial = false
	}
	if answered(err) && (t.alone || err == nil) {
		delete(t.bs.m, t.server)
	}
}

// answered tells errors that the server gave from those that say nothing of it.
func answered(err error) bool {
	_, far := errors.AsType[*farError](err)
	switch {
	case err == nil || far && !lost(err):
		return true
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), lost(err):
		return false
	}
	return !errors.Is(err, backends.ErrUnavailable)
}

// lost are the errors of a mount with the option "soft", and of a network without
// the server.
func lost(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.EIO, syscall.ETIMEDOUT, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED,
		syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EPIPE,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// ask asks a server whether it is there.
func (bs *breakers) ask(server string) error { return bs.askFor(context.Background(), server) }

func (bs *breakers) askFor(ctx context.Context, server string) error {
	if server == "" || strings.HasSuffix(server, rdmaSuffix) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	return bs.ping(ctx, server)
}
