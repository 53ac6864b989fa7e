package mounter

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

func TestKeyLocks(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		var l keyLocks
		unlock, err := l.lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		other, err := l.lock(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		other()
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		go func() {
			_, err := l.lock(ctx, "a")
			got <- err
		}()
		synctest.Wait()
		select {
		case err := <-got:
			t.Fatalf("did not wait: %v", err)
		default:
		}
		cancel()
		if err := <-got; !errors.Is(err, backends.ErrPending) || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		unlock()
		if len(l.m) != 0 {
			t.Errorf("%d keys kept", len(l.m))
		}
	})
}

func TestKeyLocksExclude(t *testing.T) {
	var l keyLocks
	var wg sync.WaitGroup
	n := 0
	for range 50 {
		wg.Go(func() {
			unlock, err := l.lock(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			n++ // the race detector watches
			unlock()
		})
	}
	wg.Wait()
	if n != 50 || len(l.m) != 0 {
		t.Errorf("%d calls, %d keys kept", n, len(l.m))
	}
}
