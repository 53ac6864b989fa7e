package fsfreeze_test

import (
	"errors"
	"testing"
	"time"

	"github.com/csikit/csikit/internal/fsfreeze"
	"github.com/csikit/csikit/internal/testenv"
)

// TestSetIsLate: who ends a set whose time was up learns it, and what could not be
// thawed then.
func TestSetIsLate(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		late, stuck := errors.New("late"), errors.New("stuck")
		s := fsfreeze.NewSet(time.Second, late)
		thawed := 0
		for _, err := range []error{stuck, nil} {
			if !s.Add(func() error { thawed++; return err }) {
				t.Error("late before its time")
			}
		}
		time.Sleep(2 * time.Second)
		if s.Add(func() error { return nil }) {
			t.Error("a file system is taken that nobody thaws")
		}
		for range 2 {
			if err := s.End(); thawed != 2 || !errors.Is(err, late) || !errors.Is(err, stuck) {
				t.Errorf("%d thawed, %v", thawed, err)
			}
		}
	})
}
