package kmount

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csikit/csikit/internal/testenv"
)

// TestEscalate: force comes after the time and not before, not after an error, and
// no wait is without an end.
func TestEscalate(t *testing.T) {
	busy := errors.New("busy")
	for _, c := range []struct {
		name          string
		first, second func() error
		want          error
		waited        time.Duration
		forced        bool
	}{
		{"at once", func() error { return nil }, nil, nil, 0, false},
		{"busy", func() error { return busy }, nil, busy, 0, false},
		{"hangs", hang, func() error { return nil }, nil, time.Second, true},
		{"hangs, and force fails", hang, func() error { return busy }, busy, time.Second, true},
		{"hangs for good", hang, hang, context.DeadlineExceeded, 2 * time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			testenv.Bubble(t, func(t *testing.T) {
				var forced atomic.Bool
				start := time.Now()
				err := escalate(time.Second, c.first, func() error { forced.Store(true); return c.second() })
				if waited := time.Since(start); !errors.Is(err, c.want) || forced.Load() != c.forced || waited != c.waited {
					t.Errorf("%v after %s, forced %v", err, waited, forced.Load())
				}
				time.Sleep(2 * time.Hour) // the calls that nobody waited for
			})
		})
	}
}

// hang takes longer than anybody waits.
func hang() error {
	time.Sleep(time.Hour)
	return nil
}
