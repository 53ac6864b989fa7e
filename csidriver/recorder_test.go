package csidriver

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// recorder is both providers of OpenTelemetry, made of its API: it keeps what it
// is told.
type recorder struct {
	metricnoop.MeterProvider
	mu     sync.Mutex
	spans  []*recordedSpan
	points []point
	next   byte
	broken bool // makes no instruments
}

// point is one measurement.
type point struct {
	name  string
	value float64
	attrs attribute.Set
}

func (r *recorder) add(name string, value float64, attrs attribute.Set) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.points = append(r.points, point{name, value, attrs})
}

// measured gives the measurements of an instrument.
func (r *recorder) measured(name string) (found []point) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.points {
		if p.name == name {
			found = append(found, p)
		}
	}
	return found
}

// wait waits for n measurements: an operation may end after its RPC.
func (r *recorder) wait(t *testing.T, name string, n int) []point {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if found := r.measured(name); len(found) >= n {
			return found
		}
	}
	t.Fatalf("%s: %d measurements, want %d", name, len(r.measured(name)), n)
	return nil
}

// ended gives the spans of a name that have ended, and a copy of each.
func (r *recorder) ended(name string) (found []recordedSpan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if s.name == name && s.done {
			found = append(found, *s)
		}
	}
	return found
}

// one waits for the span of a name: an operation may end after its RPC.
func (r *recorder) one(t *testing.T, name string) recordedSpan {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if found := r.ended(name); len(found) == 1 {
			return found[0]
		} else if len(found) > 1 {
			t.Fatalf("%d spans %q", len(found), name)
		}
	}
	t.Fatalf("no span %q", name)
	return recordedSpan{}
}

// tracers is r as a TracerProvider.
type tracers struct {
	tracenoop.TracerProvider
	r *recorder
}

func (p tracers) Tracer(string, ...trace.TracerOption) trace.Tracer { return recordingTracer{r: p.r} }

type recordingTracer struct {
	tracenoop.Tracer
	r *recorder
}

type recordedSpan struct {
	tracenoop.Span
	r      *recorder
	name   string
	self   trace.SpanContext
	parent trace.SpanContext
	kind   trace.SpanKind
	start  time.Time
	end    time.Time
	attrs  map[attribute.Key]string
	status otelcodes.Code
	text   string
	done   bool
}

func (t recordingTracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	cfg := trace.NewSpanStartConfig(opts...)
	s := &recordedSpan{r: t.r, name: name, parent: trace.SpanContextFromContext(ctx), kind: cfg.SpanKind(), start: cfg.Timestamp(), attrs: map[attribute.Key]string{}}
	t.r.mu.Lock()
	t.r.next++
	t.r.spans = append(t.r.spans, s)
	id := trace.SpanContextConfig{TraceID: s.parent.TraceID(), SpanID: trace.SpanID{t.r.next}, TraceFlags: trace.FlagsSampled}
	t.r.mu.Unlock()
	if !s.parent.IsValid() {
		id.TraceID = trace.TraceID{1, t.r.next}
	}
	s.self = trace.NewSpanContext(id)
	s.SetAttributes(cfg.Attributes()...)
	return trace.ContextWithSpan(ctx, s), s
}

func (s *recordedSpan) SpanContext() trace.SpanContext { return s.self }
func (s *recordedSpan) IsRecording() bool              { return true }

func (s *recordedSpan) SetAttributes(attrs ...attribute.KeyValue) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	for _, a := range attrs {
		s.attrs[a.Key] = a.Value.String()
	}
}

func (s *recordedSpan) SetStatus(c otelcodes.Code, text string) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.status, s.text = c, text
}

func (s *recordedSpan) End(opts ...trace.SpanEndOption) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	cfg := trace.NewSpanEndConfig(opts...)
	s.end, s.done = cfg.Timestamp(), true
}

func (r *recorder) Meter(string, ...metric.MeterOption) metric.Meter { return recordingMeter{r: r} }

type recordingMeter struct {
	metricnoop.Meter
	r *recorder
}

type instrument struct {
	metricnoop.Float64Histogram
	r    *recorder
	name string
}

type counter struct {
	metricnoop.Int64Counter
	r    *recorder
	name string
}

type upDown struct {
	metricnoop.Int64UpDownCounter
	r    *recorder
	name string
}

var errNoInstrument = errors.New("no instrument")

func (m recordingMeter) err() error {
	if m.r.broken {
		return errNoInstrument
	}
	return nil
}

func (m recordingMeter) Float64Histogram(name string, _ ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return instrument{r: m.r, name: name}, m.err()
}

func (m recordingMeter) Int64Counter(name string, _ ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return counter{r: m.r, name: name}, m.err()
}

func (m recordingMeter) Int64UpDownCounter(name string, _ ...metric.Int64UpDownCounterOption) (metric.Int64UpDownCounter, error) {
	return upDown{r: m.r, name: name}, m.err()
}

func (i instrument) Record(_ context.Context, v float64, o ...metric.RecordOption) {
	i.r.add(i.name, v, metric.NewRecordConfig(o).Attributes())
}

func (c counter) Add(_ context.Context, v int64, o ...metric.AddOption) {
	c.r.add(c.name, float64(v), metric.NewAddConfig(o).Attributes())
}

func (c upDown) Add(_ context.Context, v int64, o ...metric.AddOption) {
	c.r.add(c.name, float64(v), metric.NewAddConfig(o).Attributes())
}

var (
	attributeEncoder = attribute.DefaultEncoder()
	noopTracers      = tracenoop.NewTracerProvider()
	noopMeters       = metricnoop.NewMeterProvider()
)
