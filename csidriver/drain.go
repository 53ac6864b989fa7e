package csidriver

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Bounds of what comes after Options.Drain.
const (
	answerWait = 2 * time.Second // calls whose operation was cut send their answer
	stopWait   = 2 * time.Second // handlers notice that their context ended
)

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
	if wait := answerTime(cut); !within(drained, wait) {
		cut = append(cut, s.calls.running()...)
		// Not waited for by itself: Stop waits for handshakes, and GracefulStop for
		// handlers.
		go s.grpc.Stop()
		within(drained, stopWait)
	}
	if len(cut) > 0 {
		return &DrainError{Cut: cut}
	}
	return nil
}

// answerTime is what calls get to answer that their operation was cut. Nothing
// was cut: nothing changes for those that still run.
func answerTime(cut []string) time.Duration {
	if len(cut) == 0 {
		return 0
	}
	return answerWait
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
	select {
	case cut := <-done:
		return cut
	case <-time.After(stopWait):
		return []string{"operations that do not end"}
	}
}

// within says whether done is closed in time.
func within(done <-chan struct{}, wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}
