package idempotency

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"k8s.io/utils/keymutex"
)

// BenchmarkTable is what package internal/bench prints: the lock table alone and what
// drivers have instead of it, the cost of an operation, and of joining one.
func BenchmarkTable(b *testing.B) {
	for _, n := range []int{1, 16, 64} {
		name := strconv.Itoa(n)
		for lock, of := range locksOf() {
			b.Run(lock+name, func(b *testing.B) { lockBy(b, n, of()) })
		}
	}
	b.Run("Inline", inline)
	b.Run("Goroutine", func(b *testing.B) { onGoroutine(b, b.Context()) })
	b.Run("Deadline", func(b *testing.B) {
		ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
		defer cancel()
		onGoroutine(b, ctx)
	})
	b.Run("Join", BenchmarkJoin)
}

// locker gives, for the i-th goroutine, what takes a lock and gives it back.
type locker func(i int) (once func())

func locksOf() map[string]func() locker {
	return map[string]func() locker{
		"Own":         func() locker { return tableLock(func(i int) Key { return Exclusive("vol-" + strconv.Itoa(i)) }) },
		"Shared":      func() locker { return tableLock(func(int) Key { return Shared("node") }) },
		"Keymutex":    keymutexes,
		"VolumeLocks": volumeLocks,
		"SyncMap":     tryLockMap,
		"RWMutex":     rwMutex,
	}
}

func lockBy(b *testing.B, n int, of locker) {
	b.ReportAllocs()
	var wg sync.WaitGroup
	for i := range n {
		once := of(i)
		wg.Go(func() {
			for range (b.N + n - 1) / n {
				once()
			}
		})
	}
	wg.Wait()
}

func tableLock(key func(i int) Key) locker {
	table := NewTable(nil)
	return func(i int) func() {
		k := newTask(context.Background(), Operation{Keys: []Key{key(i)}}, nop)
		return func() {
			var none batch
			table.mu.Lock()
			table.enqueue(&k.operation)
			table.mu.Unlock()
			table.mu.Lock()
			table.dequeue(&k.operation, &none)
			table.mu.Unlock()
		}
	}
}

// keymutexes are hashed: two volumes may have one lock, and nothing heeds a context.
func keymutexes() locker {
	locks := keymutex.NewHashed(1024)
	return func(i int) func() {
		id := "vol-" + strconv.Itoa(i)
		return func() {
			locks.LockKey(id)
			_ = locks.UnlockKey(id) // of an ID that nobody locked it is an error
		}
	}
}

// volumeLocks are a set under a mutex, as drivers have it: who finds his volume in
// it is told ABORTED.
func volumeLocks() locker {
	var mu sync.Mutex
	locked := make(map[string]struct{})
	return func(i int) func() {
		id := "vol-" + strconv.Itoa(i)
		return func() {
			mu.Lock()
			locked[id] = struct{}{}
			mu.Unlock()
			mu.Lock()
			delete(locked, id)
			mu.Unlock()
		}
	}
}

func tryLockMap() locker {
	var locked sync.Map
	return func(i int) func() {
		id := "vol-" + strconv.Itoa(i)
		return func() {
			locked.LoadOrStore(id, true)
			locked.Delete(id)
		}
	}
}

func rwMutex() locker {
	var mu sync.RWMutex
	return func(int) func() {
		return func() {
			mu.RLock()
			mu.RUnlock() //nolint:staticcheck // nothing is measured but the lock
		}
	}
}

// inline is an operation without the goroutine that it has, and without a caller
// that waits for it.
func inline(b *testing.B) {
	table, o, ctx := NewTable(nil), volumeOp("vol-1"), b.Context()
	b.ReportAllocs()
	for b.Loop() {
		var none batch
		k := newTask(ctx, o, nop)
		table.mu.Lock()
		table.add(&k.operation, &none)
		table.mu.Unlock()
		k.run(table)
	}
}

func onGoroutine(b *testing.B, ctx context.Context) { //nolint:revive // the benchmark comes first
	table, o := NewTable(nil), volumeOp("vol-1")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Do(ctx, table, o, nop); err != nil {
			b.Fatal(err)
		}
	}
}
