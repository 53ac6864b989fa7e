package walk

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/internal/csiclient"
	"github.com/csikit/csikit/mounter/mnt"
)

// fake is a driver that advertises what a test wants, keeps a log of its RPCs,
// and goes wrong where it is told to. It mounts directories, if at all.
type fake struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer

	expansion  []csi.PluginCapability_VolumeExpansion_Type
	controller []csi.ControllerServiceCapability_RPC_Type
	node       []csi.NodeServiceCapability_RPC_Type
	store      string // where volumes lie; "": nothing is mounted

	mu      sync.Mutex
	calls   []string
	volumes map[string]int64 // by name, which is the ID too
	places  map[string]bool  // staged and published paths, attached nodes
	fail    func(method string, n int) error
	count   map[string]int
	twice   bool // a repeated CreateVolume makes another volume
}

var basic = []csi.ControllerServiceCapability_RPC_Type{csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}

// start serves f and gives a client of it.
func (f *fake) start(t *testing.T) *grpc.ClientConn {
	t.Helper()
	f.volumes, f.places, f.count = map[string]int64{}, map[string]bool{}, map[string]int{}
	if f.controller == nil {
		f.controller = basic
	}
	path := filepath.Join(t.TempDir(), "csi.sock")
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnaryInterceptor(f.intercept))
	csi.RegisterIdentityServer(s, f)
	csi.RegisterControllerServer(s, f)
	csi.RegisterNodeServer(s, f)
	go func() { _ = s.Serve(lis) }()
	t.Cleanup(s.Stop)
	conn, err := csiclient.Dial("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// intercept lets the RPC do its work and answers something else then, if it is
// to fail: the worst case.
func (f *fake) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := filepath.Base(info.FullMethod)
	f.calls = append(f.calls, name)
	f.count[name]++
	resp, err := h(ctx, req)
	if err == nil && f.fail != nil {
		err = f.fail(name, f.count[name])
	}
	return resp, err
}

func (f *fake) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: "fake.example.com"}, nil
}

func (f *fake) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	r := &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{{Type: &csi.PluginCapability_Service_{
		Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE}}}}}
	for _, e := range f.expansion {
		r.Capabilities = append(r.Capabilities, &csi.PluginCapability{Type: &csi.PluginCapability_VolumeExpansion_{
			VolumeExpansion: &csi.PluginCapability_VolumeExpansion{Type: e}}})
	}
	return r, nil
}

func (f *fake) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	r := new(csi.ControllerGetCapabilitiesResponse)
	for _, c := range f.controller {
		r.Capabilities = append(r.Capabilities, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{
			Rpc: &csi.ControllerServiceCapability_RPC{Type: c}}})
	}
	return r, nil
}

func (f *fake) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	r := new(csi.NodeGetCapabilitiesResponse)
	for _, c := range f.node {
		r.Capabilities = append(r.Capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{
			Rpc: &csi.NodeServiceCapability_RPC{Type: c}}})
	}
	return r, nil
}

func (f *fake) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "node-1"}, nil
}

func (f *fake) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	id := r.GetName()
	if _, there := f.volumes[id]; there && f.twice {
		id += "-again"
	}
	f.volumes[id] = r.GetCapacityRange().GetRequiredBytes()
	if f.store != "" {
		if err := os.MkdirAll(filepath.Join(f.store, id), 0o750); err != nil {
			return nil, err
		}
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: id, CapacityBytes: f.volumes[id]}}, nil
}

func (f *fake) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if len(f.places) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "in use: %v", f.places)
	}
	delete(f.volumes, r.GetVolumeId())
	return new(csi.DeleteVolumeResponse), nil
}

func (f *fake) ValidateVolumeCapabilities(_ context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: r.GetVolumeCapabilities()}}, nil
}

func (f *fake) ListVolumes(_ context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	if r.GetStartingToken() == "" {
		return &csi.ListVolumesResponse{Entries: []*csi.ListVolumesResponse_Entry{{Volume: &csi.Volume{VolumeId: "other"}}}, NextToken: "2"}, nil
	}
	resp := new(csi.ListVolumesResponse)
	for id := range f.volumes {
		resp.Entries = append(resp.Entries, &csi.ListVolumesResponse_Entry{Volume: &csi.Volume{VolumeId: id}})
	}
	return resp, nil
}

func (f *fake) ControllerExpandVolume(_ context.Context, r *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	if len(f.places) > 0 && slices.Contains(f.expansion, csi.PluginCapability_VolumeExpansion_OFFLINE) {
		return nil, status.Error(codes.FailedPrecondition, "in use")
	}
	f.volumes[r.GetVolumeId()] = r.GetCapacityRange().GetRequiredBytes()
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: r.GetCapacityRange().GetRequiredBytes(), NodeExpansionRequired: true}, nil
}

func (f *fake) ControllerPublishVolume(_ context.Context, r *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	f.places[r.GetNodeId()] = true
	return &csi.ControllerPublishVolumeResponse{PublishContext: map[string]string{"lun": "7"}}, nil
}

func (f *fake) ControllerUnpublishVolume(_ context.Context, r *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	delete(f.places, r.GetNodeId())
	return new(csi.ControllerUnpublishVolumeResponse), nil
}

func (f *fake) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	f.places[r.GetStagingTargetPath()] = true
	return new(csi.NodeStageVolumeResponse), nil
}

func (f *fake) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	delete(f.places, r.GetStagingTargetPath())
	return new(csi.NodeUnstageVolumeResponse), nil
}

func (f *fake) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if slices.Contains(f.controller, csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME) && r.GetPublishContext()["lun"] != "7" {
		return nil, status.Error(codes.InvalidArgument, "no lun")
	}
	if f.store != "" && !f.places[r.GetTargetPath()] {
		err := errors.Join(os.Mkdir(r.GetTargetPath(), 0o750),
			mnt.Bind(filepath.Join(f.store, r.GetVolumeId()), r.GetTargetPath(), mnt.BindOptions{ReadOnly: r.GetReadonly()}))
		if err != nil {
			return nil, err
		}
	}
	f.places[r.GetTargetPath()] = true
	return new(csi.NodePublishVolumeResponse), nil
}

func (f *fake) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if f.store != "" {
		_, err := mnt.Unmount(r.GetTargetPath())
		if err := errors.Join(err, os.Remove(r.GetTargetPath())); err != nil {
			return nil, err
		}
	}
	delete(f.places, r.GetTargetPath())
	return new(csi.NodeUnpublishVolumeResponse), nil
}

func (f *fake) NodeExpandVolume(context.Context, *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	return new(csi.NodeExpandVolumeResponse), nil
}

func (f *fake) NodeGetVolumeStats(_ context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{Unit: csi.VolumeUsage_BYTES, Total: f.volumes[r.GetVolumeId()]}}}, nil
}
