package idempotency

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// Causes why the context of an operation ended before the operation did, by
// [context.Cause]. [Do] joins the cause to the error that fn returns, so that
// errors.Is finds it.
var (
	// ErrStalled: no progress for Options.Stall. It is a
	// [context.DeadlineExceeded] too.
	ErrStalled = fmt.Errorf("no progress: %w", context.DeadlineExceeded)
	// ErrNegated: a call asked for the opposite. It is also the error of a call
	// whose operation was negated before it began.
	ErrNegated = errors.New("negated by a later call")
	// ErrClosed: Shutdown's time was over. It is also the error of a call that
	// came after Shutdown.
	ErrClosed = errors.New("shutting down")
)

// PendingError is the answer to a caller who cannot wait longer. It describes the
// operation that the caller waits for: its own one, or the one in its way.
type PendingError struct {
	Name  string        // Operation.Name
	Step  string        // the last step that it told of
	Owner string        // Operation.Owner: who asked for it
	Age   time.Duration // since it started; since the call if it has not
	Stuck bool          // its context has ended and it has not
}

func (e *PendingError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is pending for %s", e.Name, e.Age.Round(time.Millisecond))
	if e.Step != "" {
		fmt.Fprintf(&b, ", at step %q", e.Step)
	}
	if e.Owner != "" {
		fmt.Fprintf(&b, ", asked for by %s", e.Owner)
	}
	if e.Stuck {
		b.WriteString(", made no progress or was cancelled, and does not end")
	}
	return b.String()
}

// PanicError is what callers get when fn panics, or leaves by runtime.Goexit.
//
// It has no Unwrap: if the value is an error, then what that error says of the
// storage cannot be relied on.
type PanicError struct {
	Name  string // Operation.Name
	Value any    // what was given to panic; nil after runtime.Goexit
	Stack []byte
}

func (e *PanicError) Error() string {
	if e.Value == nil {
		return e.Name + " left by runtime.Goexit"
	}
	return fmt.Sprintf("panic in %s: %v", e.Name, e.Value)
}

func newPanicError(name string, value any) *PanicError {
	return &PanicError{Name: name, Value: value, Stack: debug.Stack()}
}
