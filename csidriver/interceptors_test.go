package csidriver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/csikit/csikit/internal/testenv"
)

// logBuffer is what a server logged.
type logBuffer struct{ testenv.Log }

func (l *logBuffer) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: level}))
}

// lines are the records with this message.
func (l *logBuffer) lines(t *testing.T, msg string) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for line := range strings.Lines(l.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if m["msg"] == msg {
			lines = append(lines, m)
		}
	}
	return lines
}

func stageAnswers(err error) *fakeServices {
	return &fakeServices{
		stage: func(context.Context, *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
			return nil, err
		},
		stats: func(context.Context, *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
			return nil, err
		},
	}
}

func stageAndStats(t *testing.T, conn *grpc.ClientConn) (changing, readingErr *status.Status) {
	t.Helper()
	c := csi.NewNodeClient(conn)
	_, err1 := c.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: "pvc-1"})
	_, err2 := c.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: "pvc-1"})
	return status.Convert(err1), status.Convert(err2)
}

func TestStatuses(t *testing.T) {
	detailed, err := status.New(codes.NotFound, "no such volume").WithDetails(wrapperspb.String("a detail"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name              string
		err               error
		changing, reading codes.Code
		message           string // a part of it
	}{
		{"plain", errors.New("mkfs: exit 1"), codes.Unavailable, codes.Internal, "mkfs: exit 1"},
		{"status", status.Error(codes.FailedPrecondition, "in use"), codes.FailedPrecondition, codes.FailedPrecondition, "in use"},
		{"wrapped status", fmt.Errorf("stage: %w", status.Error(codes.Aborted, "pending")), codes.Aborted, codes.Aborted, "pending"},
		{"details", detailed.Err(), codes.NotFound, codes.NotFound, "no such volume"},
		{"no message", status.Error(codes.Aborted, " "), codes.Aborted, codes.Aborted, "failed without saying why"},
		{"no code", status.Error(99, "odd"), codes.Unavailable, codes.Internal, "odd"},
		{"deadline", fmt.Errorf("lvs: %w", context.DeadlineExceeded), codes.DeadlineExceeded, codes.DeadlineExceeded, "lvs"},
		{"cancelled", context.Canceled, codes.Canceled, codes.Canceled, "canceled"},
		{"nothing", nil, codes.Unavailable, codes.Internal, "neither a response nor an error"},
		{"panics itself", new(angryError), codes.Unavailable, codes.Internal, "panicked"},
		{"huge", errors.New(strings.Repeat("x", 1<<20)), codes.Unavailable, codes.Internal, "bytes more"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := stageAnswers(tt.err)
			if tt.err == nil {
				f = new(fakeServices)
			}
			o := &ServerOptions{}
			if tt.err == nil {
				o.UnaryInterceptors = []grpc.UnaryServerInterceptor{
					func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) { return nil, nil },
				}
			}
			conn, _ := serveFake(t, o, f)
			c, r := stageAndStats(t, conn)
			if c.Code() != tt.changing || r.Code() != tt.reading {
				t.Errorf("codes %v, %v; want %v, %v", c.Code(), r.Code(), tt.changing, tt.reading)
			}
			if !strings.Contains(c.Message(), tt.message) || len(c.Details()) != 0 {
				t.Errorf("message %.80q, details %v", c.Message(), c.Details())
			}
			if len(c.Message()) > maxMessageText+64 {
				t.Errorf("a message of %d bytes", len(c.Message()))
			}
		})
	}
}

type angryError struct{}

func (*angryError) Error() string { panic("in Error") }

func TestErrorsAndOnPanicDecide(t *testing.T) {
	o := &ServerOptions{
		Errors: func(_ context.Context, method string, err error) error {
			if method == csi.Node_NodeStageVolume_FullMethodName {
				return status.Error(codes.ResourceExhausted, "converted: "+err.Error())
			}
			return nil
		},
		OnPanic: func(method string) error { return status.Error(codes.DataLoss, method) },
	}
	conn, _ := serveFake(t, o, stageAnswers(errors.New("full")))
	c, r := stageAndStats(t, conn)
	if c.Code() != codes.ResourceExhausted || c.Message() != "converted: full" {
		t.Errorf("converted: %v", c)
	}
	if r.Code() != codes.Internal || r.Message() != "full" {
		t.Errorf("left alone: %v", r)
	}
	conn, _ = serveFake(t, o, new(fakeServices)) // its funcs are nil: a panic
	c, _ = stageAndStats(t, conn)
	if c.Code() != codes.DataLoss || c.Message() != csi.Node_NodeStageVolume_FullMethodName {
		t.Errorf("panic: %v", c)
	}
}

