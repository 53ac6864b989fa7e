package nfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"syscall"

	"github.com/csikit/csikit/backends"
)

// What goes between the driver and a worker: JSON values, one after the other.

// toWorker is a task to run, or one to give up.
type toWorker struct {
	ID     uint64          `json:"id"`
	Op     string          `json:"op,omitempty"`
	In     json.RawMessage `json:"in,omitempty"`
	Cancel bool            `json:"cancel,omitempty"`
}

// fromWorker is the first word of a worker, a step of a task, or its end.
type fromWorker struct {
	ID    uint64          `json:"id"`
	Hello int             `json:"hello,omitempty"`
	Step  string          `json:"step,omitempty"`
	Out   json.RawMessage `json:"out,omitempty"`
	Err   *wireError      `json:"err,omitempty"`
}

// hello is the version of these messages: both sides are one program, and a worker
// lives no longer than its driver, so that another one means another program.
const hello = 1

// wireError is an error with what errors.Is and errors.As find in it.
type wireError struct {
	Text     string        `json:"text"`
	Kinds    []string      `json:"kinds,omitempty"`
	Errno    syscall.Errno `json:"errno,omitempty"`
	NotFound *notFound     `json:"notFound,omitempty"`
}

type notFound struct {
	Kind backends.Kind `json:"kind"`
	ID   string        `json:"id"`
}

// wireKinds are the kinds by their texts, which are all different.
func wireKinds() []error {
	return []error{
		backends.ErrInvalid, backends.ErrExists, backends.ErrIncompatible, backends.ErrOutOfRange, backends.ErrNoSpace,
		backends.ErrLimit, backends.ErrInUse, backends.ErrPrecondition, backends.ErrPending, backends.ErrStaleToken,
		backends.ErrUnavailable, backends.ErrPermission, backends.ErrUnauthenticated, backends.ErrUnsupported,
		backends.ErrDataLoss, backends.ErrFailed, backends.ErrNotReady,
	}
}

func encodeError(err error) *wireError {
	if err == nil {
		return nil
	}
	w := &wireError{Text: err.Error()}
	for _, k := range wireKinds() {
		if errors.Is(err, k) {
			w.Kinds = append(w.Kinds, k.Error())
		}
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		w.Errno = errno
	}
	if nf, ok := errors.AsType[*backends.NotFoundError](err); ok {
		w.NotFound = &notFound{nf.Kind, nf.ID}
	}
	return w
}

// farError is an error that a worker had.
type farError struct {
	text string
	in   []error
}

func (e *farError) Error() string   { return e.text }
func (e *farError) Unwrap() []error { return e.in }

func (w *wireError) decode() error {
	if w == nil {
		return nil
	}
	e := &farError{text: w.Text}
	for _, name := range w.Kinds {
		for _, k := range wireKinds() {
			if k.Error() == name {
				e.in = append(e.in, k)
			}
		}
	}
	if w.Errno != 0 {
		e.in = append(e.in, w.Errno)
	}
	if w.NotFound != nil {
		e.in = append(e.in, &backends.NotFoundError{Kind: w.NotFound.Kind, ID: w.NotFound.ID})
	}
	return e
}

func unavailable(format string, args ...any) error {
	return fmt.Errorf("%w: %w", backends.ErrUnavailable, fmt.Errorf(format, args...))
}
