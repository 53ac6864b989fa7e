package idempotency

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func TestPanicInEqualOrNegates(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a := r.do(op("a", "x"))
		bad := op("bad", "x")
		bad.Equal = func(_, _ any) bool { panic("equal") }
		c := r.do(bad)
		if p, ok := errors.AsType[*PanicError](c.err); !ok || p.Value != "equal" {
			t.Errorf("err = %v", c.err)
		}
		bad.Equal, bad.Negates = nil, func(Operation) bool { panic("negates") }
		c = r.do(bad)
		if p, ok := errors.AsType[*PanicError](c.err); !ok || p.Value != "negates" {
			t.Errorf("err = %v", c.err)
		}
		a.end(nil)
		a.mustEnd(nil)
		r.mustBeEmpty()
	})
}

func negating(o Operation, names ...string) Operation {
	o.Negates = func(earlier Operation) bool { return slices.Contains(names, earlier.Name) }
	return o
}

func TestNegate(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		stage := r.goDo(t.Context(), op("stage", "x"), false)
		unstage := r.do(negating(op("unstage", "x"), "stage"))
		if context.Cause(stage.fnCtx) != ErrNegated {
			t.Fatalf("cause %v", context.Cause(stage.fnCtx))
		}
		unstage.mustWait() // mutual exclusion holds all the same
		late := r.do(op("stage", "x"))
		stage.end(errTest)
		stage.mustEnd(errTest)
		stage.mustEnd(ErrNegated)
		unstage.mustRun()
		late.mustWait() // a cancelled operation cannot be joined
		unstage.end(nil)
		late.mustRun()
		late.end(nil)
		if want := []string{"start stage", "negate stage", "wait unstage"}; !slices.Equal(r.events[:3], want) {
			t.Errorf("events %q", r.events)
		}
		r.mustBeEmpty()
	})
}

func TestNegatedMayStillSucceed(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		stage := r.goDo(t.Context(), op("stage", "x"), false)
		unstage := r.do(negating(op("unstage", "x"), "stage"))
		stage.end(nil)
		stage.mustEnd(nil)
		unstage.mustRun()
		unstage.end(nil)
	})
}

// A waiting stage must not run before the unstage that came after it, and not
// after it either.
func TestNegateDropsWaiting(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		expand := r.do(op("expand", "x", "y"))
		s1, s2 := r.do(op("s1", "x")), r.do(op("s2", "x", "y"))
		unstage := r.do(negating(op("unstage", "y", "x"), "s1", "s2"))
		s1.mustEnd(ErrNegated)
		s2.mustEnd(ErrNegated)
		unstage.mustWait()
		expand.mustRun() // it is not negated
		expand.end(nil)
		unstage.mustRun()
		unstage.end(nil)
		if s1.started || s2.started {
			t.Error("a negated call ran")
		}
		r.mustBeEmpty()
	})
}

func TestNegateDropsAFreedOne(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a := r.do(op("a", "a"))
		s1 := r.do(op("s1", "a", "b")) // waits for a
		s2 := r.do(op("s2", "b"))      // waits for s1 only: free once s1 is dropped
		other := r.do(op("other", "b", "c"))
		n := r.do(negating(op("n", "b"), "s1", "s2"))
		s1.mustEnd(ErrNegated)
		s2.mustEnd(ErrNegated)
		if s2.started {
			t.Error("a negated call ran")
		}
		other.mustRun()
		n.mustWait()
		other.end(nil)
		n.mustRun()
		n.end(nil)
		a.end(nil)
		r.mustBeEmpty()
	})
}

func TestNegatingWaitIsBounded(t *testing.T) {
	bubble(t, &Options{Wait: 10 * time.Second, Grace: 5 * time.Second}, func(t *testing.T, r *rig) {
		stage := r.goDo(t.Context(), op("stage", "x"), false)
		unstage := r.do(negating(op("unstage", "x"), "stage"))
		sleep(time.Minute)
		if p := unstage.mustPend(); unstage.at != 10*time.Second || !p.Stuck || p.Name != "stage" {
			t.Errorf("%+v after %v", *p, unstage.at)
		}
		stage.mustPend()
		stage.end(errTest)
		c := r.do(op("stage", "x"))
		c.mustRun() // an error made by a negation is handed to nobody
		c.end(nil)
		r.mustBeEmpty()
	})
}

// A second negation does not give the first one's victim more time.
func TestNegateTwice(t *testing.T) {
	bubble(t, &Options{Wait: 2 * time.Second, Grace: 5 * time.Second}, func(t *testing.T, r *rig) {
		stage := r.goDo(t.Context(), op("stage", "x"), false)
		for range 2 {
			unstage := r.do(negating(op("unstage", "x"), "stage"))
			sleep(3 * time.Second)
			unstage.mustPend()
		}
		if p := stage.mustPend(); !p.Stuck || stage.at != 5*time.Second {
			t.Errorf("%+v after %v", *p, stage.at)
		}
		stage.end(nil)
		r.mustBeEmpty()
	})
}

func TestCauseIsToldOnce(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		stage := r.goDo(t.Context(), op("stage", "x"), false)
		unstage := r.do(negating(op("unstage", "x"), "stage"))
		stage.end(context.Cause(stage.fnCtx))
		if stage.mustEnd(ErrNegated); stage.err != ErrNegated {
			t.Errorf("err = %v", stage.err)
		}
		unstage.end(nil)
	})
}
