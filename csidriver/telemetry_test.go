package csidriver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/internal/testenv"
)

func telemetryRig(t *testing.T, r *recorder, change func(*setup)) *rig {
	t.Helper()
	return startRig(t, func(s *setup) {
		s.opts.TracerProvider, s.opts.MeterProvider = tracers{r: r}, r
		if change != nil {
			change(s)
		}
	})
}

// TestTelemetryRPC: a span that goes on where the client's is, and a duration;
// the operation's span is its child and outlives it in peace.
func TestTelemetryRPC(t *testing.T) {
	r := new(recorder)
	var inside trace.SpanContext
	rig := telemetryRig(t, r, func(s *setup) {
		s.backend.hook = func(ctx context.Context, method string) error {
			if method == "CreateVolume" {
				inside = trace.SpanContextFromContext(ctx)
			}
			return nil
		}
	})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if _, err := rig.CreateVolume(ctx, createReq("pvc")); err != nil {
		t.Fatal(err)
	}
	s := r.one(t, "csi.v1.Controller/CreateVolume")
	if s.parent.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" || s.parent.SpanID().String() != "b7ad6b7169203331" || !s.parent.IsRemote() {
		t.Errorf("parent %v", s.parent)
	}
	if s.kind != trace.SpanKindServer || s.attrs["csi.name"] != "pvc" || s.attrs["csi.volume.id"] != "id-pvc" || s.attrs[keyCode] != "OK" ||
		s.attrs[keyMethod] != "csi.v1.Controller/CreateVolume" || s.attrs["rpc.system.name"] != "grpc" || s.status != otelcodes.Unset {
		t.Errorf("span %+v", s)
	}
	op := r.one(t, "operation CreateVolume")
	if op.parent.SpanID() != s.self.SpanID() || op.parent.TraceID() != s.self.TraceID() || op.attrs[keyRequestID] == "" || op.attrs[keyCode] != "OK" {
		t.Errorf("operation %+v", op)
	}
	if inside.SpanID() != op.self.SpanID() {
		t.Errorf("the backend's context has span %v, the operation's is %v", inside, op.self)
	}
	found := 0
	for _, p := range r.wait(t, "rpc.server.call.duration", 2) { // and one Probe at least
		if v, _ := p.attrs.Value(keyMethod); v.AsString() == "csi.v1.Controller/CreateVolume" {
			found++
			if code, _ := p.attrs.Value(keyCode); code.AsString() != "OK" || p.value <= 0 || p.attrs.Len() != 3 {
				t.Errorf("duration %v of %v", p.value, p.attrs)
			}
		}
	}
	if found != 1 {
		t.Errorf("%d durations of CreateVolume", found)
	}
}

// TestTelemetryOperations: what runs is counted up and down, and calls that meet.
func TestTelemetryOperations(t *testing.T) {
	r := new(recorder)
	entered, leave := make(chan struct{}), make(chan struct{})
	rig := telemetryRig(t, r, func(s *setup) {
		s.backend.hook = func(_ context.Context, method string) error {
			if method == "CreateVolume" {
				close(entered)
				<-leave
			}
			return nil
		}
	})
	done := make(chan error, 2)
	create := func() { _, err := rig.CreateVolume(t.Context(), createReq("pvc")); done <- err }
	go create()
	<-entered
	if active := r.measured("csikit.operation.active"); len(active) != 1 || active[0].value != 1 {
		t.Errorf("while it runs: %v", active)
	}
	go create()
	r.wait(t, "csikit.operation.events", 1)
	close(leave)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	sum := 0.
	for _, p := range r.wait(t, "csikit.operation.active", 2) {
		sum += p.value
	}
	if sum != 0 {
		t.Errorf("%v operations run for ever", sum)
	}
	if e := r.measured("csikit.operation.events"); len(e) != 1 || e[0].attrs.Encoded(attributeEncoder) != "csikit.event=join,csikit.operation=CreateVolume" {
		t.Errorf("events %v", e)
	}
	if d := r.wait(t, "csikit.operation.duration", 1); len(d) != 1 || d[0].attrs.Encoded(attributeEncoder) != "csikit.operation=CreateVolume,rpc.response.status_code=OK" {
		t.Errorf("durations %v", d)
	}
}

// TestTelemetrySecrets: no canary in any attribute, text or name, whatever fails.
func TestTelemetrySecrets(t *testing.T) {
	const canary = "c4n4ry-s3cret"
	r := new(recorder)
	rig := telemetryRig(t, r, func(s *setup) {
		s.backend.hook = func(_ context.Context, method string) error {
			if method == "CreateVolume" {
				return fmt.Errorf("login with %s failed", canary)
			}
			return nil
		}
	})
	req := createReq("pvc")
	req.Secrets = map[string]string{"password": canary}
	_, err := rig.CreateVolume(t.Context(), req)
	wantCode(t, err, codes.Unavailable, "login with")
	s, op := r.one(t, "csi.v1.Controller/CreateVolume"), r.one(t, "operation CreateVolume")
	for _, span := range []recordedSpan{s, op} {
		if span.status != otelcodes.Error || !strings.Contains(span.text, "login with") || span.attrs[keyCode] != "Unavailable" {
			t.Errorf("%s: %v %q %v", span.name, span.status, span.text, span.attrs)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if all := fmt.Sprint(s.name, s.text, s.attrs); strings.Contains(all, canary) {
			t.Errorf("a secret: %s", all)
		}
	}
	for _, p := range r.points {
		if all := p.attrs.Encoded(attributeEncoder); strings.Contains(all, canary) || strings.Contains(all, "pvc") {
			t.Errorf("a secret, or an ID, in a metric: %s", all)
		}
	}
}

// TestTelemetryFault: a refused request is no fault of the server.
func TestTelemetryFault(t *testing.T) {
	r := new(recorder)
	rig := telemetryRig(t, r, nil)
	_, err := rig.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{})
	wantCode(t, err, codes.InvalidArgument)
	if s := r.one(t, "csi.v1.Controller/DeleteVolume"); s.status != otelcodes.Unset || s.attrs[keyCode] != "InvalidArgument" {
		t.Errorf("span %+v", s)
	}
}

