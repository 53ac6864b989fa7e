package csidriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/idempotency"
)

// This file is the only one with gRPC codes. Everything else speaks in the kinds
// of package backends and in the few errors below.

var (
	// errNoCapability is a volume capability that the driver, or this volume,
	// does not have: the spec gives it one code at stage and publish and another
	// elsewhere.
	errNoCapability = errors.New("volume capability not supported")
	// errUnserved is an RPC that this process does not answer.
	errUnserved = errors.New("not implemented by this driver")
	// errStarting is an RPC that came before recovery was done.
	errStarting = errors.New("the driver is starting")
	// errBadAnswer is a backend's answer that may not be sent on. Whatever was
	// made is there, so it counts as an error of no kind.
	errBadAnswer = errors.New("the backend gave an answer that CSI does not allow")
	// errPanic is a panic below an RPC.
	errPanic = errors.New("panic")
)

// kindCodes is ordered: the first match wins, so that an error of two kinds gets
// the code that keeps the CO retrying rather than the one that makes it forget
// the volume.
var kindCodes = []struct {
	kind error
	code codes.Code
}{
	{errUnserved, codes.Unimplemented},
	{errStarting, codes.Unavailable},
	{backends.ErrPending, codes.Aborted},
	{backends.ErrStaleToken, codes.Aborted},
	{backends.ErrUnavailable, codes.Unavailable},
	{backends.ErrExists, codes.Unavailable}, // somebody else won: look again
	{backends.ErrNotReady, codes.Unavailable},
	{backends.ErrDataLoss, codes.DataLoss},
	{backends.ErrUnauthenticated, codes.Unauthenticated},
	{backends.ErrPermission, codes.PermissionDenied},
	{backends.ErrIncompatible, codes.AlreadyExists},
	{backends.ErrInUse, codes.FailedPrecondition},
	{backends.ErrPrecondition, codes.FailedPrecondition},
	{backends.ErrOutOfRange, codes.OutOfRange},
	{backends.ErrNoSpace, codes.ResourceExhausted},
	{backends.ErrLimit, codes.ResourceExhausted},
	{errNoCapability, codes.InvalidArgument},
	{backends.ErrInvalid, codes.InvalidArgument},
	{backends.ErrUnsupported, codes.Unimplemented},
	{backends.ErrFailed, codes.Internal},
	{backends.ErrNotFound, codes.NotFound},
}

// overrides are the places where the spec's table of one RPC differs.
var overrides = map[string]map[error]codes.Code{
	csi.Node_NodeStageVolume_FullMethodName:   {errNoCapability: codes.FailedPrecondition},
	csi.Node_NodePublishVolume_FullMethodName: {errNoCapability: codes.FailedPrecondition},
}

// rpcError is what leaves the driver: a code, one line for people, no details.
type rpcError struct {
	st    *status.Status
	cause error
}

func (e *rpcError) Error() string              { return e.st.String() }
func (e *rpcError) GRPCStatus() *status.Status { return e.st }
func (e *rpcError) Unwrap() error              { return e.cause }

// toRPC gives err the code that the spec asks for in this method.
//
// A gRPC status inside a backend's error is not looked at: it speaks of the
// vendor's API and not of CSI.
func toRPC(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	if done := (*rpcError)(nil); errors.As(err, &done) {
		return done
	}
	return &rpcError{st: status.New(codeOf(ctx, method, err), message(method, err)), cause: err}
}

// codeOf works in a fixed order: the kind; what operations say; the context; and
// last, for an error that says nothing, what its method may have left behind.
func codeOf(ctx context.Context, method string, err error) codes.Code {
	if method == csi.Identity_Probe_FullMethodName && ctx.Err() == nil {
		return codes.FailedPrecondition
	}
	for _, k := range kindCodes {
		if !errors.Is(err, k.kind) {
			continue
		}
		if c, ok := overrides[method][k.kind]; ok {
			return c
		}
		return k.code
	}
	if c, ok := operationCode(err); ok {
		return c
	}
	if c, ok := contextCode(ctx, err); ok {
		return c
	}
	return inDoubt(changes(method))
}

func operationCode(err error) (codes.Code, bool) {
	if pending := (*idempotency.PendingError)(nil); errors.As(err, &pending) {
		return codes.Aborted, true
	}
	switch {
	case errors.Is(err, idempotency.ErrNegated):
		return codes.Aborted, true
	case errors.Is(err, idempotency.ErrClosed), errors.Is(err, idempotency.ErrLost):
		return codes.Unavailable, true
	}
	return codes.OK, false
}

// contextCode looks at the caller's own context first: a tool that was killed at
// the deadline says "signal: killed" and not "deadline exceeded".
func contextCode(ctx context.Context, err error) (codes.Code, bool) {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return codes.DeadlineExceeded, true
	case ctx.Err() != nil:
		return codes.Canceled, true
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded, true
	case errors.Is(err, context.Canceled):
		return codes.Unavailable, true // not the caller who cancelled
	}
	return codes.OK, false
}

