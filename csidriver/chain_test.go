package csidriver

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

// chain is one NodePublishVolume through csikit's interceptors.
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
	return func() error {
		_, err := s.unary(ctx, req, info, handler)
		return err
	}
}

// TestChainAllocations: with logging off nothing is put together for it.
func TestChainAllocations(t *testing.T) {
	call := chain(t.Context(), &ServerOptions{Logger: slog.New(slog.DiscardHandler), LogRequests: true})
	got := testing.AllocsPerRun(100, func() {
		if err := call(); err != nil {
			t.Fatal(err)
		}
	})
	if got > 1 {
		t.Errorf("%v allocations, want 1: the call", got)
	}
}

func benchmarkChain(b *testing.B, o *ServerOptions) {
	call := chain(b.Context(), o)
	b.ReportAllocs()
	for b.Loop() {
		if err := call(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChain(b *testing.B) {
	b.Run("LogOff", func(b *testing.B) {
		benchmarkChain(b, &ServerOptions{Logger: slog.New(slog.DiscardHandler)})
	})
	b.Run("LogRPC", func(b *testing.B) {
		benchmarkChain(b, &ServerOptions{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	})
	b.Run("LogRequests", func(b *testing.B) {
		h := slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug})
		benchmarkChain(b, &ServerOptions{Logger: slog.New(h), LogRequests: true})
	})
}
