package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"time"
)

// leastSample is how long a sample takes at least: the clock costs 50 ns.
const leastSample = 20 * time.Microsecond

// sample runs op for d, and gives the median time of one and how many
// allocations it made, whoever made them: a server in this process counts.
func sample(d time.Duration, op func() error) (ns, allocs float64, err error) {
	n := 1 // operations a sample
	for {
		begin := time.Now()
		for range n {
			if err := op(); err != nil {
				return 0, 0, err
			}
		}
		if time.Since(begin) >= leastSample || n >= 1<<16 {
			break
		}
		n *= 2
	}
	times := make(series, 0, 1<<16)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for end := time.Now().Add(d); len(times) < cap(times); {
		begin := time.Now()
		for range n {
			if err := op(); err != nil {
				return 0, 0, err
			}
		}
		now := time.Now()
		times.add(float64(now.Sub(begin)) / float64(n))
		if now.After(end) {
			break
		}
	}
	runtime.ReadMemStats(&after)
	allocs = float64(after.Mallocs-before.Mallocs) / float64(n*len(times))
	return times.median(), math.Round(allocs), nil
}

// task is one thing that is measured, once a round.
type task func(ctx context.Context) error

// interleave runs all tasks in each round, each time beginning with another one,
// so that what the machine does besides does not always meet the same one.
func interleave(ctx context.Context, rounds int, tasks ...task) error {
	for i := range rounds {
		for j := range tasks {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if err := tasks[(i+j)%len(tasks)](ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// timed is a task that samples op.
func (f *figure) timed(d time.Duration, op func() error) task {
	return func(context.Context) error {
		ns, allocs, err := sample(d, op)
		f.add(ns, allocs)
		return err
	}
}

// paired is what is measured alone of several steps: op, between before and
// after, either of which may be nil.
type paired struct {
	before, op, after func() error
}

// once runs the steps and gives the time of op.
func (p paired) once() (time.Duration, error) {
	if p.before != nil {
		if err := p.before(); err != nil {
			return 0, err
		}
	}
	begin := time.Now()
	err := p.op()
	took := time.Since(begin)
	if err == nil && p.after != nil {
		err = p.after()
	}
	return took, err
}

// pairs is a task that runs p for d, but three times, and notes the median.
func (f *figure) pairs(d time.Duration, p paired) task {
	return func(ctx context.Context) error {
		var times series
		for begin := time.Now(); len(times) < 3 || time.Since(begin) < d; {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			took, err := p.once()
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			times.add(float64(took))
		}
		f.rounds.add(times.median())
		return nil
	}
}

// contender is one way to do what a row is about.
type contender struct {
	name string
	paired
}

// contest measures the contenders in turns; the first is csikit.
func contest(ctx context.Context, c config, r *row, all ...contender) (*row, error) {
	var tasks []task
	for i, one := range all {
		f := &figure{name: one.name}
		if i == 0 {
			r.csikit = f
		} else {
			r.others = append(r.others, f)
		}
		tasks = append(tasks, f.pairs(c.slice/2, one.paired))
	}
	if err := interleave(ctx, c.rounds, tasks...); err != nil {
		return nil, fmt.Errorf("%s: %w", r.item, err)
	}
	return r, nil
}
