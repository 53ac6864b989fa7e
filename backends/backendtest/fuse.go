package backendtest

import (
	"context"
	"sync"
	"testing"
)

// fuse is a context that ends when it has been looked at a number of times: a
// cancellation at a moment that can be repeated.
type fuse struct {
	context.Context
	mu   sync.Mutex
	left int
	done chan struct{}
}

func newFuse(tb testing.TB, looks int) *fuse {
	return &fuse{Context: tb.Context(), left: looks, done: make(chan struct{})}
}

func (f *fuse) Done() <-chan struct{} {
	f.look()
	return f.done
}

func (f *fuse) Err() error {
	if f.look() {
		return context.Canceled
	}
	return f.Context.Err()
}

func (f *fuse) look() (burnt bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left == -1 {
		close(f.done)
	}
	return f.left < 0
}

func (f *fuse) burnt() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left < 0
}
