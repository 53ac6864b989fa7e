package idempotency

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitIsBounded(t *testing.T) {
	bubble(t, &Options{Wait: 10 * time.Second}, func(t *testing.T, r *rig) {
		a := r.do(op("a", "x"))
		FromContext(a.fnCtx).Progress("mkfs")
		sleep(5 * time.Second)
		b := r.do(op("b", "x"))
		sleep(10*time.Second - 1)
		b.mustWait()
		sleep(1)
		p := b.mustPend()
		want := PendingError{Name: "a", Step: "mkfs", Owner: "req-a", Age: 15 * time.Second}
		if *p != want {
			t.Errorf("got %+v, want %+v", *p, want)
		}
		a.end(nil)
		if b.started {
			t.Error("ran after it gave up")
		}
		if want := []string{"start a", "wait b", "pending a", "done a"}; !slices.Equal(r.events, want) {
			t.Errorf("events %q", r.events)
		}
		r.mustBeEmpty()
	})
}

func TestDeadlineLessMargin(t *testing.T) {
	for _, tt := range []struct {
		name          string
		deadline      time.Duration
		own, joined   time.Duration // when the owner and a joiner get Pending
		conflicting   time.Duration
		wait, margin  time.Duration
		noConflicting bool
	}{
		{"deadline first", 5 * time.Second, 4 * time.Second, 4 * time.Second, 4 * time.Second, 10 * time.Second, time.Second, false},
		{"wait first", 30 * time.Second, 29 * time.Second, 29 * time.Second, 10 * time.Second, 10 * time.Second, time.Second, false},
		{"short deadline", time.Second, time.Second / 2, time.Second / 2, time.Second / 2, 10 * time.Second, time.Second, false},
		{"no wait", 5 * time.Second, 4 * time.Second, 4 * time.Second, 0, -1, time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, &Options{Wait: tt.wait, Margin: tt.margin, Stall: -1}, func(t *testing.T, r *rig) {
				ctx, cancel := context.WithTimeout(t.Context(), tt.deadline)
				defer cancel()
				a := r.goDo(ctx, op("a", "x"), true)
				j := r.goDo(ctx, op("a", "x"), true)
				c := r.goDo(ctx, op("c", "x"), true)
				sleep(time.Hour)
				for _, tt := range []struct {
					c    *call
					want time.Duration
				}{{a, tt.own}, {j, tt.joined}, {c, tt.conflicting}} {
					if p := tt.c.mustPend(); p.Name != "a" || p.Age != tt.want || tt.c.at != tt.want {
						t.Errorf("%+v after %v; want after %v", *p, tt.c.at, tt.want)
					}
				}
				a.end(nil)
				r.mustBeEmpty()
			})
		})
	}
}

// Once its turn has come, a call waits for its own operation as long as its
// context allows.
func TestWaitEndsWithTheTurn(t *testing.T) {
	bubble(t, &Options{Wait: 10 * time.Second, Stall: -1}, func(t *testing.T, r *rig) {
		a, b := r.do(op("a", "x")), r.do(op("b", "x"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		b2 := r.goDo(ctx, op("b", "x"), true)
		sleep(9 * time.Second)
		a.end(nil)
		b.mustRun()
		sleep(time.Hour)
		b.mustRun()
		if p := b2.mustPend(); p.Name != "b" || b2.at != time.Minute-500*time.Millisecond {
			t.Errorf("%+v after %v", *p, b2.at)
		}
		b.end(nil)
		b.mustEnd(nil)
	})
}

// A call waits behind an operation that itself waits: it is told of that one, or
// of the one that runs if there is one.
func TestPendingNamesWhatIsInTheWay(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a, both := r.do(op("a", "x")), r.do(op("both", "x", "y"))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		y, xy := r.goDo(ctx, op("y", "y"), true), r.goDo(ctx, op("late", "y", "x"), true)
		sleep(time.Minute)
		for c, want := range map[*call]string{both: "a", y: "both", xy: "a"} {
			if p := c.mustPend(); p.Name != want {
				t.Errorf("pending on %q; want %q", p.Name, want)
			}
		}
		a.end(nil)
	})
}

