package csidriver

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// fakeServices are CSI services whose few methods a test writes.
type fakeServices struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	csi.UnimplementedSnapshotMetadataServer
	stage     func(context.Context, *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error)
	stats     func(context.Context, *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error)
	allocated func(*csi.GetMetadataAllocatedRequest, csi.SnapshotMetadata_GetMetadataAllocatedServer) error
}

func (f *fakeServices) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (f *fakeServices) NodeStageVolume(ctx context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	return f.stage(ctx, r)
}

func (f *fakeServices) NodeGetVolumeStats(ctx context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	return f.stats(ctx, r)
}

func (f *fakeServices) GetMetadataAllocated(r *csi.GetMetadataAllocatedRequest, s csi.SnapshotMetadata_GetMetadataAllocatedServer) error {
	return f.allocated(r, s)
}

func (f *fakeServices) register(g grpc.ServiceRegistrar) {
	csi.RegisterIdentityServer(g, f)
	csi.RegisterNodeServer(g, f)
	csi.RegisterSnapshotMetadataServer(g, f)
}

// serveFake serves f on a socket of its own until stop is called, which gives
// what Serve answered.
func serveFake(t *testing.T, o *ServerOptions, f *fakeServices) (conn *grpc.ClientConn, stop func() error) {
	t.Helper()
	return serveWith(t, patient(), o, f)
}

func serveWith(t *testing.T, wait patience, o *ServerOptions, f *fakeServices) (conn *grpc.ClientConn, stop func() error) {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	path := filepath.Join(t.TempDir(), "csi.sock")
	lis, err := Listen("unix://"+path, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(o, f.register)
	s.patience = wait
	return connect(t, "unix://"+path, insecure.NewCredentials()), serve(t, s, lis)
}

func serve(t *testing.T, s *Server, lis net.Listener) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, lis) }()
	stopped := false
	stop = func() error {
		cancel()
		if stopped {
			return nil
		}
		stopped = true
		return <-served
	}
	t.Cleanup(func() { _ = stop() }) // what it answers is for the test that calls it
	return stop
}

func connect(t *testing.T, target string, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func probe(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	_, err := csi.NewIdentityClient(conn).Probe(t.Context(), &csi.ProbeRequest{})
	return err
}

// probeReady waits for the server to be there.
func probeReady(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	_, err := csi.NewIdentityClient(conn).Probe(t.Context(), &csi.ProbeRequest{}, grpc.WaitForReady(true))
	return err
}
