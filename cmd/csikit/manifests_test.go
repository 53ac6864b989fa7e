package main

import (
	"context"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestManifestsUnready: what a driver can do does not need its storage, which is
// seldom where manifests are made.
func TestManifestsUnready(t *testing.T) {
	name := "odd.example.com"
	endpoint := serveOdd(t, grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		switch req.(type) {
		case *csi.ProbeRequest:
			return &csi.ProbeResponse{Ready: wrapperspb.Bool(false)}, nil
		case *csi.GetPluginInfoRequest:
			return &csi.GetPluginInfoResponse{Name: name}, nil
		}
		return h(ctx, req)
	}))
	var out strings.Builder
	if err := manifestsCommand(t.Context(), []string{"-endpoint", endpoint, "-image", "x"}, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "kind: CSIDriver\nmetadata:\n  name: odd.example.com\n") {
		t.Error(out.String())
	}
}
