package idempotency

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestKeptErrorIsHandedOnce(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a := r.do(op("a", "x", "~y"))
		a.cancel()
		synctest.Wait()
		a.end(errTest)
		b := r.do(op("a", "~y", "x"))
		b.mustEnd(errTest)
		if b.started {
			t.Error("ran")
		}
		r.mustBeEmpty()
		c := r.do(op("a", "x", "~y"))
		c.mustRun()
		c.end(nil)
		if want := []string{"start a", "done a", "handover a", "start a", "done a"}; !slices.Equal(r.events, want) {
			t.Errorf("events %q", r.events)
		}
	})
}

func TestKeptErrorIsDropped(t *testing.T) {
	other := op("a", "x", "y")
	other.Request = "other"
	for _, tt := range []struct {
		name string
		then func(r *rig)
	}{
		{"another operation on a key", func(r *rig) { r.do(op("b", "y")).end(nil) }},
		{"another request", func(r *rig) { r.do(other).end(nil) }},
		{"shared use of a key", func(r *rig) { r.do(op("b", "~y")).end(nil) }},
		{"age", func(*rig) { sleep(maxKeptAge) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, r *rig) {
				a := r.do(op("a", "x", "y"))
				a.cancel()
				synctest.Wait()
				a.end(errTest)
				tt.then(r)
				r.mustBeEmpty()
				b := r.do(op("a", "x", "y"))
				b.mustRun()
				b.end(nil)
			})
		})
	}
}

func TestErrorThatWasReceivedIsNotKept(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a, j := r.do(op("a", "x")), r.do(op("a", "x"))
		a.cancel()
		synctest.Wait()
		a.end(errTest)
		j.mustEnd(errTest)
		r.mustBeEmpty()
	})
}

func TestWaitingCallIsNotHandedAnError(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a := r.do(op("a", "x"))
		a.cancel()
		synctest.Wait()
		b := r.do(op("b", "x"))
		a.end(errTest)
		b.mustRun()
		c := r.do(op("c", "x"))
		c.cancel()
		synctest.Wait()
		b.end(nil)
		r.mustBeEmpty()
	})
}

func TestKeptErrorsAreBounded(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		key := func(i int) string { return string(rune('a'+i%26)) + time.Duration(i).String() }
		for i := range maxKept + 10 {
			c := r.do(op("a", key(i)))
			c.cancel()
			synctest.Wait()
			c.end(errTest)
		}
		if n := r.table.keptOrder.Len(); n != maxKept || r.table.kept.len() != n {
			t.Errorf("%d errors and %d keys kept", n, r.table.kept.len())
		}
		oldest := r.do(op("a", key(0)))
		oldest.mustRun()
		oldest.end(nil)
		r.do(op("a", key(maxKept+9))).mustEnd(errTest)
		sleep(maxKeptAge)
		r.mustBeEmpty()
	})
}

func TestKeptErrorIsOfOneResultType(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a := r.do(op("a", "x"))
		a.cancel()
		synctest.Wait()
		a.end(errTest)
		o := op("a", "x")
		o.Equal = func(_, _ any) bool { t.Error("Equal called"); return true }
		if n, err := Do(t.Context(), r.table, o, func(context.Context) (int, error) { return 7, nil }); n != 7 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
		r.mustBeEmpty()
	})
}
