package idempotency

import (
	"context"
	"reflect"
	"slices"
	"testing"
	"time"
)

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
		want := Info{Name: "a", Owner: "req-a", Step: "umount", Started: begin, LastProgress: begin, Waiters: 2, Stuck: true, Keys: []Key{Exclusive("x")}}
		if len(info) != 1 || !reflect.DeepEqual(info[0], want) {
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

func TestActivityOutsideOfOperations(t *testing.T) {
	a := FromContext(t.Context())
	if a != nil {
		t.Fatal("there is one")
	}
	a.Progress("x")
	a.Busy("x")()
}