// TestPanic: it costs one call, its code is not final where something may be
// left, and the log has the stack.
func TestPanic(t *testing.T) {
	var log logBuffer
	f := &fakeServices{
		stage: func(context.Context, *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
			panic("unlucky")
		},
		stats: func(_ context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
			panic(r)
		},
		allocated: func(*csi.GetMetadataAllocatedRequest, csi.SnapshotMetadata_GetMetadataAllocatedServer) error {
			panic(errors.New("in a stream"))
		},
	}
	conn, _ := serveFake(t, &ServerOptions{Logger: log.logger(slog.LevelDebug)}, f)
	c, r := stageAndStats(t, conn)
	if c.Code() != codes.Unavailable || r.Code() != codes.Internal {
		t.Errorf("codes %v, %v", c.Code(), r.Code())
	}
	if strings.Contains(c.Message(), "unlucky") {
		t.Errorf("the client was told %q", c.Message())
	}
	if err := streamAll(t, conn); status.Code(err) != codes.Internal {
		t.Errorf("stream: %v", err)
	}
	if err := probe(t, conn); err != nil {
		t.Errorf("the next call: %v", err)
	}
	lines := log.lines(t, "panic in a handler")
	if len(lines) != 3 || lines[0]["panic"] != "unlucky" || !strings.Contains(fmt.Sprint(lines[0]["stack"]), "TestPanic") {
		t.Errorf("log: %v", lines)
	}
	if id := fmt.Sprint(lines[0]["request_id"]); !strings.Contains(c.Message(), id) {
		t.Errorf("the answer %q does not name %s", c.Message(), id)
	}
}

func streamAll(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	s, err := csi.NewSnapshotMetadataClient(conn).GetMetadataAllocated(t.Context(), &csi.GetMetadataAllocatedRequest{
		SnapshotId: "snap-1", Secrets: map[string]string{"k": "stream-canary"},
	})
	for err == nil {
		_, err = s.Recv()
	}
	return err
}

func TestRequestID(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]bool{}
	note := func(ctx context.Context) {
		mu.Lock()
		defer mu.Unlock()
		seen[RequestID(context.WithoutCancel(ctx))] = true
	}
	f := &fakeServices{
		stage: func(ctx context.Context, _ *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
			note(ctx)
			return &csi.NodeStageVolumeResponse{}, nil
		},
		allocated: func(_ *csi.GetMetadataAllocatedRequest, s csi.SnapshotMetadata_GetMetadataAllocatedServer) error {
			note(s.Context())
			return nil
		},
	}
	conn, _ := serveFake(t, &ServerOptions{}, f)
	const calls = 20
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			if _, err := csi.NewNodeClient(conn).NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{}); err != nil {
				t.Error(err)
			}
			_ = streamAll(t, conn) // io.EOF
		})
	}
	wg.Wait()
	if len(seen) != 2*calls || seen[""] {
		t.Errorf("%d identifiers of %d calls: %v", len(seen), 2*calls, seen)
	}
	if id := RequestID(t.Context()); id != "" {
		t.Errorf("outside a call: %q", id)
	}
}

