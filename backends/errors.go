package backends

import (
	"errors"
	"fmt"
)

// Kinds of errors. Wrap them with %w and say what was tried, on what, and what
// the tool or the kernel said.
//
// An error of none of these kinds from a method that changes something is
// answered as UNAVAILABLE: nobody knows what is left behind, so the CO must go
// on retrying. ErrFailed says "failed, and nothing is left behind".
var (
	ErrInvalid         = errors.New("invalid argument")            // INVALID_ARGUMENT
	ErrNotFound        = errors.New("not found")                   // match only; make one by VolumeNotFound and its like
	ErrExists          = errors.New("already exists")              // from CreateX: another replica won, look again
	ErrIncompatible    = errors.New("exists, but is incompatible") // ALREADY_EXISTS
	ErrOutOfRange      = errors.New("out of range")                // OUT_OF_RANGE
	ErrNoSpace         = errors.New("no space")                    // RESOURCE_EXHAUSTED; CreateVolume: nothing may be left behind
	ErrLimit           = errors.New("limit reached")               // RESOURCE_EXHAUSTED
	ErrInUse           = errors.New("in use")                      // FAILED_PRECONDITION
	ErrPrecondition    = errors.New("precondition not met")        // FAILED_PRECONDITION
	ErrPending         = errors.New("operation pending")           // ABORTED
	ErrStaleToken      = errors.New("stale page token")            // ABORTED
	ErrUnavailable     = errors.New("unavailable")                 // UNAVAILABLE
	ErrPermission      = errors.New("permission denied")           // PERMISSION_DENIED
	ErrUnauthenticated = errors.New("not authenticated")           // UNAUTHENTICATED
	ErrUnsupported     = errors.New("unsupported")                 // UNIMPLEMENTED
	ErrDataLoss        = errors.New("data loss")                   // DATA_LOSS
	ErrFailed          = errors.New("failed, nothing left behind") // INTERNAL
	ErrNotReady        = errors.New("not ready")                   // Prober only
)

// Kind says what was not found.
type Kind string

// What can be not found.
const (
	KindVolume   Kind = "volume"
	KindSnapshot Kind = "snapshot"
	KindGroup    Kind = "group snapshot"
	KindNode     Kind = "node"
)

// NotFoundError names what is missing. Only an answer from complete information
// may be one: a VG with missing PVs, a share that is not mounted and a tool that
// failed are ErrUnavailable.
type NotFoundError struct {
	Kind Kind
	ID   string
}

func (e *NotFoundError) Error() string { return fmt.Sprintf("%s %q not found", e.Kind, e.ID) }

// Is makes errors.Is(err, ErrNotFound) hold.
func (e *NotFoundError) Is(target error) bool { return target == ErrNotFound }

// VolumeNotFound says that no volume has this ID, or this name.
func VolumeNotFound(idOrName string) error { return &NotFoundError{KindVolume, idOrName} }

// SnapshotNotFound says that no snapshot has this ID, or this name.
func SnapshotNotFound(idOrName string) error { return &NotFoundError{KindSnapshot, idOrName} }

// GroupNotFound says that no group snapshot has this ID, or this name.
func GroupNotFound(idOrName string) error { return &NotFoundError{KindGroup, idOrName} }

// NodeNotFound says that no node has this ID.
func NodeNotFound(id string) error { return &NotFoundError{KindNode, id} }
