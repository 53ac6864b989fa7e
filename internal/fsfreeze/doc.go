// Package fsfreeze keeps mounted file systems from writing for the moment in which
// their disks are copied or cut, and lets them go on whatever becomes of the process
// that did it.
package fsfreeze

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
)

// ErrNot says that a file system is left as it is.
var ErrNot = errors.New("cannot be frozen")

// ErrStill says that a file system could not be thawed.
var ErrStill = fmt.Errorf("%w: it may be frozen still", backends.ErrUnavailable)

// Set is what was frozen for one cut. It is thawed by End, or when its time is up.
type Set struct {
	timer *time.Timer

	mu    sync.Mutex
	thaws []func() error
	ended bool
	err   error // of the thaws, and that they were late
}

// NewSet begins an empty set, which is thawed after limit. End then answers late.
func NewSet(limit time.Duration, late error) *Set {
	s := &Set{}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(limit, func() { s.thaw(late) })
	return s
}

// Add takes a file system that was frozen. false: it is too late for it.
func (s *Set) Add(thaw func() error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.thaws = append(s.thaws, thaw)
	}
	return !s.ended
}

// End lets writers go on. An error says that they went on before. It may be called
// again.
func (s *Set) End() error {
	s.thaw(nil)
	s.timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *Set) thaw(late error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	if len(s.thaws) > 0 {
		s.err = late
	}
	for _, f := range s.thaws {
		s.err = errors.Join(s.err, f())
	}
}
