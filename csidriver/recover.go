package csidriver

import (
	"fmt"
	"log/slog"
	"runtime/debug"

	"google.golang.org/grpc/status"
)

// panicError carries what a panic answers past Options.Errors.
type panicError struct{ answer error }

func (e *panicError) Error() string { return e.answer.Error() }

// panicked logs a panic and gives its answer. The answer tells nothing of the
// panic's value: that is for the log, where it is scrubbed.
func (s *Server) panicked(c *call, value any) *panicError {
	text := s.redact.scrub(c.request(), panicText(value))
	s.logger.LogAttrs(c, slog.LevelError, "panic in a handler",
		slog.String("method", c.method.name), slog.String("request_id", c.id()),
		slog.String("panic", clip(text, maxMessageText)), slog.String("stack", string(debug.Stack())))
	if s.opts.OnPanic != nil {
		if err := s.opts.OnPanic(c.method.full); err != nil {
			return &panicError{err}
		}
	}
	return &panicError{status.Error(inDoubt(c.method.changes),
		fmt.Sprintf("%s panicked; the driver's log has the stack (request %s)", c.method.name, c.id()))}
}

// panicText is what a panic says. A value that is no text, a request perhaps, is
// named by its type alone.
func panicText(value any) string {
	switch value.(type) {
	case error, string:
		return fmt.Sprint(value) // guards against an Error method that panics
	default:
		return fmt.Sprintf("a value of type %T", value)
	}
}
