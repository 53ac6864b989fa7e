// Package fsfreeze keeps mounted file systems from writing for the moment in which
// their disks are copied or cut, and lets them go on whatever becomes of the process
// that did it.
package fsfreeze

import (
	"errors"
	"sync"
	"time"
)

// ErrNot says that a file system is left as it is.
var ErrNot = errors.New("cannot be frozen")

// Set is what was frozen for one cut. It is thawed by End, or when its time is up.
type Set struct {
	timer *time.Timer

	mu    sync.Mutex
	thaws []func() error
	ended bool
	late  error
}

// NewSet begins an empty set, which is thawed after limit. End then answers late.
func NewSet(limit time.Duration, late error) *Set {
	s := &Set{}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(limit, func() { _ = s.thaw(late) })
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
	err := s.thaw(nil)
	s.timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(err, s.late)
}

func (s *Set) thaw(why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	s.ended = true
	if len(s.thaws) > 0 {
		s.late = why
	}
	var errs []error
	for _, f := range s.thaws {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}