// TestTelemetryStream: the context of a stream has the span, and the request is
// described when it comes.
func TestTelemetryStream(t *testing.T) {
	r := new(recorder)
	tel := newRPCTelemetry(newSource(tracers{r: r}, nil, slog.New(slog.DiscardHandler)))
	info := &grpc.StreamServerInfo{FullMethod: csi.SnapshotMetadata_GetMetadataAllocated_FullMethodName}
	err := tel.stream(nil, &oneRequest{ctx: t.Context()}, info, func(_ any, ss grpc.ServerStream) error {
		if !trace.SpanContextFromContext(ss.Context()).IsValid() {
			t.Error("no span in the context")
		}
		return ss.RecvMsg(&csi.GetMetadataAllocatedRequest{SnapshotId: "snap-1"})
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := r.one(t, "csi.v1.SnapshotMetadata/GetMetadataAllocated"); s.attrs["csi.snapshot.id"] != "snap-1" || s.attrs[keyCode] != "OK" {
		t.Errorf("span %+v", s)
	}
}

type oneRequest struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *oneRequest) Context() context.Context { return s.ctx }
func (s *oneRequest) RecvMsg(any) error        { return nil }

// TestTelemetryCommand: a run of a tool, with the time that it took and nothing
// of what it said.
func TestTelemetryCommand(t *testing.T) {
	r := new(recorder)
	ctx, parent := tracers{r: r}.Tracer("").Start(t.Context(), "parent")
	observe := CommandObserver(tracers{r: r}, r)
	observe(command.Event{Context: ctx, Path: "/usr/sbin/mkfs.ext4", Code: 1, Elapsed: time.Minute, Err: errors.New("canary")})
	observe(command.Event{Path: "true"})
	s := r.one(t, "mkfs.ext4")
	if s.end.Sub(s.start) != time.Minute || s.parent.SpanID() != parent.SpanContext().SpanID() || s.status != otelcodes.Error || s.text != "" || s.attrs[keyExit] != "1" {
		t.Errorf("span %+v", s)
	}
	if ok := r.one(t, "true"); ok.status != otelcodes.Unset || ok.parent.IsValid() {
		t.Errorf("span %+v", ok)
	}
	if d := r.measured("csikit.command.duration"); len(d) != 2 || d[0].value != 60 || d[0].attrs.Encoded(attributeEncoder) != "process.executable.name=mkfs.ext4,process.exit.code=1" {
		t.Errorf("durations %v", d)
	}
}

// TestTelemetryEngine: the tools of the node engine are observed.
func TestTelemetryEngine(t *testing.T) {
	testenv.Tool(t, "true")
	r := new(recorder)
	rig := telemetryRig(t, r, nil)
	if _, err := rig.driver.engineOptions().Command.Run(t.Context(), command.Cmd{Path: "true"}); err != nil {
		t.Fatal(err)
	}
	r.one(t, "true")
}

// TestTelemetryHalf: one provider without the other, and a meter that makes no
// instruments.
func TestTelemetryHalf(t *testing.T) {
	for name, change := range map[string]func(*setup){
		"traces":  func(s *setup) { s.opts.MeterProvider = nil },
		"metrics": func(s *setup) { s.opts.TracerProvider = nil },
		"broken":  func(s *setup) { s.opts.MeterProvider = &recorder{broken: true} },
	} {
		t.Run(name, func(t *testing.T) {
			r := new(recorder)
			rig := telemetryRig(t, r, change)
			if _, err := rig.CreateVolume(t.Context(), createReq("pvc")); err != nil {
				t.Fatal(err)
			}
			if name != "metrics" {
				r.one(t, "csi.v1.Controller/CreateVolume")
			} else if got := len(r.ended("csi.v1.Controller/CreateVolume")); got != 0 {
				t.Errorf("%d spans", got)
			}
			if name == "metrics" {
				r.wait(t, "csikit.operation.duration", 1)
			} else if got := len(r.measured("csikit.operation.duration")); got != 0 {
				t.Errorf("%d durations", got)
			}
			if name == "broken" && !strings.Contains(rig.log.String(), "no such metric") {
				t.Error("the log does not say so")
			}
		})
	}
}

// TestTelemetryOff: without providers there is nothing in the chain, nothing
// around an operation, no observer of commands.
func TestTelemetryOff(t *testing.T) {
	s := NewServer(nil, new(fakeServices).register)
	unary, stream := s.interceptors()
	if s.telemetry != nil || len(unary) != 1 || len(stream) != 1 {
		t.Errorf("telemetry %v, %d and %d interceptors", s.telemetry, len(unary), len(stream))
	}
	d, err := New(Config{Name: "a.b", Traits: memoryTraits(), Controller: newMemory()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d.telemetry != nil || CommandObserver(nil, nil) != nil || d.engineOptions().Command != nil {
		t.Error("telemetry that nobody asked for")
	}
}