// passStatus hands on the status of an interceptor of the driver's author, which
// speaks of CSI; everything else goes through toRPC. Errors of backends were
// converted below the author's interceptors.
func passStatus(ctx context.Context, method string, err error) error {
	s, ok := err.(interface{ GRPCStatus() *status.Status }) //nolint:errorlint // only an error that is one itself
	if !ok || s.GRPCStatus() == nil {
		return toRPC(ctx, method, err)
	}
	return err
}

// panicked is the answer to a call that panicked.
func panicked(method string) error {
	return toRPC(context.Background(), method, fmt.Errorf("%w in %s; see the driver's log", errPanic, shortName(method)))
}

// maxText keeps the trailer below the 8 KiB of metadata that some clients
// accept, percent-encoded.
const maxText = 2048

func message(method string, err error) string {
	if msg := strings.TrimSpace(strings.ToValidUTF8(err.Error(), "?")); msg != "" {
		return clip(msg, maxText)
	}
	return shortName(method) + " failed"
}

// shortName is the RPC's own name: "CreateVolume".
func shortName(method string) string { return method[strings.LastIndexByte(method, '/')+1:] }

// invalid is a request that the client has to change.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", backends.ErrInvalid, fmt.Errorf(format, args...))
}

// badAnswer is a backend's answer that breaks the contract.
func badAnswer(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errBadAnswer, fmt.Errorf(format, args...))
}

// isNotFound tells whether err says that this very object does not exist.
func isNotFound(err error, kind backends.Kind, ids ...string) bool {
	nf := (*backends.NotFoundError)(nil)
	if !errors.As(err, &nf) || nf.Kind != kind {
		return false
	}
	return slices.Contains(ids, nf.ID)
}

// aboutVolume lets a not-found through only if it speaks of this volume. What
// else is missing (a pool, a file, another volume) is a failure: NOT_FOUND would
// make the CO forget a volume that is there.
func aboutVolume(err error, id string) error { return about(err, backends.KindVolume, id) }

// aboutSnapshot is aboutVolume for the snapshots that a request names.
func aboutSnapshot(err error, ids ...string) error { return about(err, backends.KindSnapshot, ids...) }

// aboutGroup is aboutVolume for a group snapshot.
func aboutGroup(err error, id string) error { return about(err, backends.KindGroup, id) }

func about(err error, kind backends.Kind, ids ...string) error {
	if errors.Is(err, backends.ErrNotFound) && !isNotFound(err, kind, ids...) {
		return &strayNotFound{err, kind, ids}
	}
	return err
}

// aboutAttachment is aboutVolume for what is asked of a volume and of a node.
func aboutAttachment(err error, id, node string) error {
	if node != "" && isNotFound(err, backends.KindNode, node) {
		return err
	}
	return aboutVolume(err, id)
}

// gone tells whether err says, from complete information, that this very object
// does not exist.
func gone(err error, kind backends.Kind, ids ...string) bool {
	return isNotFound(err, kind, ids...) && !errors.Is(err, backends.ErrUnavailable)
}

// silent are the kinds of errors that say why nobody could look, and nothing of what
// is there; silentRefusals those of a VolumeChecker, which may say of the request
// what the others say of the storage.
var (
	silentRefusals = []error{backends.ErrPermission, backends.ErrUnauthenticated, backends.ErrDataLoss, backends.ErrFailed}
	silent         = append([]error{backends.ErrInUse, backends.ErrPrecondition, backends.ErrNoSpace, backends.ErrLimit}, silentRefusals...)
)

// unseen hides the kind of an error with which a lookup failed on the way to make
// something: an earlier call, whose answer was lost, may have made it, and a code
// that ends would make the CO forget it.
func unseen(err error, kinds []error) error {
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return &unseenError{err}
		}
	}
	return err
}

// unseenError hides its kind: it has no Unwrap.
type unseenError struct{ err error }

func (e *unseenError) Error() string {
	return e.err.Error() + " (that says nothing of what an earlier call has made)"
}

// strayNotFound hides its kind: it has no Unwrap.
type strayNotFound struct {
	err  error
	kind backends.Kind
	ids  []string // whose absence would count
}

func (e *strayNotFound) Error() string {
	if strings.Join(e.ids, "") == "" {
		return e.err.Error()
	}
	return fmt.Sprintf("%v (that is not the not-found of %s %q, which is not taken for missing)", e.err, e.kind, e.ids)
}

// afterwards is what went wrong with a look at what was just changed. It hides
// its kind, whose code could be final, and would then say that nothing was.
func afterwards(format string, a ...any) error {
	return &doubtError{fmt.Errorf(format, a...).Error()}
}

// doubtError has no kind, and no Unwrap.
type doubtError struct{ text string }

func (e *doubtError) Error() string { return e.text }

// outcome is the code that an operation's RPC answers, if a caller is left.
func outcome(operation string, err error) string {
	service := "Controller/"
	if strings.HasPrefix(operation, "Node") {
		service = "Node/"
	}
	return status.Code(toRPC(context.Background(), "/csi.v1."+service+operation, err)).String()
}
