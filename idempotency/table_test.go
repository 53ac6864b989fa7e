package idempotency

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestRunsAndReturns(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		c := r.do(op("a", "x"))
		c.mustRun()
		c.end(nil)
		c.mustEnd(nil)
		if c.val != "by req-a" {
			t.Errorf("value %q", c.val)
		}
		c = r.do(op("b", "x"))
		c.end(errTest)
		c.mustEnd(errTest)
		r.mustBeEmpty()
	})
}

func TestEndedContextStartsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Do(ctx, NewTable(nil), op("a", "x"), func(context.Context) (int, error) {
		t.Error("ran")
		return 0, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

func TestJoin(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a := r.do(op("a", "x"))
		b := r.do(op("a", "x"))
		c := r.do(op("a", "x"))
		b.mustWait()
		a.end(errTest)
		for _, c := range []*call{a, b, c} {
			c.mustEnd(errTest)
		}
		if b.started || c.started {
			t.Error("a joiner ran")
		}
		if want := []string{"start a", "join a", "join a", "done a"}; !slices.Equal(r.events, want) {
			t.Errorf("events %q", r.events)
		}
		r.mustBeEmpty()
	})
}

func TestJoinGivesTheValue(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a, b := r.do(op("a", "x")), r.do(op("a", "x"))
		a.end(nil)
		b.mustEnd(nil)
		if b.val != "by req-a" {
			t.Errorf("value %q", b.val)
		}
	})
}

func TestNoReplayOfOK(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		r.do(op("a", "x")).end(nil)
		c := r.do(op("a", "x"))
		c.mustRun()
		c.end(nil)

		// Nor when nobody received it.
		c = r.do(op("a", "x"))
		c.cancel()
		c.end(nil)
		d := r.do(op("a", "x"))
		d.mustRun()
		d.end(nil)
		r.mustBeEmpty()
	})
}

func TestEqualOnlyForSecondCalls(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		n := 0
		counting := func(keys ...string) Operation {
			o := op("a", keys...)
			o.Equal = func(a, b any) bool { n++; return a == b }
			return o
		}
		r.do(counting("x")).end(nil)
		x := r.do(counting("x"))
		y := r.do(counting("y"))
		xy := r.do(counting("x", "y"))
		shared := r.do(counting("~x"))
		if n != 0 {
			t.Errorf("Equal called %d times", n)
		}
		y2 := r.do(counting("y"))
		if n != 0 {
			t.Errorf("Equal called %d times for an operation that was overtaken", n)
		}
		x.end(nil)
		y.end(nil)
		xy.end(nil)
		y2.end(nil)
		shared.mustRun()
		r.do(counting("~x"))
		if n != 1 {
			t.Errorf("Equal called %d times; want 1", n)
		}
		shared.end(nil)
	})
}

func TestNoJoinOfOtherResultType(t *testing.T) {
	bubble(t, &Options{Wait: time.Second}, func(t *testing.T, r *rig) {
		a := r.do(op("a", "x"))
		o := op("a", "x")
		o.Equal = func(_, _ any) bool { t.Error("Equal called"); return true }
		_, err := Do(t.Context(), r.table, o, func(context.Context) (int, error) { return 1, nil })
		if _, ok := errors.AsType[*PendingError](err); !ok {
			t.Errorf("err = %v", err)
		}
		a.end(nil)
	})
}

// The later of two different requests has the last word, so a third that equals
// the first must not be answered by the first.
func TestNoJoinAcrossConflict(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a, b := r.do(op("a", "x")), r.do(op("b", "x"))
		c := r.do(op("a", "x"))
		a.end(nil)
		b.mustRun()
		c.mustWait()
		b.end(nil)
		c.mustRun()
		c.end(nil)
	})
}

func TestJoinWaiting(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a, b := r.do(op("a", "x")), r.do(op("b", "x"))
		c := r.do(op("b", "x"))
		b.cancel() // the first caller goes, its operation stays for the second
		synctest.Wait()
		b.mustEnd(context.Canceled)
		a.end(nil)
		if !b.started {
			t.Fatal("dropped, though a joiner waits")
		}
		b.finish <- errTest
		synctest.Wait()
		c.mustEnd(errTest)
		r.mustBeEmpty()
	})
}

func TestDropWaitingWithoutCallers(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a, b, c := r.do(op("a", "x")), r.do(op("b", "x", "y")), r.do(op("c", "y"))
		c.mustWait()
		b.cancel()
		synctest.Wait()
		b.mustEnd(context.Canceled)
		c.mustRun() // what b held back goes on
		a.end(nil)
		c.end(nil)
		if b.started {
			t.Error("ran for nobody")
		}
		r.mustBeEmpty()
	})
}

func TestCancelledCallerLeavesAtOnce(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a := r.do(op("a", "x"))
		a.cancel()
		synctest.Wait()
		a.mustEnd(context.Canceled)
		if a.at != 0 || a.fnCtx.Err() != nil {
			t.Errorf("left after %v, fn's context: %v", a.at, a.fnCtx.Err())
		}
		b := r.do(op("a", "x"))
		a.finish <- nil
		synctest.Wait()
		b.mustEnd(nil)
		if b.started {
			t.Error("did not join")
		}
	})
}

func TestContextHasValuesOnly(t *testing.T) {
	type key struct{}
	bubble(t, nil, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, 7), time.Hour)
		defer cancel()
		c := r.goDo(ctx, op("a", "x"), true)
		if c.fnCtx.Value(key{}) != 7 {
			t.Error("value lost")
		}
		if _, ok := c.fnCtx.Deadline(); ok {
			t.Error("has a deadline")
		}
		c.end(nil)
		if c.fnCtx.Err() == nil {
			t.Error("context outlives the operation")
		}
	})
}
