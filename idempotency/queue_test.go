package idempotency

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csikit/csikit/internal/testenv"
)

type clientKey struct{}

func as(ctx context.Context, client string) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

func clientOf(ctx context.Context) string {
	c, _ := ctx.Value(clientKey{}).(string)
	return c
}

// visits are calls that wait at one resource; each notes its name when it enters.
type visits struct {
	t     *testing.T
	q     *Queue
	mu    sync.Mutex
	order []string
}

// soonEnded is a context that ends a moment after now.
func soonEnded(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	return ctx
}

// all lists who has entered.
func (v *visits) all() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.order)
}

// enter starts a call that stays inside until another second is over.
func (v *visits) enter(ctx context.Context, name string) {
	go func() {
		leave, err := v.q.Enter(ctx, "vg0")
		if err != nil {
			return
		}
		v.mu.Lock()
		v.order = append(v.order, name)
		v.mu.Unlock()
		time.Sleep(time.Second)
		leave()
	}()
	synctest.Wait()
}

func mustForget(t *testing.T, q *Queue) {
	t.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.at.len() > 0 {
		t.Errorf("%d resources are kept", q.at.len())
	}
}

func TestQueueIsInOrderOfArrival(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		v := &visits{t: t, q: NewQueue(nil)}
		var want []string
		for i := range 100 {
			name := fmt.Sprint(i)
			want = append(want, name)
			v.enter(as(t.Context(), fmt.Sprint(i%3)), name)
		}
		begin := time.Now()
		sleep(101 * time.Second)
		if !slices.Equal(v.all(), want) {
			t.Errorf("entered in the order %v", v.all())
		}
		if d := time.Since(begin); d != 101*time.Second {
			t.Errorf("took %v", d)
		}
		mustForget(t, v.q)
	})
}

// A hundred calls of three clients: one has come with ninety before the others.
func TestQueueIsFair(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		v := &visits{t: t, q: NewQueue(&QueueOptions{Client: clientOf})}
		for range 90 {
			v.enter(as(t.Context(), "a"), "a")
		}
		for range 5 {
			v.enter(as(t.Context(), "b"), "b")
			v.enter(as(t.Context(), "c"), "c")
		}
		sleep(101 * time.Second)
		// The first entered at once, and each of its next ones lets the others in.
		var want []string
		for range 5 {
			want = append(want, "a", "b", "c")
		}
		got := v.all()[1:] // the first was inside before anybody else came
		if !slices.Equal(got[:15], want) {
			t.Errorf("entered in the order %v", got[:15])
		}
		if n := len(v.all()); n != 100 {
			t.Errorf("%d of 100 entered", n)
		}
		mustForget(t, v.q)
	})
}

// New clients that come and come do not starve who has many calls in line.
func TestQueueStarvesNobody(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		v := &visits{t: t, q: NewQueue(&QueueOptions{Client: clientOf})}
		for range 4 {
			v.enter(as(t.Context(), "a"), "a")
		}
		for i := range 40 {
			v.enter(as(t.Context(), fmt.Sprint("new", i)), "new")
			v.enter(as(t.Context(), fmt.Sprint("late", i)), "new")
			time.Sleep(time.Second)
		}
		n := 0
		for _, name := range v.all() {
			if name == "a" {
				n++
			}
		}
		if n != 4 {
			t.Errorf("%d of 4 entered: %v", n, v.all())
		}
		sleep(time.Minute)
		mustForget(t, v.q)
	})
}

func TestQueueLimits(t *testing.T) {
	q := NewQueue(&QueueOptions{Limit: 3})
	var inside, most atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				if i%4 == 0 {
					time.AfterFunc(time.Microsecond, cancel) // gives up in every place
				}
				leave, err := q.Enter(ctx, "vg0")
				if err == nil {
					n := inside.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					inside.Add(-1)
					leave()
					leave() // the second does nothing
				} else if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n > 3 {
		t.Errorf("%d at a time; limit 3", n)
	}
	mustForget(t, q)
}

func TestQueueResourcesAreApart(t *testing.T) {
	q := NewQueue(nil)
	for _, name := range []string{"vg0", "vg1"} {
		leave, err := q.Enter(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
	}
}

func TestQueueGivesUpWithItsContext(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		v := &visits{t: t, q: NewQueue(nil)}
		v.enter(t.Context(), "a")
		ctx, cancel := context.WithCancel(t.Context())
		v.enter(ctx, "b")
		v.enter(t.Context(), "c")
		cancel()
		synctest.Wait()
		if in := v.q.Running(); len(in) != 1 || len(in[0].Waiting) != 1 {
			t.Errorf("Running() = %+v", in)
		}
		if _, err := v.q.Enter(ctx, "vg0"); !errors.Is(err, context.Canceled) {
			t.Errorf("an ended context entered: %v", err)
		}
		sleep(2 * time.Second)
		if want := []string{"a", "c"}; !slices.Equal(v.all(), want) {
			t.Errorf("entered %v", v.all())
		}
		mustForget(t, v.q)
	})
}