func TestStall(t *testing.T) {
	bubble(t, &Options{Stall: time.Minute}, func(t *testing.T, r *rig) {
		a := r.do(op("a", "x"))
		sleep(59 * time.Second)
		FromContext(a.fnCtx).Progress("half way")
		sleep(59 * time.Second)
		done := FromContext(a.fnCtx).Busy("mkfs")
		again := FromContext(a.fnCtx).Busy("mkfs, too")
		sleep(time.Hour)
		again()
		again()
		sleep(time.Hour)
		a.mustRun()
		done()
		sleep(time.Minute - 1)
		a.mustRun()
		sleep(1)
		a.mustEnd(ErrStalled)
		a.mustEnd(context.DeadlineExceeded)
		a.mustEnd(context.Canceled) // what fn returned
		if context.Cause(a.fnCtx) != ErrStalled {
			t.Errorf("cause %v", context.Cause(a.fnCtx))
		}
		if want := []string{"start a", "stall a", "done a"}; !slices.Equal(r.events, want) {
			t.Errorf("events %q", r.events)
		}
		r.mustBeEmpty()
	})
}

// One clock serves all: each operation must still be cut at its own time.
func TestStallOfEach(t *testing.T) {
	bubble(t, &Options{Stall: time.Minute}, func(t *testing.T, r *rig) {
		var all []*call
		for _, n := range []string{"a", "b", "c"} {
			all = append(all, r.do(op(n, n)))
			sleep(time.Second)
		}
		sleep(time.Hour)
		for _, c := range all {
			if c.mustEnd(ErrStalled); c.at != time.Minute {
				t.Errorf("cut after %v", c.at)
			}
		}
		r.mustBeEmpty()
	})
}

func TestStuckKeepsItsKeys(t *testing.T) {
	o := &Options{Stall: time.Minute, Grace: 5 * time.Second, Wait: 10 * time.Second}
	bubble(t, o, func(t *testing.T, r *rig) {
		begin := time.Now()
		a := r.goDo(t.Context(), op("a", "x"), false)
		j := r.do(op("a", "x"))
		FromContext(a.fnCtx).Progress("umount")
		sleep(time.Hour)
		for _, c := range []*call{a, j} {
			want := PendingError{Name: "a", Step: "umount", Owner: "req-a", Age: 65 * time.Second, Stuck: true}
			if p := c.mustPend(); *p != want || c.at != 65*time.Second {
				t.Errorf("%+v after %v; want %+v", *p, c.at, want)
			}
		}
		b, again := r.do(op("b", "x")), r.do(op("a", "x"))
		info := r.table.Running()
		want := Info{Name: "a", Owner: "req-a", Step: "umount", Started: begin, LastProgress: begin, Waiters: 2, Stuck: true}
		if len(info) != 1 || info[0] != want {
			t.Errorf("Running() = %+v, want %+v", info, want)
		}
		sleep(10 * time.Second)
		for _, c := range []*call{b, again} {
			if p := c.mustPend(); c.started || !p.Stuck || p.Name != "a" {
				t.Errorf("%+v, started %v", *p, c.started)
			}
		}
		b = r.do(op("b", "x"))
		a.end(nil) // the kernel lets go at last
		b.mustRun()
		b.end(nil)
		if want := []string{"start a", "join a", "stall a", "stuck a"}; !slices.Equal(r.events[:4], want) {
			t.Errorf("events %q", r.events)
		}
		r.mustBeEmpty()
	})
}

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
		if n := r.table.keptOrder.Len(); n != maxKept || len(r.table.kept) != n {
			t.Errorf("%d errors and %d keys kept", n, len(r.table.kept))
		}
		oldest := r.do(op("a", key(0)))
		oldest.mustRun()
		oldest.end(nil)
		r.do(op("a", key(maxKept+9))).mustEnd(errTest)
		sleep(maxKeptAge)
		r.mustBeEmpty()
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
		b, c := r.do(op("b", "x")), r.do(op("c", "x"))
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

func TestActivityOutsideOfOperations(t *testing.T) {
	a := FromContext(t.Context())
	if a != nil {
		t.Fatal("there is one")
	}
	a.Progress("x")
	a.Busy("x")()
}

func TestPendingErrorText(t *testing.T) {
	err := error(&PendingError{Name: "Stage vol-1", Step: "mkfs", Owner: "r1", Age: 1500 * time.Millisecond, Stuck: true})
	want := `Stage vol-1 is pending for 1.5s, at step "mkfs", asked for by r1, and does not end though it was cancelled`
	if err.Error() != want {
		t.Errorf("got %q", err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error("is a deadline")
	}
}
