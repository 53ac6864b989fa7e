package csidriver

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"

	"github.com/csikit/csikit/idempotency"
)

// operationTelemetry is a span and a duration for each operation, how many run,
// and how often calls meet.
//
// The metrics come of what the table tells its observer. The span is made where
// the work begins, for there is the context of the call that asked for it.
type operationTelemetry struct {
	tracer   trace.Tracer
	duration metric.Float64Histogram
	active   metric.Int64UpDownCounter
	stuck    metric.Int64UpDownCounter
	events   metric.Int64Counter
}

func newOperationTelemetry(s *source) *operationTelemetry {
	if s == nil {
		return nil
	}
	t := &operationTelemetry{
		tracer:   s.tracer,
		duration: s.duration("csikit.operation.duration", "Duration of operations, which may outlive their RPC."),
		active:   s.upDown("csikit.operation.active", "Operations that run."),
		stuck:    s.upDown("csikit.operation.stuck", "Operations that were cancelled and do not end: each keeps its volume locked."),
		events:   metricnoop.Int64Counter{},
	}
	const events = "csikit.operation.events"
	if c, err := s.meter.Int64Counter(events, metric.WithUnit("{event}"),
		metric.WithDescription("Calls that joined, waited for, gave up or cut off an operation, and operations that stall or are stuck.")); !s.failed(events, err) && c != nil {
		t.events = c
	}
	return t
}

func (s *source) upDown(name, description string) metric.Int64UpDownCounter {
	c, err := s.meter.Int64UpDownCounter(name, metric.WithUnit("{operation}"), metric.WithDescription(description))
	if s.failed(name, err) || c == nil {
		return metricnoop.Int64UpDownCounter{}
	}
	return c
}

// observe counts. The table's observers have no context.
func (t *operationTelemetry) observe(e *idempotency.Event) {
	name, _, _ := strings.Cut(e.Name, " ")
	attr, ctx := keyOperation.String(name), context.Background()
	switch e.Kind {
	case idempotency.EventStart:
		t.active.Add(ctx, 1, metric.WithAttributes(attr))
	case idempotency.EventDone:
		t.active.Add(ctx, -1, metric.WithAttributes(attr))
		if e.Stuck {
			t.stuck.Add(ctx, -1, metric.WithAttributes(attr))
		}
		t.duration.Record(ctx, e.Age.Seconds(), metric.WithAttributeSet(attribute.NewSet(attr, keyCode.String(outcome(name, e.Err)))))
	default:
		if e.Kind == idempotency.EventStuck {
			t.stuck.Add(ctx, 1, metric.WithAttributes(attr))
		}
		t.events.Add(ctx, 1, metric.WithAttributes(attr, keyEvent.String(e.Kind.String())))
	}
}

// kind is what an operation makes or changes, as subject calls it.
func kind(operation string) string {
	switch {
	case strings.HasSuffix(operation, "GroupSnapshot"):
		return "group_snapshot"
	case strings.HasSuffix(operation, "Snapshot"):
		return "snapshot"
	}
	return "volume"
}

// observed puts a span around the work of an operation; work does not panic.
func observed[T any](d *Driver, op idempotency.Operation, work func(context.Context) (T, error)) func(context.Context) (T, error) {
	return func(ctx context.Context) (T, error) {
		ctx, end := d.telemetry.start(ctx, &d.server.redact, op)
		v, err := work(ctx)
		end(err)
		return v, err
	}
}

// start begins the span of an operation; its error is cleaned of the request's
// secrets.
func (t *operationTelemetry) start(ctx context.Context, clean *redactor, op idempotency.Operation) (context.Context, func(error)) {
	name, _, _ := strings.Cut(op.Name, " ")
	ctx, span := t.tracer.Start(ctx, "operation "+name, trace.WithAttributes(keyOperation.String(name), keyRequestID.String(op.Owner)))
	a, _ := op.Request.(asked)
	if a.id != "" && span.IsRecording() {
		span.SetAttributes(subjectKeys[kind(name)].String(clip(a.id, maxLogged)))
	}
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(otelcodes.Error, clip(clean.scrub(a.message, err.Error()), maxText))
		}
		span.SetAttributes(keyCode.String(outcome(name, err)))
		span.End()
	}
}
