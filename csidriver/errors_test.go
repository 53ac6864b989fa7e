package csidriver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/idempotency"
)

const (
	createMethod = csi.Controller_CreateVolume_FullMethodName
	readMethod   = csi.Controller_ListVolumes_FullMethodName
)

// ended gives a context that has ended in this way.
func ended(cause error) context.Context {
	if errors.Is(cause, context.DeadlineExceeded) {
		ctx, cancel := context.WithDeadline(context.Background(), testStart)
		defer cancel()
		return ctx
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestCodes(t *testing.T) {
	wrap := func(kind error) error { return fmt.Errorf("lvcreate vg/x: %w", kind) }
	for _, tc := range []struct {
		name              string
		err               error
		ctx               error // how the caller's context ended
		changing, reading codes.Code
	}{
		{"invalid", wrap(backends.ErrInvalid), nil, codes.InvalidArgument, codes.InvalidArgument},
		{"not found", wrap(backends.VolumeNotFound("v")), nil, codes.NotFound, codes.NotFound},
		{"not found, another", aboutVolume(wrap(backends.VolumeNotFound("w")), "v"), nil, codes.Unavailable, codes.Internal},
		{"not found, another kind", aboutVolume(wrap(backends.SnapshotNotFound("v")), "v"), nil, codes.Unavailable, codes.Internal},
		{"not found, nameless", aboutVolume(wrap(backends.ErrNotFound), "v"), nil, codes.Unavailable, codes.Internal},
		{"exists", wrap(backends.ErrExists), nil, codes.Unavailable, codes.Unavailable},
		{"incompatible", wrap(backends.ErrIncompatible), nil, codes.AlreadyExists, codes.AlreadyExists},
		{"out of range", wrap(backends.ErrOutOfRange), nil, codes.OutOfRange, codes.OutOfRange},
		{"no space", wrap(backends.ErrNoSpace), nil, codes.ResourceExhausted, codes.ResourceExhausted},
		{"limit", wrap(backends.ErrLimit), nil, codes.ResourceExhausted, codes.ResourceExhausted},
		{"in use", wrap(backends.ErrInUse), nil, codes.FailedPrecondition, codes.FailedPrecondition},
		{"precondition", wrap(backends.ErrPrecondition), nil, codes.FailedPrecondition, codes.FailedPrecondition},
		{"pending", wrap(backends.ErrPending), nil, codes.Aborted, codes.Aborted},
		{"stale token", wrap(backends.ErrStaleToken), nil, codes.Aborted, codes.Aborted},
		{"unavailable", wrap(backends.ErrUnavailable), nil, codes.Unavailable, codes.Unavailable},
		{"permission", wrap(backends.ErrPermission), nil, codes.PermissionDenied, codes.PermissionDenied},
		{"unauthenticated", wrap(backends.ErrUnauthenticated), nil, codes.Unauthenticated, codes.Unauthenticated},
		{"unsupported", wrap(backends.ErrUnsupported), nil, codes.Unimplemented, codes.Unimplemented},
		{"data loss", wrap(backends.ErrDataLoss), nil, codes.DataLoss, codes.DataLoss},
		{"failed", wrap(backends.ErrFailed), nil, codes.Internal, codes.Internal},
		{"not ready", wrap(backends.ErrNotReady), nil, codes.Unavailable, codes.Unavailable},
		{"two kinds: the one that keeps the CO retrying", errors.Join(backends.VolumeNotFound("v"), backends.ErrUnavailable), nil, codes.Unavailable, codes.Unavailable},
		{"no kind", errors.New("exit status 5"), nil, codes.Unavailable, codes.Internal},
		{"bad answer", badAnswer("no id"), nil, codes.Unavailable, codes.Internal},
		{"panic", wrap(errPanic), nil, codes.Unavailable, codes.Internal},
		{"a status of the vendor's", status.Error(codes.NotFound, "no such tenant"), nil, codes.Unavailable, codes.Internal},
		{"a wrapped status of the vendor's", wrap(status.Error(codes.AlreadyExists, "x")), nil, codes.Unavailable, codes.Internal},
		{"a kind and a status", fmt.Errorf("%w: %w", backends.ErrFailed, status.Error(codes.NotFound, "x")), nil, codes.Internal, codes.Internal},
		{"capability", noCapability("x"), nil, codes.InvalidArgument, codes.InvalidArgument},
		{"pending operation", &idempotency.PendingError{Name: "CreateVolume x"}, nil, codes.Aborted, codes.Aborted},
		{"negated", fmt.Errorf("%w: signal: killed", idempotency.ErrNegated), nil, codes.Aborted, codes.Aborted},
		{"closed", idempotency.ErrClosed, nil, codes.Unavailable, codes.Unavailable},
		{"stalled", fmt.Errorf("%w: signal: killed", idempotency.ErrStalled), nil, codes.DeadlineExceeded, codes.DeadlineExceeded},
		{"the caller's deadline, said by nobody", errors.New("signal: killed"), context.DeadlineExceeded, codes.DeadlineExceeded, codes.DeadlineExceeded},
		{"the caller cancelled", errors.New("signal: killed"), context.Canceled, codes.Canceled, codes.Canceled},
		{"a kind wins over the context", wrap(backends.ErrFailed), context.Canceled, codes.Internal, codes.Internal},
		{"another's deadline", wrap(context.DeadlineExceeded), nil, codes.DeadlineExceeded, codes.DeadlineExceeded},
		{"cancelled, but not by the caller", wrap(context.Canceled), nil, codes.Unavailable, codes.Unavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := t.Context()
			if tc.ctx != nil {
				ctx = ended(tc.ctx)
			}
			wantCode(t, toRPC(ctx, createMethod, tc.err), tc.changing)
			wantCode(t, toRPC(ctx, readMethod, tc.err), tc.reading)
		})
	}
	if toRPC(t.Context(), createMethod, nil) != nil {
		t.Error("nil became an error")
	}
}

// TestFinalCodes holds promise 4: what says nothing of what it left behind never
// gets a code after which a CO forgets the volume.
func TestFinalCodes(t *testing.T) {
	retried := []codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Aborted}
	for method := range csiMethods() {
		if !changes(method) {
			continue
		}
		for _, err := range []error{
			errors.New("exit status 5"), badAnswer("x"), errPanic, status.Error(codes.NotFound, "x"), idempotency.ErrStalled,
			idempotency.ErrNegated, idempotency.ErrClosed, &idempotency.PendingError{}, context.Canceled, backends.ErrUnavailable, backends.ErrExists,
		} {
			if c := status.Code(toRPC(t.Context(), method, err)); !slices.Contains(retried, c) {
				t.Errorf("%s: %v became %v, which is final", method, err, c)
			}
		}
		if c := status.Code(panicked(method)); !slices.Contains(retried, c) {
			t.Errorf("%s: a panic became %v, which is final", method, c)
		}
	}
}

