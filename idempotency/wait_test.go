package idempotency

import (
	"context"
	"errors"
	"slices"
	"testing"
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

func TestPendingErrorText(t *testing.T) {
	err := error(&PendingError{Name: "Stage vol-1", Step: "mkfs", Owner: "r1", Age: 1500 * time.Millisecond, Stuck: true})
	want := `Stage vol-1 is pending for 1.5s, at step "mkfs", asked for by r1, made no progress or was cancelled, and does not end`
	if err.Error() != want {
		t.Errorf("got %q", err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error("is a deadline")
	}
}

// Of several that run in the way, the oldest is named.
func TestPendingNamesTheOldest(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		old := r.do(op("old", "~b"))
		sleep(time.Second)
		young := r.do(op("young", "~a"))
		c := r.do(op("c", "a", "b"))
		sleep(time.Minute)
		if p := c.mustPend(); p.Name != "old" {
			t.Errorf("pending on %q", p.Name)
		}
		old.end(nil)
		young.end(nil)
	})
}

// A caller whose time is up at the moment when its operation ends takes the
// result: the table counts it as received.
func TestLeavingAfterTheEnd(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		a := r.do(op("a", "x"))
		o := r.table.all
		a.end(nil)
		for _, err := range []error{nil, context.Canceled} {
			if err := r.table.leave(o, &o.op, err); err != nil {
				t.Errorf("err = %v", err)
			}
		}
	})
}
