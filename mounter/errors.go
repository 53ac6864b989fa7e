package mounter

import (
	"errors"
	"fmt"
	"slices"

	"github.com/csikit/csikit/backends"
)

// refuse is an answer that repeating the call does not change, while nothing of
// the call is left behind.
func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{backends.ErrPrecondition}, args...)...)
}

// unavailable is an answer after which the CO goes on trying: in doubt, or with
// something left behind.
func unavailable(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{backends.ErrUnavailable}, args...)...)
}

// retried and finalKinds are in the order in which csidriver looks for them: of
// an error of two kinds the one that keeps the CO coming back wins.
var (
	retried = []error{
		backends.ErrPending, backends.ErrStaleToken, backends.ErrUnavailable, backends.ErrExists, backends.ErrNotReady,
	}
	finalKinds = []error{
		backends.ErrDataLoss, backends.ErrUnauthenticated, backends.ErrPermission, backends.ErrIncompatible, backends.ErrInUse,
		backends.ErrPrecondition, backends.ErrOutOfRange, backends.ErrInvalid, backends.ErrUnsupported, backends.ErrFailed,
		backends.ErrNotFound,
	}
)

// final reports whether a CO takes err for "surely nothing in progress and
// nothing left" and forgets the volume. Everything else, the end of a context
// and an error of no kind too, keeps it coming back.
func final(err error) bool {
	is := func(kind error) bool { return errors.Is(err, kind) }
	return !slices.ContainsFunc(retried, is) && slices.ContainsFunc(finalKinds, is)
}

// softError keeps the words of a final error and takes its kind away, for when
// something is left behind after all.
type softError struct{ err error }

func (e softError) Error() string        { return e.err.Error() }
func (e softError) Is(target error) bool { return target == backends.ErrUnavailable }

// soften makes err one after which the CO goes on trying.
func soften(err error) error {
	if err == nil || !final(err) {
		return err
	}
	return softError{err}
}

// ofVolume keeps an error of a backend final only where it speaks of this volume.
// That something else is not found says nothing of what the call made or opened.
func ofVolume(err error, id string) error {
	if errors.Is(err, backends.ErrNotFound) && !goneVolume(err, id) {
		return soften(err)
	}
	return err
}

// unfinished is for a call that undoes something and does not begin, because of a
// record that cannot be read: what it was to undo may stand, and a CO that took the
// refusal for final would forget it.
func unfinished(err error) error {
	if errors.Is(err, backends.ErrPrecondition) {
		return soften(err)
	}
	return err
}

func inUse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{backends.ErrInUse}, args...)...)
}
