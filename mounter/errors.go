package mounter

import (
	"context"
	"errors"
	"fmt"

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

// notFinal are the kinds after which a CO knows that it has to come back.
var notFinal = []error{
	backends.ErrUnavailable, backends.ErrPending, backends.ErrNoSpace, backends.ErrLimit,
	backends.ErrStaleToken, context.Canceled, context.DeadlineExceeded,
}

var finalKinds = []error{
	backends.ErrInvalid, backends.ErrNotFound, backends.ErrExists, backends.ErrIncompatible, backends.ErrOutOfRange,
	backends.ErrInUse, backends.ErrPrecondition, backends.ErrPermission, backends.ErrUnauthenticated,
	backends.ErrUnsupported, backends.ErrDataLoss, backends.ErrFailed,
}

// final reports whether a CO takes err for "surely nothing in progress and
// nothing left" and forgets the volume. An error of no kind is answered as
// UNAVAILABLE, so it is not final.
func final(err error) bool {
	for _, k := range notFinal {
		if errors.Is(err, k) {
			return false
		}
	}
	for _, k := range finalKinds {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
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

func inUse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{backends.ErrInUse}, args...)...)
}
