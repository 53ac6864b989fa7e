package csidriver

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// rpcTelemetry is a span and a duration for each RPC. It runs outside of all
// other interceptors, so that it sees what the CO gets.
type rpcTelemetry struct {
	tracer   trace.Tracer
	duration metric.Float64Histogram
}

func newRPCTelemetry(s *source) *rpcTelemetry {
	if s == nil {
		return nil
	}
	return &rpcTelemetry{tracer: s.tracer, duration: s.duration("rpc.server.call.duration", "Duration of RPCs.")}
}

// interceptors puts those of s and of its user in order.
func (s *Server) interceptors() (unary []grpc.UnaryServerInterceptor, stream []grpc.StreamServerInterceptor) {
	if t := s.telemetry; t != nil {
		unary, stream = append(unary, t.unary), append(stream, t.stream)
	}
	unary = append(append(unary, s.unary), s.opts.UnaryInterceptors...)
	stream = append(append(stream, s.stream), s.opts.StreamInterceptors...)
	return unary, stream
}

// observedRPC is an RPC that runs.
type observedRPC struct {
	t      *rpcTelemetry
	ctx    context.Context
	span   trace.Span
	method string // without the first slash
	start  time.Time
}

func (t *rpcTelemetry) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	r := t.begin(ctx, info.FullMethod)
	r.describe(req)
	resp, err := handler(r.ctx, req)
	r.describeAnswer(resp)
	r.end(err)
	return resp, err
}

func (t *rpcTelemetry) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	r := t.begin(ss.Context(), info.FullMethod)
	err := handler(srv, &observedStream{ss, r})
	r.end(err)
	return err
}

// observedStream has the context with the span, and notes the request.
type observedStream struct {
	grpc.ServerStream
	r *observedRPC
}

func (s *observedStream) Context() context.Context { return s.r.ctx }

func (s *observedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil {
		s.r.describe(m)
	}
	return err
}

// begin makes the span a child of the caller's, if the metadata names one (W3C
// Trace Context).
func (t *rpcTelemetry) begin(ctx context.Context, full string) *observedRPC {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = propagation.TraceContext{}.Extract(ctx, carrier(md))
	}
	r := &observedRPC{t: t, method: strings.TrimPrefix(full, "/"), start: time.Now()}
	r.ctx, r.span = t.tracer.Start(ctx, r.method, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attrSystem, keyMethod.String(r.method)))
	return r
}

// describe says what the request is about.
func (r *observedRPC) describe(req any) {
	if !r.span.IsRecording() {
		return
	}
	if attr, id := subject(req); id != "" {
		r.span.SetAttributes(subjectKeys[attr].String(id))
	}
}

// describeAnswer adds the ID that CreateVolume, or CreateSnapshot, gave.
func (r *observedRPC) describeAnswer(resp any) {
	if !r.span.IsRecording() {
		return
	}
	switch m := resp.(type) {
	case *csi.CreateVolumeResponse:
		r.span.SetAttributes(subjectKeys["volume"].String(clip(m.GetVolume().GetVolumeId(), maxLogged)))
	case *csi.CreateSnapshotResponse:
		r.span.SetAttributes(subjectKeys["snapshot"].String(clip(m.GetSnapshot().GetSnapshotId(), maxLogged)))
	case *csi.CreateVolumeGroupSnapshotResponse:
		r.span.SetAttributes(subjectKeys["group_snapshot"].String(clip(m.GetGroupSnapshot().GetGroupSnapshotId(), maxLogged)))
	}
}

func (r *observedRPC) end(err error) {
	st := status.Convert(err)
	code := keyCode.String(st.Code().String())
	r.span.SetAttributes(code)
	if atFault(st.Code()) {
		r.span.SetStatus(otelcodes.Error, st.Message()) // clean of secrets: it goes to the CO
	}
	r.span.End()
	r.t.duration.Record(r.ctx, seconds(r.start), metric.WithAttributeSet(attribute.NewSet(attrSystem, keyMethod.String(r.method), code)))
}

// carrier reads trace context out of metadata.
type carrier metadata.MD

func (c carrier) Get(key string) string {
	if v := metadata.MD(c).Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}
func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }
func (c carrier) Keys() []string        { return slices.Collect(maps.Keys(c)) }
