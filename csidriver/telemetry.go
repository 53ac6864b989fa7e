package csidriver

import (
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// Telemetry goes through the API packages of OpenTelemetry: what becomes of it
// is up to the providers that a driver's main gives. Where the semantic
// conventions have a name for something it is used.
//
// Spans carry IDs of volumes, metrics do not: there is a time series for each
// value. Neither carries anything else of a request, and no text of an error but
// one that is clean of the request's secrets.
const (
	instrumentation = "github.com/csikit/csikit/csidriver"

	keyMethod    = attribute.Key("rpc.method") // csi.v1.Node/NodeStageVolume
	keyCode      = attribute.Key("rpc.response.status_code")
	keyOperation = attribute.Key("csikit.operation") // NodeStageVolume
	keyEvent     = attribute.Key("csikit.event")
	keyRequestID = attribute.Key("csikit.request_id")
	keyTool      = attribute.Key("process.executable.name")
	keyExit      = attribute.Key("process.exit.code")
)

var attrSystem = attribute.String("rpc.system.name", "grpc")

// subjectKeys are the attributes of what subject finds in a request.
var subjectKeys = map[string]attribute.Key{
	"volume":         "csi.volume.id",
	"snapshot":       "csi.snapshot.id",
	"group_snapshot": "csi.group_snapshot.id",
	"name":           "csi.name",
}

// buckets of durations in seconds: a mount takes milliseconds, a clone minutes.
var buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 1200}

// source makes spans and instruments; what there is no provider for does
// nothing.
type source struct {
	tracer trace.Tracer
	meter  metric.Meter
	logger *slog.Logger
}

// newSource answers nil when there is neither provider.
func newSource(tp trace.TracerProvider, mp metric.MeterProvider, logger *slog.Logger) *source {
	if tp == nil && mp == nil {
		return nil
	}
	if tp == nil {
		tp = tracenoop.NewTracerProvider()
	}
	if mp == nil {
		mp = metricnoop.NewMeterProvider()
	}
	return &source{
		tracer: tp.Tracer(instrumentation, trace.WithInstrumentationVersion(buildVersion())),
		meter:  mp.Meter(instrumentation, metric.WithInstrumentationVersion(buildVersion())),
		logger: logger,
	}
}

// duration is a histogram of seconds. A driver does not fail for lack of one.
func (s *source) duration(name, what string) metric.Float64Histogram {
	h, err := s.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(buckets...))
	if s.failed(name, err) || h == nil {
		return metricnoop.Float64Histogram{}
	}
	return h
}

func (s *source) failed(name string, err error) bool {
	if err != nil {
		s.logger.Warn("no such metric", slog.String("name", name), slog.Any("error", err))
	}
	return err != nil
}

func seconds(since time.Time) float64 { return time.Since(since).Seconds() }
