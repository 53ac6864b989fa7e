package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/csikit/csikit/idempotency"
)

// operations measures an operation, which is a lock, a context of its own, a
// goroutine and a result to be shared, beside the bare lock that drivers have:
// one map under one mutex, and ABORTED when the ID is in it.
func operations(ctx context.Context, c config) (*table, error) {
	t := &table{title: "operation, two keys, distinct volumes"}
	ctx, cancel := context.WithTimeout(ctx, time.Hour) // a CO gives a deadline
	defer cancel()
	for _, n := range []int{1, 16, 64} {
		ours, locks := &figure{name: "csikit"}, &figure{name: "map of locked IDs"}
		do, lock := operation(ctx), lockMap()
		err := interleave(ctx, c.rounds,
			ours.timed(c.slice, func() error { return each(n, do) }),
			locks.timed(c.slice, func() error { return each(n, lock) }))
		if err != nil {
			return nil, err
		}
		for _, f := range []*figure{ours, locks} {
			f.divide(float64(n * batch))
		}
		t.rows = append(t.rows, &row{
			item: fmt.Sprintf("%d goroutines", n), csikit: ours, others: []*figure{locks}, goal: atMost(nanoseconds, 2500, 10),
		})
	}
	return t, nil
}

// batch is how many times each goroutine does it: starting one is not what is
// measured.
const batch = 200

func (f *figure) divide(n float64) {
	for i := range f.rounds {
		f.rounds[i] /= n
		f.allocs[i] /= n
	}
}

// each runs in n goroutines what of gives for the ID of each, batch times.
func each(n int, of func(id string) func() error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			do := of("vol-" + strconv.Itoa(i))
			for range batch {
				if err := do(); err != nil {
					errs[i] = err
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func operation(ctx context.Context) func(string) func() error {
	t := idempotency.NewTable(nil)
	nothing := func(context.Context) (struct{}, error) { return struct{}{}, nil }
	return func(id string) func() error {
		op := idempotency.Operation{
			Name: "NodePublishVolume", Request: id,
			Keys:    []idempotency.Key{idempotency.Exclusive(id), idempotency.Shared("node")},
			Equal:   func(a, b any) bool { return a == b },
			Negates: func(idempotency.Operation) bool { return false },
		}
		return func() error {
			_, err := idempotency.Do(ctx, t, op, nothing)
			return err
		}
	}
}

var errLocked = errors.New("an operation with the given volume already exists")

func lockMap() func(string) func() error {
	var mu sync.Mutex
	locked := make(map[string]struct{})
	return func(id string) func() error {
		return func() error {
			mu.Lock()
			_, is := locked[id]
			locked[id] = struct{}{}
			mu.Unlock()
			if is {
				return errLocked
			}
			mu.Lock()
			delete(locked, id)
			mu.Unlock()
			return nil
		}
	}
}
