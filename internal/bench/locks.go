package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
)

// lockTable measures the locks of operations alone, what an operation adds to them,
// and what it is to join one, by idempotency's own benchmarks.
func lockTable(ctx context.Context, c config, root, dir string) (*table, error) {
	found, err := benchmarksOf(ctx, c, root, dir, "idempotency", "BenchmarkTable")
	if err != nil {
		return nil, err
	}
	t := &table{title: "locks of operations"}
	for _, n := range []string{"1", "16", "64"} {
		for _, r := range []lockRow{
			{item: "a key of one's own, " + n + " goroutines", csikit: "Own" + n, others: []lockOther{
				{"a set under a mutex", "VolumeLocks" + n}, {"sync.Map", "SyncMap" + n}, {"keymutex (hashed)", "Keymutex" + n},
			}, goal: atMost(nanoseconds, 150, 0)},
			{item: "one shared key, " + n + " goroutines", csikit: "Shared" + n, others: []lockOther{{"sync.RWMutex", "RWMutex" + n}}, goal: atMost(nanoseconds, 150, 0)},
		} {
			if err := t.addLocks(found, r); err != nil {
				return nil, err
			}
		}
	}
	t.rows[0].note = "locked and unlocked; the others hold one key, know no order of arrival, and either wait whatever the caller's context says or refuse at once; hashed ones wait for strangers"
	operation := atMost(nanoseconds, 2500, 10)
	for _, r := range []lockRow{
		{item: "an operation, inline", csikit: "Inline", goal: operation, note: "two keys; it always has a goroutine of its own: this is the part that is not the goroutine"},
		{item: "an operation", csikit: "Goroutine", others: []lockOther{{"inline", "Inline"}}, goal: operation},
		{item: "an operation, caller with a deadline", csikit: "Deadline", others: []lockOther{{"inline", "Inline"}}, goal: operation},
		{item: "to join one", csikit: "Join"},
	} {
		if err := t.addLocks(found, r); err != nil {
			return nil, err
		}
	}
	kept, err := keptRow(ctx, c)
	t.rows = append(t.rows, kept)
	return t, err
}

type lockOther struct{ name, benchmark string }

type lockRow struct {
	item, csikit string
	others       []lockOther
	goal         goal
	note         string
}

func (t *table) addLocks(found map[string]*figure, r lockRow) error {
	ours, err := named(found, "csikit", r.csikit, "BenchmarkTable")
	line := &row{item: r.item, csikit: ours, goal: r.goal, note: r.note}
	for _, o := range r.others {
		f, e := named(found, o.name, o.benchmark, "BenchmarkTable")
		line.others, err = append(line.others, f), errors.Join(err, e)
	}
	t.rows = append(t.rows, line)
	return err
}

// keptRow is what is left in memory of IDs that have come and gone.
func keptRow(ctx context.Context, c config) (*row, error) {
	ours, mutexes := &figure{name: "csikit", unit: mebibytes}, &figure{name: "sync.Map of mutexes", unit: mebibytes}
	err := errors.Join(
		ours.kept(c, func() func(string) error {
			do := operation(ctx)
			return func(id string) error { return do(id)() }
		}),
		mutexes.kept(c, func() func(string) error {
			var all sync.Map
			return func(id string) error {
				m, _ := all.LoadOrStore(id, new(sync.Mutex))
				m.(*sync.Mutex).Lock()
				m.(*sync.Mutex).Unlock() //nolint:staticcheck // what is measured is what stays of it
				return nil
			}
		}))
	return &row{item: fmt.Sprintf("kept after %d IDs", c.ids), csikit: ours, others: []*figure{mutexes}, goal: atMost(mebibytes, 0.1, -1)}, err
}

// kept notes by how much the heap has grown when c.ids were used once each, by 16
// goroutines.
func (f *figure) kept(c config, of func() func(id string) error) error {
	use := of()
	errs := make([]error, 16)
	run := func(prefix string, n int) {
		var wg sync.WaitGroup
		var next atomic.Int64
		for i := range errs {
			wg.Go(func() {
				for v := next.Add(1); v <= int64(n) && errs[i] == nil; v = next.Add(1) {
					errs[i] = use(prefix + strconv.FormatInt(v, 10))
				}
			})
		}
		wg.Wait()
	}
	run("warm-", 1000)
	before := heapInUse()
	run("vol-", c.ids)
	f.rounds.add(max(0, heapInUse()-before) / (1 << 20))
	runtime.KeepAlive(use)
	return errors.Join(errs...)
}

func heapInUse() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
