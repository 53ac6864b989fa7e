package idempotency

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestRunningCountsWaiters(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a := r.do(op("a", "x", "y"))
		r.do(op("a", "x", "y"))
		b := r.do(op("b", "x", "y"))
		r.do(op("b", "x", "y"))
		c := r.do(op("c", "z"))
		in := r.table.Running()
		if len(in) != 2 || in[0].Waiters != 4 || in[1].Waiters != 1 {
			t.Errorf("Running() = %+v", in)
		}
		a.end(nil)
		b.end(nil)
		c.end(nil)
		if in := r.table.Running(); len(in) != 0 {
			t.Errorf("Running() = %+v", in)
		}
	})
}

func TestShutdownWaits(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a, b := r.do(op("a", "x")), r.do(op("b", "x"))
		var cut []Info
		down := make(chan struct{})
		go func() {
			cut = r.table.Shutdown(t.Context())
			close(down)
		}()
		synctest.Wait()
		r.do(op("c", "z")).mustEnd(ErrClosed)
		r.do(op("a", "x")).mustEnd(ErrClosed)
		a.end(nil)
		b.mustRun()
		select {
		case <-down:
			t.Fatal("did not wait")
		default:
		}
		b.end(nil)
		<-down
		a.mustEnd(nil)
		b.mustEnd(nil)
		if cut != nil || r.table.Shutdown(t.Context()) != nil {
			t.Errorf("cut %+v", cut)
		}
		r.mustBeEmpty()
	})
}

func TestShutdownCuts(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a := r.do(op("a", "x"))
		stuck := r.goDo(t.Context(), op("stuck", "z"), false)
		b, c := r.do(op("b", "x", "y")), r.do(op("c", "y"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		cut := r.table.Shutdown(ctx)
		synctest.Wait()
		if len(cut) != 2 || cut[0].Name != "a" || cut[1].Name != "stuck" {
			t.Errorf("cut %+v", cut)
		}
		a.mustEnd(ErrClosed)
		b.mustEnd(ErrClosed)
		c.mustEnd(ErrClosed)
		if b.started || c.started {
			t.Error("a waiting call began during the shutdown")
		}
		if context.Cause(stuck.fnCtx) != ErrClosed {
			t.Errorf("cause %v", context.Cause(stuck.fnCtx))
		}
		if cut := r.table.Shutdown(ctx); len(cut) != 1 || cut[0].Name != "stuck" {
			t.Errorf("second Shutdown: %+v", cut)
		}
		stuck.end(nil)
		if cut := r.table.Shutdown(ctx); cut != nil {
			t.Errorf("third Shutdown: %+v", cut)
		}
		r.mustBeEmpty()
	})
}

func TestShutdownKeepsTheFirstCause(t *testing.T) {
	bubble(t, &Options{Stall: time.Minute}, func(t *testing.T, r *rig) {
		a := r.goDo(t.Context(), op("a", "x"), false)
		sleep(time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if cut := r.table.Shutdown(ctx); len(cut) != 1 {
			t.Errorf("cut %+v", cut)
		}
		a.end(errTest)
		a.mustEnd(ErrStalled)
		if errors.Is(a.err, ErrClosed) {
			t.Errorf("err = %v", a.err)
		}
	})
}
