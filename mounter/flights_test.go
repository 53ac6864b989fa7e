package mounter

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// TestFlights: a statfs that hangs costs one goroutine, however often it is asked
// for, and nobody waits longer than the timeout.
func TestFlights(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		var l flights[backends.VolumeStats]
		calls := 0
		hang := make(chan struct{})
		f := func() (backends.VolumeStats, error) {
			calls++
			<-hang
			return backends.VolumeStats{Total: 7}, nil
		}
		for range 5 {
			start := time.Now()
			_, err := l.get(t.Context(), "v", 10*time.Second, f)
			if !errors.Is(err, errNoAnswer) || time.Since(start) != 10*time.Second {
				t.Errorf("got %v after %s", err, time.Since(start))
			}
		}
		v, err := l.get(t.Context(), "other", time.Second, func() (backends.VolumeStats, error) { return backends.VolumeStats{Total: 1}, nil })
		if err != nil || v.Total != 1 {
			t.Errorf("another volume: %v, %v", v, err)
		}
		close(hang)
		synctest.Wait()
		if calls != 1 || len(l.m) != 0 {
			t.Errorf("%d calls, %d kept", calls, len(l.m))
		}
		if v, err := l.get(t.Context(), "v", time.Second, f); err != nil || v.Total != 7 || calls != 2 {
			t.Errorf("after the hang: %v, %v, %d calls", v, err, calls)
		}
	})
}

// TestFlightPanics: a panic is the caller's, whose server knows what to do with it.
func TestFlightPanics(t *testing.T) {
	var l flights[int]
	defer func() {
		if p := recover(); p != "boom" {
			t.Errorf("recovered %v", p)
		}
		if l.age("v") != 0 {
			t.Error("it still runs")
		}
	}()
	_, err := l.get(t.Context(), "v", time.Hour, func() (int, error) { panic("boom") })
	t.Errorf("no panic, %v", err)
}
