package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/csikit/csikit/idempotency"
)

// A client gives up before the work is done, and its retry gets the result of the
// work that the first call started.
func ExampleDo() {
	table := idempotency.NewTable(nil)
	create := idempotency.Operation{
		Name:    "CreateVolume pvc-1",
		Owner:   "request 1",
		Keys:    []idempotency.Key{idempotency.Exclusive("name:pvc-1")},
		Request: 1 << 30,
		Equal:   func(a, b any) bool { return a == b },
	}
	made, storage := 0, make(chan struct{})
	slow := func(ctx context.Context) (string, error) {
		idempotency.FromContext(ctx).Progress("copying")
		<-storage
		made++
		return "vol-1", nil
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err := idempotency.Do(ctx, table, create, slow)
	var pending *idempotency.PendingError
	fmt.Println("first call pending:", errors.As(err, &pending))

	time.AfterFunc(10*time.Millisecond, func() { close(storage) })
	id, err := idempotency.Do(context.Background(), table, create, slow)
	fmt.Println("retry:", id, err)
	fmt.Println("volumes made:", made)
	// Output:
	// first call pending: true
	// retry: vol-1 <nil>
	// volumes made: 1
}

// A conflicting call waits for its turn, for a bounded time, and is then told what
// is in its way.
func ExamplePendingError() {
	table := idempotency.NewTable(&idempotency.Options{Wait: 10 * time.Millisecond})
	key := []idempotency.Key{idempotency.Exclusive("vol-1")}
	cloning, end := make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		clone := idempotency.Operation{Name: "CloneVolume vol-1", Owner: "request 7", Keys: key}
		_, err := idempotency.Do(context.Background(), table, clone, func(ctx context.Context) (int, error) {
			idempotency.FromContext(ctx).Progress("copied 1 of 3 GiB")
			close(cloning)
			<-end
			return 0, nil
		})
		fmt.Println("clone:", err)
	}()
	<-cloning

	remove := idempotency.Operation{Name: "DeleteVolume vol-1", Owner: "request 8", Keys: key}
	_, err := idempotency.Do(context.Background(), table, remove, func(context.Context) (int, error) { return 0, nil })
	if p, ok := errors.AsType[*idempotency.PendingError](err); ok {
		fmt.Printf("delete: %s is at %q, asked for by %s\n", p.Name, p.Step, p.Owner)
	}
	close(end)
	<-done
	// Output:
	// delete: CloneVolume vol-1 is at "copied 1 of 3 GiB", asked for by request 7
	// clone: <nil>
}

// An unstage does not wait for the stage that it undoes.
func ExampleOperation_negates() {
	table := idempotency.NewTable(nil)
	key := []idempotency.Key{idempotency.Exclusive("node:vol-1")}
	staging, staged := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(staged)
		stage := idempotency.Operation{Name: "NodeStageVolume", Keys: key}
		_, err := idempotency.Do(context.Background(), table, stage, func(ctx context.Context) (int, error) {
			close(staging)
			<-ctx.Done() // a mount that never comes back
			return 0, ctx.Err()
		})
		fmt.Println("stage:", err)
	}()
	<-staging
	unstage := idempotency.Operation{
		Name: "NodeUnstageVolume", Keys: key,
		Negates: func(earlier idempotency.Operation) bool { return earlier.Name == "NodeStageVolume" },
	}
	_, err := idempotency.Do(context.Background(), table, unstage, func(context.Context) (int, error) {
		<-staged
		return 0, nil
	})
	fmt.Println("unstage:", err)
	// Output:
	// stage: negated by a later call: context canceled
	// unstage: <nil>
}

// At the end of a process: wait for what runs, and say what had to be cut off.
func ExampleTable_Shutdown() {
	table := idempotency.NewTable(nil)
	running := make(chan struct{})
	go func() {
		op := idempotency.Operation{Name: "CreateSnapshot snap-1"}
		_, err := idempotency.Do(context.Background(), table, op, func(ctx context.Context) (int, error) {
			idempotency.FromContext(ctx).Progress("waiting for the array")
			close(running)
			<-ctx.Done()
			return 0, ctx.Err()
		})
		_ = err // the process ends: nobody is left to tell
	}()
	<-running
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	for _, op := range table.Shutdown(ctx) {
		fmt.Printf("cut off: %s at %q\n", op.Name, op.Step)
	}
	// Output:
	// cut off: CreateSnapshot snap-1 at "waiting for the array"
}

// Commands on one volume group go one at a time, those on another beside them.
func ExampleQueue() {
	groups := idempotency.NewQueue(nil)
	extend := func(ctx context.Context, group, volume string) error {
		leave, err := groups.Enter(ctx, group)
		if err != nil {
			return err
		}
		defer leave()
		fmt.Println("extending", volume, "in", group)
		return nil
	}
	leave, err := groups.Enter(context.Background(), "vg0")
	if err != nil {
		fmt.Println(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	fmt.Println(extend(ctx, "vg0", "lv1"))
	fmt.Println(extend(ctx, "vg1", "lv2"))
	leave()
	fmt.Println(extend(context.Background(), "vg0", "lv1"))
	// Output:
	// waiting for vg0: context deadline exceeded
	// context deadline exceeded
	// extending lv1 in vg0
	// <nil>
}

// oneLock is a Locker over the one lock of a storage system that can refuse
// writers with an old token.
type oneLock struct{ epoch int64 }

func (s *oneLock) Lock(context.Context, string) (idempotency.Lease, error) {
	s.epoch++
	return lease{s.epoch}, nil
}

type lease struct{ epoch int64 }

func (l lease) Token() int64                 { return l.epoch }
func (l lease) Lost() <-chan struct{}        { return nil }
func (l lease) Unlock(context.Context) error { return nil }

// The storage is told the fencing token with each change.
func ExampleFence() {
	table := idempotency.NewTable(&idempotency.Options{Locker: &oneLock{}})
	remove := idempotency.Operation{Name: "DeleteVolume vol-1", Keys: []idempotency.Key{idempotency.Exclusive("id:vol-1")}}
	for range 2 {
		_, err := idempotency.Do(context.Background(), table, remove, func(ctx context.Context) (int, error) {
			token, ok := idempotency.Fence(ctx, "id:vol-1")
			fmt.Println("delete vol-1 with epoch", token, ok)
			return 0, nil
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// delete vol-1 with epoch 1 true
	// delete vol-1 with epoch 2 true
}
