package csidriver

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// patience is how long that is waited for which is over at once unless something
// is wrong. Each server has its own: a test does not hang on how busy its machine is.
type patience struct {
	answer   time.Duration // calls whose operation was cut send their answer
	stop     time.Duration // handlers notice that their context ended
	health   time.Duration // the backend answers who asks for the driver's health
	exchange time.Duration // the whole of such a question, from its connection on
}

// usualPatience: whoever asks for health gets an answer before kubelet's own limits,
// which are at least a second.
func usualPatience() patience {
	return patience{answer: 2 * time.Second, stop: 2 * time.Second, health: 800 * time.Millisecond, exchange: 5 * time.Second}
}

// DrainError says that the time to drain was not enough.
type DrainError struct {
	// Cut names what still ran, each with its age.
	Cut []string
}

func (e *DrainError) Error() string {
	return fmt.Sprintf("stopped with %d still running: %s", len(e.Cut), strings.Join(e.Cut, "; "))
}

// drain ends the server. Each step has a bound: a handler that never returns is
// left behind, named.
func (s *Server) drain(ctx context.Context) error {
	s.logger.LogAttrs(ctx, slog.LevelInfo, "draining", slog.Duration("limit", s.opts.Drain))
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.Drain)
	defer cancel()

	drained := make(chan struct{})
	go func() { s.grpc.GracefulStop(); close(drained) }()
	select {
	case <-drained:
	case <-limit.Done():
	}
	// Calls first: one that is about to start its operation may still do so.
	cut := s.drainOperations(limit)
	if wait := s.answerTime(cut); !within(drained, wait) {
		cut = append(cut, s.calls.running()...)
		// Not waited for by itself: Stop waits for handshakes, and GracefulStop for
		// handlers.
		go s.grpc.Stop()
		within(drained, s.patience.stop)
	}
	if len(cut) > 0 {
		return &DrainError{Cut: cut}
	}
	return nil
}

// answerTime is what calls get to answer that their operation was cut. Nothing
// was cut: nothing changes for those that still run.
func (s *Server) answerTime(cut []string) time.Duration {
	if len(cut) == 0 {
		return 0
	}
	return s.patience.answer
}

// drainOperations waits for work that outlives its RPC.
func (s *Server) drainOperations(limit context.Context) []string {
	if s.opts.Operations == nil {
		return nil
	}
	done := make(chan []string, 1)
	go func() { done <- s.opts.Operations(limit) }()
	select {
	case cut := <-done:
		return cut
	case <-limit.Done():
	}
	if cut, ok := await(done, s.patience.stop); ok {
		return cut
	}
	return []string{"operations that do not end"}
}

// within says whether done is closed in time.
func within(done <-chan struct{}, wait time.Duration) bool {
	_, ok := await(done, wait)
	return ok
}

// await gives what comes in time. What is there counts, whatever the clock says: the
// process may have stood still.
func await[T any](c <-chan T, wait time.Duration) (v T, ok bool) {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case v = <-c:
		return v, true
	case <-t.C:
	}
	select {
	case v = <-c:
		return v, true
	default:
		return v, false
	}
}
