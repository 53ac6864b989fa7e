package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/mounter"
)

// idle serves what a bare gRPC server needs to be compared with: it answers and
// does nothing.
type idle struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	pages idlePages
}

// idlePages are the pages of a list by the tokens that ask for them.
type idlePages map[string]*csi.ListVolumesResponse

func (*idle) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

func (*idle) NodePublishVolume(context.Context, *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	return &csi.NodePublishVolumeResponse{}, nil
}

func (s *idle) ListVolumes(_ context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	return s.pages[r.GetStartingToken()], nil
}

// csiServer is all that a bare server serves.
type csiServer interface {
	csi.IdentityServer
	csi.ControllerServer
	csi.NodeServer
}

// idleEngine is a node engine that does nothing: what is left is the driver.
type idleEngine struct{}

func (idleEngine) Start(context.Context) error                               { return nil }
func (idleEngine) Stage(context.Context, mounter.StageRequest) error         { return nil }
func (idleEngine) Unstage(context.Context, mounter.UnstageRequest) error     { return nil }
func (idleEngine) Publish(context.Context, mounter.PublishRequest) error     { return nil }
func (idleEngine) Unpublish(context.Context, mounter.UnpublishRequest) error { return nil }
func (idleEngine) InUse(string) (path string, used bool)                     { return "", false }
func (idleEngine) Release(context.Context, string) error                     { return nil }
func (idleEngine) State(string) []byte                                       { return nil }
func (idleEngine) OwnID(id string) string                                    { return id }
func (idleEngine) Close() error                                              { return nil }

func (idleEngine) Health(context.Context, mounter.HealthRequest) ([]backends.Health, error) {
	return nil, nil
}

func (idleEngine) Expand(context.Context, mounter.ExpandRequest) (int64, error) { return 0, nil }

func (idleEngine) Stats(context.Context, mounter.StatsRequest) (*mounter.Stats, error) {
	return &mounter.Stats{}, nil
}

// served is a server in this process, and a connection to it.
type served struct {
	*grpc.ClientConn
	stop func() error
}

// serveBare serves by grpc-go alone.
func serveBare(ctx context.Context, dir, name string, s csiServer, o ...grpc.ServerOption) (*served, error) {
	path := filepath.Join(dir, name)
	lis, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	g := grpc.NewServer(o...)
	csi.RegisterIdentityServer(g, s)
	csi.RegisterControllerServer(g, s)
	csi.RegisterNodeServer(g, s)
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(lis) }()
	return connect(path, func() error {
		g.Stop()
		return <-ended
	})
}

// serveCSI serves by csikit: a Server or a Driver.
func serveCSI(ctx context.Context, dir, name string, serve func(context.Context, net.Listener) error) (*served, error) {
	path := filepath.Join(dir, name)
	lis, err := csidriver.Listen("unix://"+path, 0)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, lis) }()
	return connect(path, func() error {
		cancel()
		return <-ended
	})
}

func connect(path string, stop func() error) (*served, error) {
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return &served{conn, func() error { return errors.Join(conn.Close(), stop()) }}, nil
}
