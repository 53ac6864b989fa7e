package idempotency

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stop ends what a failed test has left, so that its failure can be read.
func (r *rig) stop() {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	r.table.Shutdown(ended)
	for _, c := range r.calls {
		close(c.giveUp)
	}
	synctest.Wait()
}

// rig runs calls on a table inside a synctest bubble and keeps what became of
// them.
type rig struct {
	t      *testing.T
	table  *Table
	calls  []*call
	mu     sync.Mutex // of all that follows, and of the results of calls
	events []string
}

func newRig(t *testing.T, o *Options) *rig {
	r := &rig{t: t}
	if o == nil {
		o = &Options{}
	}
	if o.Observer == nil {
		o.Observer = func(e Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e.Kind.String()+" "+e.Name)
		}
	}
	r.table = NewTable(o)
	return r
}

// call is one call of Do under way.
type call struct {
	r       *rig
	started bool
	fnCtx   context.Context
	finish  chan error // what fn returns
	giveUp  chan struct{}
	cancel  context.CancelFunc
	done    bool
	val     string
	err     error
	at      time.Duration // when Do returned, since the call
}

func equal(a, b any) bool { return a == b }

// op is an operation with exclusive keys; a key that begins with ~ is shared.
func op(name string, keys ...string) Operation {
	o := Operation{Name: name, Owner: "req-" + name, Request: name, Equal: equal}
	for _, k := range keys {
		if n, shared := strings.CutPrefix(k, "~"); shared {
			o.Keys = append(o.Keys, Shared(n))
		} else {
			o.Keys = append(o.Keys, Exclusive(k))
		}
	}
	return o
}

// goDo calls Do with an fn that returns when the test says so, or when its
// context ends and obeys is set.
func (r *rig) goDo(ctx context.Context, o Operation, obeys bool) *call {
	ctx, cancel := context.WithCancel(ctx)
	c := &call{r: r, finish: make(chan error, 1), giveUp: make(chan struct{}), cancel: cancel}
	r.t.Cleanup(cancel)
	r.calls = append(r.calls, c)
	begin := time.Now()
	go func() {
		val, err := Do(ctx, r.table, o, func(ctx context.Context) (string, error) {
			r.mu.Lock()
			c.started, c.fnCtx = true, ctx
			r.mu.Unlock()
			gone := ctx.Done()
			if !obeys {
				gone = nil
			}
			select {
			case err := <-c.finish:
				return "by " + o.Owner, err
			case <-gone:
				return "", ctx.Err()
			case <-c.giveUp:
				return "", errTest
			}
		})
		r.mu.Lock()
		defer r.mu.Unlock()
		c.done, c.val, c.err, c.at = true, val, err, time.Since(begin)
	}()
	synctest.Wait()
	return c
}

func (r *rig) do(o Operation) *call { return r.goDo(context.Background(), o, true) }

// sleep lets time pass, and then all that it set off happen.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (c *call) end(err error) {
	c.finish <- err
	synctest.Wait()
}

func (c *call) mustRun() {
	c.r.t.Helper()
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if !c.started || c.done {
		c.r.t.Fatalf("started %v, done %v (%v); want running", c.started, c.done, c.err)
	}
}

func (c *call) mustWait() {
	c.r.t.Helper()
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if c.started || c.done {
		c.r.t.Fatalf("started %v, done %v (%v); want waiting", c.started, c.done, c.err)
	}
}

func (c *call) mustEnd(err error) {
	c.r.t.Helper()
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if !c.done || !errors.Is(c.err, err) {
		c.r.t.Fatalf("done %v with %v; want %v", c.done, c.err, err)
	}
}

func (c *call) mustPend() *PendingError {
	c.r.t.Helper()
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	p, ok := errors.AsType[*PendingError](c.err)
	if !c.done || !ok {
		c.r.t.Fatalf("done %v with %v; want a PendingError", c.done, c.err)
	}
	return p
}

// mustBeEmpty checks that the table keeps nothing.
func (r *rig) mustBeEmpty() {
	r.t.Helper()
	t := r.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all != nil || len(t.keys) > 0 || len(t.kept) > 0 || t.keptOrder.Len() > 0 {
		r.t.Errorf("table keeps: operations %v, %d keys, %d errors", t.all != nil, len(t.keys), len(t.kept))
	}
}