func csiMethods() map[string]bool {
	all := make(map[string]bool)
	services := csi.File_csi_proto.Services()
	for i := range services.Len() {
		s := services.Get(i)
		for j := range s.Methods().Len() {
			all["/"+string(s.FullName())+"/"+string(s.Methods().Get(j).Name())] = true
		}
	}
	return all
}

func TestOverrides(t *testing.T) {
	err := noCapability("access mode X")
	for method, want := range map[string]codes.Code{
		csi.Node_NodeStageVolume_FullMethodName:              codes.FailedPrecondition,
		csi.Node_NodePublishVolume_FullMethodName:            codes.FailedPrecondition,
		csi.Node_NodeExpandVolume_FullMethodName:             codes.InvalidArgument,
		csi.Controller_ControllerExpandVolume_FullMethodName: codes.InvalidArgument,
		csi.Controller_CreateVolume_FullMethodName:           codes.InvalidArgument,
	} {
		wantCode(t, toRPC(t.Context(), method, err), want)
	}
	for _, err := range []error{errors.New("x"), backends.ErrUnavailable, backends.ErrInvalid} {
		wantCode(t, toRPC(t.Context(), csi.Identity_Probe_FullMethodName, err), codes.FailedPrecondition)
	}
	wantCode(t, toRPC(ended(context.DeadlineExceeded), csi.Identity_Probe_FullMethodName, errors.New("x")), codes.DeadlineExceeded)
}

func TestMessages(t *testing.T) {
	wantCode(t, toRPC(t.Context(), createMethod, errors.New("  ")), codes.Unavailable, "CreateVolume failed")
	long := status.Convert(toRPC(t.Context(), createMethod, errors.New(strings.Repeat("é", maxText)))).Message()
	if len(long) > maxText+maxClipped {
		t.Errorf("message of %d bytes", len(long))
	}
	wantCode(t, toRPC(t.Context(), createMethod, errors.New("a\xffb")), codes.Unavailable, "a?b")
}

func TestPassStatus(t *testing.T) {
	own := status.Error(codes.PermissionDenied, "not you")
	wantCode(t, passStatus(t.Context(), createMethod, own), codes.PermissionDenied, "not you")
	done := toRPC(t.Context(), createMethod, backends.ErrFailed)
	if again := passStatus(t.Context(), createMethod, done); again != done { //nolint:errorlint // the very same
		t.Error("a converted error was converted again")
	}
	wantCode(t, passStatus(t.Context(), createMethod, backends.ErrInvalid), codes.InvalidArgument)
}

// TestCodesStandInOneFile greps for gRPC codes. The interceptors have the
// fallback for a Server that is used without a Driver.
func TestCodesStandInOneFile(t *testing.T) {
	allowed := []string{"errors.go", "interceptors.go", "logging.go"}
	err := filepath.WalkDir("..", func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.Base(path)
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		dir := strings.Split(filepath.ToSlash(path), "/")[1]
		if dir == "sanity" || dir == "cmd" || dir == "internal" || dir == "test" {
			return nil // clients, and drivers with faults
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), `"google.golang.org/grpc/codes"`) && (dir != "csidriver" || !slices.Contains(allowed, name)) {
			t.Errorf("%s has gRPC codes: they belong into csidriver/errors.go", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestUnseen: why nobody could look is no reason to forget what may be there.
func TestUnseen(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{backends.ErrPermission, codes.Unavailable},
		{backends.ErrUnauthenticated, codes.Unavailable},
		{backends.ErrFailed, codes.Unavailable},
		{backends.ErrNoSpace, codes.Unavailable},
		{backends.ErrPending, codes.Aborted},
		{backends.ErrInvalid, codes.InvalidArgument},
		{backends.VolumeNotFound("v"), codes.NotFound},
		{errNoCapability, codes.InvalidArgument},
	} {
		wantCode(t, toRPC(t.Context(), createMethod, unseen(tc.err, silent)), tc.want)
	}
	wantCode(t, toRPC(t.Context(), createMethod, unseen(backends.ErrNoSpace, silentRefusals)), codes.ResourceExhausted)
	wantCode(t, toRPC(t.Context(), createMethod, unseen(backends.ErrPermission, silent)), codes.Unavailable, "permission denied")
}