func TestLogLines(t *testing.T) {
	tests := []struct {
		name  string
		level slog.Level
		err   error
		want  []string // level, method, code of each line
	}{
		{"info", slog.LevelInfo, status.Error(codes.NotFound, "none"), []string{"INFO NodeStageVolume NotFound"}},
		{"debug", slog.LevelDebug, status.Error(codes.NotFound, "none"), []string{"INFO NodeStageVolume NotFound", "DEBUG NodeGetVolumeStats NotFound"}},
		{"fault", slog.LevelWarn, errors.New("broken"), []string{"WARN NodeStageVolume Unavailable", "WARN NodeGetVolumeStats Internal"}},
		{"off", slog.LevelError, errors.New("broken"), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log logBuffer
			conn, _ := serveFake(t, &ServerOptions{Logger: log.logger(tt.level)}, stageAnswers(tt.err))
			stageAndStats(t, conn)
			var got []string
			for _, l := range log.lines(t, "rpc") {
				got = append(got, fmt.Sprintf("%v %v %v", l["level"], l["method"], l["code"]))
				if l["volume"] != "pvc-1" || l["error"] == "" || l["duration"] == nil || l["request_id"] == nil {
					t.Errorf("line %v", l)
				}
			}
			if strings.Join(got, ", ") != strings.Join(tt.want, ", ") {
				t.Errorf("lines %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLogOfStream(t *testing.T) {
	var log logBuffer
	f := &fakeServices{allocated: func(*csi.GetMetadataAllocatedRequest, csi.SnapshotMetadata_GetMetadataAllocatedServer) error {
		return status.Error(codes.OutOfRange, "offset; secret stream-canary")
	}}
	conn, _ := serveFake(t, &ServerOptions{Logger: log.logger(slog.LevelDebug), LogRequests: true}, f)
	if err := streamAll(t, conn); status.Code(err) != codes.OutOfRange || strings.Contains(err.Error(), "canary") {
		t.Errorf("stream: %v", err)
	}
	rpc, req := log.lines(t, "rpc"), log.lines(t, "request")
	if len(rpc) != 1 || rpc[0]["snapshot"] != "snap-1" || rpc[0]["code"] != "OutOfRange" {
		t.Errorf("rpc lines: %v", rpc)
	}
	if len(req) != 1 || fmt.Sprint(req[0]["request"]) != "map[secrets:map[k:[redacted]] snapshot_id:snap-1]" {
		t.Errorf("request lines: %v", req)
	}
	if strings.Contains(log.String(), "canary") {
		t.Errorf("a secret in the log: %s", log.String())
	}
}

// TestInterceptorsOfTheDriver run inside, and see messages.
func TestInterceptorsOfTheDriver(t *testing.T) {
	var got []string
	o := &ServerOptions{
		UnaryInterceptors: []grpc.UnaryServerInterceptor{func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			got = append(got, req.(*csi.NodeStageVolumeRequest).GetVolumeId())
			if RequestID(ctx) == "" {
				t.Error("no request id")
			}
			return h(ctx, req)
		}},
		StreamInterceptors: []grpc.StreamServerInterceptor{func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, _ grpc.StreamHandler) error {
			got = append(got, "stream")
			panic("in an interceptor")
		}},
	}
	conn, _ := serveFake(t, o, stageAnswers(errors.New("no")))
	_, err := csi.NewNodeClient(conn).NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: "pvc-1"})
	if status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	if err := streamAll(t, conn); status.Code(err) != codes.Internal {
		t.Error(err)
	}
	if len(got) != 2 || got[0] != "pvc-1" || got[1] != "stream" {
		t.Errorf("saw %q", got)
	}
}

// TestEveryMethodIsClassified: an RPC of a newer spec must be looked at.
func TestEveryMethodIsClassified(t *testing.T) {
	changing := map[string]bool{
		"CreateVolume": true, "DeleteVolume": true, "ControllerPublishVolume": true, "ControllerUnpublishVolume": true,
		"CreateSnapshot": true, "DeleteSnapshot": true, "ControllerExpandVolume": true, "ControllerModifyVolume": true,
		"CreateVolumeGroupSnapshot": true, "DeleteVolumeGroupSnapshot": true, "NodeStageVolume": true, "NodeUnstageVolume": true,
		"NodePublishVolume": true, "NodeUnpublishVolume": true, "NodeExpandVolume": true,
	}
	n := 0
	for _, d := range []grpc.ServiceDesc{csi.Identity_ServiceDesc, csi.Controller_ServiceDesc, csi.GroupController_ServiceDesc, csi.SnapshotMetadata_ServiceDesc, csi.Node_ServiceDesc} {
		check := func(name string) {
			n++
			if full := "/" + d.ServiceName + "/" + name; changes(full) != changing[name] {
				t.Errorf("changes(%s) = %v", full, changes(full))
			}
		}
		for _, m := range d.Methods {
			check(m.MethodName)
		}
		for _, m := range d.Streams {
			check(m.StreamName)
		}
	}
	if n != 36 {
		t.Errorf("CSI has %d RPCs, this package knows 36", n)
	}
	if changes("/grpc.health.v1.Health/Check") {
		t.Error("a health check changes nothing")
	}
}