var errTest = errors.New("test error")

func bubble(t *testing.T, o *Options, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, o)
		defer r.stop()
		f(t, r)
	})
}

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

func TestKeys(t *testing.T) {
	for _, tt := range []struct {
		a, b  []string
		clash bool
	}{
		{[]string{"x"}, []string{"x"}, true},
		{[]string{"x"}, []string{"y"}, false},
		{[]string{"~x"}, []string{"~x"}, false},
		{[]string{"~x"}, []string{"x"}, true},
		{[]string{"x"}, []string{"~x"}, true},
		{[]string{"~x", "a"}, []string{"b", "~x"}, false},
		{[]string{"~x", "a"}, []string{"a", "~x"}, true},
		{[]string{"~x", "x"}, []string{"~x"}, true}, // exclusive wins
		{[]string{"x", "~x"}, []string{"~x"}, true},
		{[]string{"~x", "~x"}, []string{"~x"}, false},
		{[]string{"a", "b", "c", "d", "e"}, []string{"e"}, true},
		{nil, nil, false},
	} {
		t.Run(fmt.Sprint(tt.a, tt.b), func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, r *rig) {
				a, b := r.do(op("a", tt.a...)), r.do(op("b", tt.b...))
				a.mustRun()
				if b.started == tt.clash {
					t.Errorf("second started: %v", b.started)
				}
				a.end(nil)
				b.mustRun()
				b.end(nil)
				r.mustBeEmpty()
			})
		})
	}
}

// A stream of shared holders must not starve an exclusive one, nor operations
// with few keys one with many.
func TestFIFO(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		s1 := r.do(op("s1", "~x"))
		y := r.do(op("y", "y"))
		both := r.do(op("both", "x", "y"))
		s2 := r.do(op("s2", "~x"))
		y2 := r.do(op("y2", "y"))
		s1.mustRun()
		y.mustRun()
		both.mustWait()
		s2.mustWait()
		y2.mustWait()
		s1.end(nil)
		both.mustWait() // all or nothing
		s2.mustWait()
		y.end(nil)
		both.mustRun()
		s2.mustWait()
		y2.mustWait()
		both.end(nil)
		s2.mustRun()
		y2.mustRun()
		s2.end(nil)
		y2.end(nil)
		r.mustBeEmpty()
	})
}

func TestKeyTableShrinks(t *testing.T) {
	bubble(t, nil, func(t *testing.T, r *rig) {
		var all []*call
		for i := range 2 * maxIdleKeys {
			all = append(all, r.do(op("a", fmt.Sprint(i))))
		}
		for _, c := range all {
			c.end(nil)
		}
		if r.table.peak != 0 {
			t.Error("the map of a rush is kept")
		}
	})
}

func TestPanic(t *testing.T) {
	for name, f := range map[string]func(){
		"panic":  func() { panic("boom") },
		"goexit": runtime.Goexit,
		"nil":    func() { panic(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, r *rig) {
				goOn := make(chan struct{})
				var errs [2]error
				for i := range errs {
					go func() {
						_, errs[i] = Do(t.Context(), r.table, op("a", "x"), func(context.Context) (int, error) {
							<-goOn
							f()
							return 0, nil
						})
					}()
				}
				synctest.Wait()
				close(goOn)
				synctest.Wait()
				for _, err := range errs {
					p, ok := errors.AsType[*PanicError](err)
					if !ok || p.Name != "a" {
						t.Fatalf("err = %v", err)
					}
					if name == "panic" && (p.Value != "boom" || !strings.Contains(string(p.Stack), "TestPanic")) {
						t.Errorf("value %v, stack %s", p.Value, p.Stack)
					}
				}
				r.mustBeEmpty()
			})
		})
	}
}

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

func TestObserverMayPanicAndUseTheTable(t *testing.T) {
	var table *Table
	seen := 0
	table = NewTable(&Options{Observer: func(Event) {
		seen++
		table.Running()
		panic("observer")
	}})
	if _, err := Do(t.Context(), table, op("a", "x"), func(context.Context) (int, error) { return 1, nil }); err != nil {
		t.Error(err)
	}
	if table.Shutdown(t.Context()); seen == 0 {
		t.Error("observer not called")
	}
}