func TestQueueKeepsADistance(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		q := NewQueue(&QueueOptions{Limit: 10, Every: time.Minute})
		begin := time.Now()
		for i := range 4 {
			leave, err := q.Enter(t.Context(), "api")
			if err != nil {
				t.Fatal(err)
			}
			if at := time.Since(begin); at != time.Duration(i)*time.Minute {
				t.Errorf("entry %d at %v", i, at)
			}
			leave()
		}
		if _, err := q.Enter(soonEnded(t), "api"); !errors.Is(err, context.Canceled) {
			t.Errorf("entered too early: %v", err)
		}
		sleep(time.Minute)
		mustForget(t, q)
	})
}

func TestQueueIsBounded(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		v := &visits{t: t, q: NewQueue(&QueueOptions{Waiting: 2, Client: clientOf})}
		a := as(t.Context(), "a")
		for range 3 {
			v.enter(a, "a")
		}
		if _, err := v.q.Enter(a, "vg0"); !errors.Is(err, ErrQueueFull) {
			t.Errorf("third that waits: %v", err)
		}
		v.enter(as(t.Context(), "b"), "b")
		sleep(10 * time.Second)
		if want := []string{"a", "a", "b", "a"}; !slices.Equal(v.all(), want) {
			t.Errorf("entered %v", v.all())
		}
		mustForget(t, v.q)
		none := NewQueue(&QueueOptions{Waiting: -1})
		leave, err := none.Enter(t.Context(), "vg0")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := none.Enter(t.Context(), "vg0"); !errors.Is(err, ErrQueueFull) {
			t.Errorf("waits: %v", err)
		}
		leave()
		mustForget(t, none)
	})
}

func TestNilQueue(t *testing.T) {
	var q *Queue
	if n := testing.AllocsPerRun(100, func() {
		leave, err := q.Enter(t.Context(), "vg0")
		if err != nil {
			t.Fatal(err)
		}
		leave()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
	if q.Running() != nil {
		t.Error("somebody is there")
	}
}

// An operation that waits for longer than it may stall is not stalled, says what
// it waits for, and leaves the line when it is negated.
func TestQueueInAnOperation(t *testing.T) {
	bubble(t, &Options{Stall: time.Minute}, func(t *testing.T, r *rig) {
		q := NewQueue(nil)
		leave, err := q.Enter(t.Context(), "vg0")
		if err != nil {
			t.Fatal(err)
		}
		extend := func(o Operation) chan error {
			got := make(chan error, 1)
			go func() {
				_, err := Do(context.Background(), r.table, o, func(ctx context.Context) (int, error) {
					leave, err := q.Enter(ctx, "vg0")
					if err != nil {
						return 0, err
					}
					defer leave()
					time.Sleep(time.Second)
					return 0, nil
				})
				got <- err
			}()
			synctest.Wait()
			return got
		}
		a, b := extend(op("a", "x")), extend(op("b", "y"))
		sleep(10 * time.Minute)
		if in := r.table.Running(); len(in) != 2 || in[0].Step != "waiting for vg0" {
			t.Errorf("Running() = %+v", in)
		}
		if in := q.Running(); len(in) != 1 || len(in[0].Inside) != 1 || len(in[0].Waiting) != 2 ||
			in[0].Waiting[0].Operation != "a" || in[0].Waiting[1].Owner != "req-b" {
			t.Errorf("Running() = %+v", in)
		}
		undo := op("undo a", "x")
		undo.Negates = func(o Operation) bool { return o.Name == "a" }
		u := r.do(undo)
		if err := <-a; !errors.Is(err, ErrNegated) {
			t.Errorf("a: %v", err)
		}
		u.end(nil)
		leave()
		synctest.Wait()
		if in := r.table.Running(); len(in) != 1 || in[0].Step != "at vg0" {
			t.Errorf("Running() = %+v", in)
		}
		if err := <-b; err != nil {
			t.Errorf("b: %v", err)
		}
		mustForget(t, q)
	})
}

// BenchmarkQueue is a turn that nobody else wants.
func BenchmarkQueue(b *testing.B) {
	q := NewQueue(nil)
	b.ReportAllocs()
	for b.Loop() {
		leave, err := q.Enter(b.Context(), "vg0")
		if err != nil {
			b.Fatal(err)
		}
		leave()
	}
}
