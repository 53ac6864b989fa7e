package csidriver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

// chain is one NodePublishVolume through csikit's interceptors, and those of o.
func chain(ctx context.Context, o *ServerOptions) (call func() error) {
	s := NewServer(o, new(fakeServices).register)
	req := &csi.NodePublishVolumeRequest{
		VolumeId: "pvc-4f0c", TargetPath: "/var/lib/kubelet/pods/x/volumes/y/mount", StagingTargetPath: "/var/lib/kubelet/plugins/z",
		Secrets:       map[string]string{"user": "u-canary", "password": "p-canary"},
		VolumeContext: map[string]string{"pool": "fast"},
		VolumeCapability: &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		},
	}
	resp := &csi.NodePublishVolumeResponse{}
	info := &grpc.UnaryServerInfo{FullMethod: csi.Node_NodePublishVolume_FullMethodName}
	handler := func(context.Context, any) (any, error) { return resp, nil }
	unary, _ := s.interceptors()
	for _, u := range slices.Backward(unary) {
		next := handler
		handler = func(ctx context.Context, req any) (any, error) { return u(ctx, req, info, next) }
	}
	return func() error {
		_, err := handler(ctx, req)
		return err
	}
}

// TestChainAllocations: with logging off nothing is put together for it.
func TestChainAllocations(t *testing.T) {
	call := chain(t.Context(), &ServerOptions{Logger: slog.New(slog.DiscardHandler), LogRequests: true})
	got := math.Inf(1)
	for range 5 { // what servers of earlier tests still do is counted with it
		got = min(got, testing.AllocsPerRun(100, func() {
			if err := call(); err != nil {
				t.Fatal(err)
			}
		}))
	}
	if got > 1 {
		t.Errorf("%v allocations, want 1: the call", got)
	}
}

// BenchmarkChain is what make bench prints of the interceptors.
func BenchmarkChain(b *testing.B) {
	quiet, r := slog.New(slog.DiscardHandler), new(recorder)
	lines := slog.New(slog.NewTextHandler(io.Discard, nil))
	all := slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, bb := range []struct {
		name string
		o    ServerOptions
	}{
		{"LogOff", ServerOptions{Logger: quiet}},
		{"LogRPC", ServerOptions{Logger: lines}},
		{"LogRequests", ServerOptions{Logger: all, LogRequests: true}},
		{"LogText", ServerOptions{Logger: quiet, UnaryInterceptors: []grpc.UnaryServerInterceptor{logText(all)}}},
		{"TelemetryOff", ServerOptions{Logger: quiet, TracerProvider: nil, MeterProvider: nil}},
		{"TelemetryNoop", ServerOptions{Logger: quiet, TracerProvider: noopTracers, MeterProvider: noopMeters}},
		{"TelemetryRecording", ServerOptions{Logger: quiet, TracerProvider: tracers{r: r}, MeterProvider: r}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			call := chain(b.Context(), &bb.o)
			median(b, func() {
				if err := call(); err != nil {
					b.Fatal(err)
				}
				r.spans, r.points = r.spans[:0], r.points[:0]
			})
		})
	}
}

// median reports the median time of op and not the mean, in which everything is
// that the machine does besides.
func median(b *testing.B, op func()) {
	const batch = 64 // the clock costs as much as a call
	op()
	times := make([]time.Duration, 0, 1<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for b.Loop() {
		begin := time.Now()
		for range batch {
			op()
		}
		if len(times) < cap(times) {
			times = append(times, time.Since(begin))
		}
	}
	runtime.ReadMemStats(&after)
	slices.Sort(times)
	n := float64(batch * b.N)
	b.ReportMetric(float64(times[len(times)/2])/batch, "ns/op")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/n, "B/op")
	b.ReportMetric(math.Round(float64(after.Mallocs-before.Mallocs)/n), "allocs/op")
}

// logText is the interceptor of many drivers: both messages in full, the secrets
// too.
func logText(l *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		l.Debug("request", "method", info.FullMethod, "request", fmt.Sprint(req))
		resp, err := handler(ctx, req)
		l.Debug("response", "method", info.FullMethod, "response", fmt.Sprint(resp), "error", err)
		return resp, err
	}
}
