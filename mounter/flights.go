package mounter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// flights holds the calls that look at a mounted path and have not come back, one
// for each key. The zero value is ready.
type flights[T any] struct {
	mu sync.Mutex
	m  map[string]*flight[T]
}

type flight[T any] struct {
	start time.Time
	done  chan struct{}
	v     T
	err   error
	panic any // what f panicked with: its callers', not the process's
}

var errNoAnswer = errors.New("no answer yet")

// get runs f, or waits for the one that runs already.
func (l *flights[T]) get(ctx context.Context, id string, timeout time.Duration, f func() (T, error)) (T, error) {
	var none T
	fl := l.start(id, f)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-fl.done:
		if fl.panic != nil {
			panic(fl.panic)
		}
		return fl.v, fl.err
	case <-ctx.Done():
		return none, contextError(ctx)
	case <-timer.C:
		return none, fmt.Errorf("%w after %s", errNoAnswer, time.Since(fl.start).Round(time.Millisecond))
	}
}

// age is how long the call for id has been running, 0 when none is.
func (l *flights[T]) age(id string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	fl := l.m[id]
	if fl == nil {
		return 0
	}
	return max(time.Since(fl.start), 1)
}

// wait waits for the calls that run whose id begins with prefix, no longer than ctx.
func (l *flights[T]) wait(ctx context.Context, prefix string) {
	l.mu.Lock()
	var running []*flight[T]
	for id, fl := range l.m {
		if strings.HasPrefix(id, prefix) {
			running = append(running, fl)
		}
	}
	l.mu.Unlock()
	for _, fl := range running {
		select {
		case <-fl.done:
		case <-ctx.Done():
		}
	}
}

func (l *flights[T]) start(id string, f func() (T, error)) *flight[T] {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fl := l.m[id]; fl != nil {
		return fl
	}
	if l.m == nil {
		l.m = map[string]*flight[T]{}
	}
	fl := &flight[T]{start: time.Now(), done: make(chan struct{})}
	l.m[id] = fl
	go func() {
		defer func() {
			fl.panic = recover()
			l.mu.Lock()
			delete(l.m, id)
			l.mu.Unlock()
			close(fl.done)
		}()
		fl.v, fl.err = f()
	}()
	return fl
}
