package backends

import "context"

// Activity is how a long operation shows that it is alive. csidriver puts one
// into the context of every operation.
type Activity interface {
	// Progress restarts the stall clock and names the step for callers who wait
	// or get ABORTED.
	Progress(step string)
	// Busy stops the stall clock until done is called: for work that has a
	// deadline of its own, as a host command has.
	Busy(step string) (done func())
}

type activityKey struct{}

// WithActivity is for csidriver, and for tests.
func WithActivity(ctx context.Context, a Activity) context.Context {
	return context.WithValue(ctx, activityKey{}, a)
}

// Progress tells that a long operation is alive and what it does now. A clone of
// 1 TiB calls it after each piece; without it the context ends after
// Options.Stall.
func Progress(ctx context.Context, step string) {
	if a, ok := ctx.Value(activityKey{}).(Activity); ok {
		a.Progress(step)
	}
}

// Busy stops the stall clock until done is called. Only work with a deadline of
// its own may ask for it; package command does.
func Busy(ctx context.Context, step string) (done func()) {
	if a, ok := ctx.Value(activityKey{}).(Activity); ok {
		return a.Busy(step)
	}
	return func() {}
}
