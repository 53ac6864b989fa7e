package csidriver

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/csikit/csikit/backends/command"
)

// CommandObserver is for the command.Runner of a backend: it makes a span and a
// duration of each run of a host tool, as csidriver does for those of the node
// engine. Without providers it is nil, which command.Options takes.
func CommandObserver(tp trace.TracerProvider, mp metric.MeterProvider) func(command.Event) {
	s := newSource(tp, mp, slog.Default())
	if s == nil {
		return nil
	}
	t := commandTelemetry{tracer: s.tracer, duration: s.duration("csikit.command.duration", "Duration of host tools.")}
	return t.observe
}

type commandTelemetry struct {
	tracer   trace.Tracer
	duration metric.Float64Histogram
}

// observe is told when the tool has ended. It takes the name and the exit code;
// arguments and output are not for strangers.
func (t commandTelemetry) observe(e command.Event) {
	ctx := e.Context
	if ctx == nil {
		ctx = context.Background()
	}
	attrs := attribute.NewSet(keyTool.String(filepath.Base(e.Path)), keyExit.Int(e.Code))
	end := time.Now()
	_, span := t.tracer.Start(ctx, filepath.Base(e.Path), trace.WithTimestamp(end.Add(-e.Elapsed)), trace.WithAttributes(attrs.ToSlice()...))
	if e.Err != nil {
		span.SetStatus(otelcodes.Error, "")
	}
	span.End(trace.WithTimestamp(end))
	t.duration.Record(ctx, e.Elapsed.Seconds(), metric.WithAttributeSet(attrs))
}
