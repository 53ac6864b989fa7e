package mem

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Call is a call of a method of Backend.
type Call struct {
	Method  string // "CreateVolume"
	Object  string // the name or the ID that it is about; "": none
	Request any    // as the caller gave it; nil: none
}

// Point is a moment in a call.
type Point uint8

// Moments of a call.
const (
	// Before anything was done.
	Before Point = iota
	// Midway: half is done, and stays so when the call ends here. Of the methods
	// that make, grow or delete something, and in the sequence of ChangedBlocks.
	Midway
	// After: everything is done, and only the reply can still be lost.
	After
)

// Fault is something that goes wrong in a call. First Do is called, then Delay is
// waited for, then Panic or Err end the call, or Answer changes what it answers; a
// Fault without these is a hook, or a mere delay.
type Fault struct {
	Method string // "": every method
	Object string // "": every one
	At     Point
	Times  int // how often it happens; 0: until it is removed

	Do    func(ctx context.Context, c Call) error // nil ok; its error ends the call
	Delay time.Duration                           // shorter when the call's context ends, whose cause then ends the call
	Panic any
	Err   error
	// Answer gives another answer than the method's, of the same type; at After, of a
	// method that answers something and succeeds. Not of the methods that list.
	Answer func(answer any) any
}

// Inject has something go wrong from now on, until remove is called. Of several
// faults that fit all happen, in the order of their injection, until one ends the
// call.
func (b *Backend) Inject(f Fault) (remove func()) {
	p := &planted{Fault: f}
	b.faults.mu.Lock()
	defer b.faults.mu.Unlock()
	b.faults.list = append(b.faults.list, p)
	return func() { b.faults.remove(p) }
}

type planted struct {
	Fault
	happened int
}

type faults struct {
	mu   sync.Mutex
	list []*planted
}

func (f *faults) remove(p *planted) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = slices.DeleteFunc(f.list, func(q *planted) bool { return q == p })
}

// take says whether p happens now, and counts it.
func (f *faults) take(p *planted, at Point, c Call) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.At != at || p.Method != "" && p.Method != c.Method || p.Object != "" && p.Object != c.Object {
		return false
	}
	if p.Times > 0 && p.happened >= p.Times {
		return false
	}
	p.happened++
	return true
}

func (f *faults) all() []*planted {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.list)
}

// at lets happen what fits. answer is nil before there is one, and nil inside where
// the method failed.
func (f *faults) at(ctx context.Context, at Point, c Call, answer *any) error {
	for _, p := range f.all() {
		if !f.take(p, at, c) {
			continue
		}
		if err := p.happen(ctx, c); err != nil {
			return fmt.Errorf("mem: %s %s: %w", c.Method, c.Object, err)
		}
		if p.Answer != nil && answer != nil && *answer != nil {
			*answer = p.Answer(*answer)
		}
	}
	return nil
}

func (f *Fault) happen(ctx context.Context, c Call) error {
	if f.Do != nil {
		if err := f.Do(ctx, c); err != nil {
			return err
		}
	}
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if f.Panic != nil {
		panic(f.Panic)
	}
	return f.Err
}

// ask runs a method that answers something.
func ask[T any](ctx context.Context, b *Backend, c Call, fn func(context.Context) (T, error)) (T, error) {
	var zero T
	if err := b.begin(ctx, c); err != nil {
		return zero, err
	}
	v, err := fn(ctx)
	var answer any
	if err == nil {
		answer = v
	}
	if lost := b.faults.at(ctx, After, c, &answer); lost != nil {
		return zero, lost
	}
	if other, ok := answer.(T); ok {
		return other, err
	}
	return v, err
}

// run runs a method that answers nothing.
func (b *Backend) run(ctx context.Context, c Call, fn func(context.Context) error) error {
	_, err := ask(ctx, b, c, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}

// list runs a method that answers a page.
func list[T any](ctx context.Context, b *Backend, c Call, fn func() ([]T, string, error)) ([]T, string, error) {
	type page struct {
		entries []T
		next    string
	}
	p, err := ask(ctx, b, c, func(context.Context) (page, error) {
		entries, next, err := fn()
		return page{entries, next}, err
	})
	return p.entries, p.next, err
}

func (b *Backend) begin(ctx context.Context, c Call) error {
	if err := b.faults.at(ctx, Before, c, nil); err != nil {
		return err
	}
	return ended(ctx, c)
}

// midway is where a call may stop with half of its work done.
func (b *Backend) midway(ctx context.Context, c Call) error {
	if err := b.faults.at(ctx, Midway, c, nil); err != nil {
		return err
	}
	return ended(ctx, c)
}

func ended(ctx context.Context, c Call) error {
	if ctx.Err() != nil {
		return fmt.Errorf("mem: %s %s: %w", c.Method, c.Object, context.Cause(ctx))
	}
	return nil
}
