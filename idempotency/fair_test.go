package idempotency

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csikit/csikit/internal/testenv"
)

// rush is many calls at once, and when each of them began and ended.
type rush struct {
	t     *testing.T
	table *Table
	calls sync.WaitGroup
	all   []*rushed
}

type rushed struct {
	keys       []Key
	came       time.Time
	begun, end time.Duration // since it came
}

// call makes a call that does work; it has its place when this returns.
func (r *rush) call(keys []Key, work func(context.Context)) {
	c := &rushed{keys: keys, came: time.Now()}
	r.all = append(r.all, c)
	o := Operation{Name: "call " + strconv.Itoa(len(r.all)), Keys: keys}
	r.calls.Go(func() {
		_, err := Do(r.t.Context(), r.table, o, func(ctx context.Context) (int, error) {
			c.begun = time.Since(c.came)
			work(ctx)
			return 0, nil
		})
		if c.end = time.Since(c.came); err != nil {
			r.t.Errorf("%s: %v", o.Name, err)
		}
	})
	synctest.Wait()
}

// waits gives the median of what the calls waited before they began, and the most.
func (r *rush) waits() (median, most time.Duration) {
	var all []time.Duration
	for _, c := range r.all {
		all = append(all, c.begun)
	}
	slices.Sort(all)
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2, all[n-1]
}

func works(d time.Duration) func(context.Context) { return func(context.Context) { time.Sleep(d) } }

func inRush(t *testing.T, f func(r *rush)) {
	t.Helper()
	testenv.Bubble(t, func(t *testing.T) {
		r := &rush{t: t, table: NewTable(&Options{Wait: time.Hour, Stall: -1})}
		f(r)
		if in := r.table.Running(); r.table.all != nil || r.table.keys.len() > 0 || len(in) > 0 {
			t.Errorf("the table keeps %d keys, %v", r.table.keys.len(), in)
		}
	})
}

// A call begins at the moment at which the last of those ends that came before it
// and want one of its keys, and not later: nobody is overtaken on his keys, and
// nobody waits for who is not in his way.
func TestNobodyIsOvertaken(t *testing.T) {
	for seed := range uint64(20) {
		inRush(t, func(r *rush) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			for range 150 {
				var keys []Key
				for _, k := range rnd.Perm(6)[:1+rnd.IntN(3)] {
					keys = append(keys, Key{Name: fmt.Sprint("k", k), Shared: rnd.IntN(2) == 0})
				}
				r.call(keys, works(time.Duration(1+rnd.IntN(20))*time.Millisecond))
				time.Sleep(time.Duration(rnd.IntN(3)) * time.Millisecond)
			}
			r.calls.Wait()
			for i, c := range r.all {
				turn := c.came
				for _, before := range r.all[:i] {
					if end := before.came.Add(before.end); meet(before.keys, c.keys) && end.After(turn) {
						turn = end
					}
				}
				if begun := c.came.Add(c.begun); !begun.Equal(turn) {
					t.Errorf("seed %d: call %d %v began %v from its turn", seed, i, c.keys, begun.Sub(turn))
				}
			}
		})
	}
}

func meet(a, b []Key) bool {
	return slices.ContainsFunc(a, func(x Key) bool {
		return slices.ContainsFunc(b, func(y Key) bool { return x.Name == y.Name && (!x.Shared || !y.Shared) })
	})
}

// A thousand calls at once on one key: each begins when it is its turn, so that
// none waits for more than twice the median. A thousand that share it do not wait.
func TestRushOnOneKey(t *testing.T) {
	const n, each = 1000, 5 * time.Millisecond
	inRush(t, func(r *rush) {
		for range n {
			r.call([]Key{Exclusive("v")}, works(each))
		}
		r.calls.Wait()
		for i, c := range r.all {
			if c.begun != time.Duration(i)*each {
				t.Fatalf("call %d began after %v", i, c.begun)
			}
		}
		if median, most := r.waits(); most > 2*median {
			t.Errorf("waited for %v at most, for %v in the median", most, median)
		}
	})
	inRush(t, func(r *rush) {
		for i := range n {
			r.call([]Key{Shared("v"), Exclusive(fmt.Sprint("target", i))}, works(each))
		}
		r.calls.Wait()
		if _, most := r.waits(); most != 0 {
			t.Errorf("one waited for %v", most)
		}
	})
}

// What is shared does not starve who wants it alone: only those wait that he was
// before.
func TestSharedDoNotStarve(t *testing.T) {
	inRush(t, func(r *rush) {
		for i := range 200 {
			if i == 50 {
				r.call([]Key{Exclusive("v")}, works(time.Millisecond))
			}
			r.call([]Key{Shared("v")}, works(10*time.Millisecond))
			time.Sleep(time.Millisecond)
		}
		r.calls.Wait()
		if alone := r.all[50]; alone.begun > 10*time.Millisecond {
			t.Errorf("who wanted it alone waited for %v", alone.begun)
		}
	})
}

// Two hundred thousand keys at once, and half as many clients of a queue, are given back
// also while somebody stays.
func TestRushIsGivenBack(t *testing.T) {
	table, queue := NewTable(nil), NewQueue(&QueueOptions{Client: func(ctx context.Context) string { return ctx.Value(clientKey{}).(string) }, Waiting: 1 << 20})
	stays := newTask(t.Context(), Operation{Name: "stays", Keys: []Key{Exclusive("stays")}}, nop)
	table.enqueue(&stays.operation)
	leave, err := queue.Enter(context.WithValue(t.Context(), clientKey{}, "stays"), "r")
	if err != nil {
		t.Fatal(err)
	}
	before := heap()
	func() {
		all := make([]*task[int], 200_000)
		for i := range all {
			all[i] = &task[int]{}
			all[i].setKeys([]Key{Exclusive(strconv.Itoa(i))})
			table.enqueue(&all[i].operation)
		}
		var none batch
		for _, k := range all {
			table.dequeue(&k.operation, &none)
		}
		turns := make([]*turn, 100_000)
		for i := range turns {
			turns[i] = &turn{QueueTurn: QueueTurn{Client: strconv.Itoa(i)}}
			if _, err := queue.arrive("r", turns[i]); err != nil {
				t.Fatal(err)
			}
		}
		for _, w := range turns {
			queue.leave(queue.at.get("r"), w)
		}
	}()
	if after := heap(); after > before+64<<10 {
		t.Errorf("%d bytes more", after-before)
	}
	if table.keys.len() != 1 || queue.at.get("r").clients.len() != 0 {
		t.Errorf("%d keys, %d clients", table.keys.len(), queue.at.get("r").clients.len())
	}
	leave()
	runtime.KeepAlive(stays)
}
