package mounter

import (
	"context"
	"fmt"

	"github.com/csikit/csikit/backends"
)

// slots bound how many tools that read or write whole disks run at once: after a
// reboot a node stages all its volumes together. nil does not.
type slots chan struct{}

// do runs f in a slot. Waiting for one is no stall: whoever has them is bounded.
func (s slots) do(ctx context.Context, what string, f func() error) error {
	if s == nil {
		return f()
	}
	select {
	case s <- struct{}{}:
	default:
		if err := s.wait(ctx, what); err != nil {
			return err
		}
	}
	defer func() { <-s }()
	return f()
}

func (s slots) wait(ctx context.Context, what string) error {
	defer backends.Busy(ctx, fmt.Sprintf("wait with %s, %d are running", what, cap(s)))()
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting to run %s: %w", what, contextError(ctx))
	}
}
