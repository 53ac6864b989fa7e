package idempotency

import (
	"context"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func nop(context.Context) (int, error) { return 0, nil }

func volumeOp(id string) Operation {
	return Operation{
		Name: "NodeStageVolume", Keys: []Key{Exclusive(id), Shared("node")},
		Request: id, Equal: equal, Negates: func(Operation) bool { return false },
	}
}

// BenchmarkDo is one uncontended operation with two keys; goal: 2.5 µs, 10 allocs.
func BenchmarkDo(b *testing.B) {
	for _, deadline := range []bool{false, true} {
		b.Run("deadline="+strconv.FormatBool(deadline), func(b *testing.B) {
			table, o := NewTable(nil), volumeOp("vol-1")
			ctx := b.Context()
			if deadline {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Hour)
				defer cancel()
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Do(ctx, table, o, nop); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkParallel has 64 goroutines per processor, each with a volume of its own.
func BenchmarkParallel(b *testing.B) {
	table := NewTable(nil)
	var n atomic.Int64
	b.SetParallelism(64)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		o := volumeOp("vol-" + strconv.FormatInt(n.Add(1), 10))
		for pb.Next() {
			if _, err := Do(b.Context(), table, o, nop); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkLocks is the lock table alone: to take and to give back two keys, with
// nothing run on them; goal: 150 ns at 64 goroutines, 0 allocs.
func BenchmarkLocks(b *testing.B) {
	for _, n := range []int{1, 16, 64} {
		b.Run(strconv.Itoa(n)+" goroutines", func(b *testing.B) {
			table := NewTable(nil)
			b.ReportAllocs()
			var wg sync.WaitGroup
			for i := range n {
				k := newTask(b.Context(), volumeOp("vol-"+strconv.Itoa(i)), nop)
				wg.Go(func() {
					var none batch
					for range (b.N + n - 1) / n {
						table.mu.Lock()
						table.enqueue(&k.operation)
						table.mu.Unlock()
						table.mu.Lock()
						table.dequeue(&k.operation, &none)
						table.mu.Unlock()
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkJoin is a call that finds an equal one that runs, and does not wait for
// it.
func BenchmarkJoin(b *testing.B) {
	table, o, end := NewTable(nil), volumeOp("vol-1"), make(chan struct{})
	first := newTask(b.Context(), o, func(context.Context) (int, error) { <-end; return 0, nil })
	if _, err := table.admit(&first.operation); err != nil {
		b.Fatal(err)
	}
	defer close(end)
	b.ReportAllocs()
	for b.Loop() {
		k := newTask(b.Context(), o, nop)
		joined, err := table.admit(&k.operation)
		if err != nil || joined != &first.operation {
			b.Fatal("not joined", err)
		}
		_ = table.leave(joined, &o, context.Canceled)
	}
}

// TestLocksDoNotAllocate: what BenchmarkLocks measures, without a clock.
func TestLocksDoNotAllocate(t *testing.T) {
	table, k := NewTable(nil), newTask(t.Context(), volumeOp("vol-1"), nop)
	if n := testing.AllocsPerRun(1000, func() {
		var none batch
		table.enqueue(&k.operation)
		table.dequeue(&k.operation, &none)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkDistinct never meets a key again, and reports the heap it leaves.
func BenchmarkDistinct(b *testing.B) {
	table := NewTable(nil)
	before := heap()
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		if _, err := Do(b.Context(), table, volumeOp("vol-"+strconv.Itoa(i)), nop); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(heap())-float64(before), "B-kept")
	runtime.KeepAlive(table)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestAllocations(t *testing.T) {
	table, o := NewTable(nil), volumeOp("vol-1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	n := testing.AllocsPerRun(1000, func() {
		if _, err := Do(ctx, table, o, nop); err != nil {
			t.Fatal(err)
		}
	})
	if n > 10 {
		t.Errorf("%v allocations an operation; goal: 10", n)
	}
}

func TestKeepsNothingOfDistinctKeys(t *testing.T) {
	table := NewTable(nil)
	run := func(from, to int) {
		for i := from; i < to; i++ {
			if _, err := Do(t.Context(), table, volumeOp("vol-"+strconv.Itoa(i)), nop); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(0, 1000)
	before := heap()
	n := 1_000_000
	if testing.Short() {
		n = 200_000
	}
	run(1000, n)
	// A single byte for each key would be 1 MB.
	if after := heap(); after > before+64<<10 {
		t.Errorf("%d bytes more after %d keys", after-before, n)
	}
	runtime.KeepAlive(table)
}
