package suite

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/mnt"
	"github.com/csikit/csikit/sanity/internal/check"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// odd is a driver of the spec that is unusual.
type odd struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer

	share  string // what volume_context names, and is mounted; "": nothing is mounted
	layers int    // mounts at a target
	call   time.Duration

	mu   sync.Mutex
	busy map[string]bool
}

func (o *odd) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: "odd.example.com", VendorVersion: "1"}, nil
}

func (o *odd) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

func (o *odd) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (o *odd) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{{Type: &csi.ControllerServiceCapability_Rpc{
		Rpc: &csi.ControllerServiceCapability_RPC{Type: csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}}}}}, nil
}

func (o *odd) CreateVolume(_ context.Context, q *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: q.GetName(), CapacityBytes: 1 << 30, VolumeContext: q.GetParameters()}}, nil
}

func (o *odd) DeleteVolume(context.Context, *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	return &csi.DeleteVolumeResponse{}, nil
}

func (o *odd) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{{Type: &csi.NodeServiceCapability_Rpc{
		Rpc: &csi.NodeServiceCapability_RPC{Type: csi.NodeServiceCapability_RPC_GET_VOLUME_STATS}}}}}, nil
}

func (o *odd) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "node"}, nil
}

// enter refuses the second of two calls for a volume.
func (o *odd) enter(id string) (leave func(), err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.busy[id] {
		return nil, status.Errorf(codes.Aborted, "an operation for %q is pending", id)
	}
	o.busy[id] = true
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.busy, id)
	}, nil
}

func (o *odd) NodePublishVolume(_ context.Context, q *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if o.share != "" && q.GetVolumeContext()["share"] != o.share {
		return nil, status.Error(codes.InvalidArgument, "volume_context: share is missing")
	}
	if err := os.Mkdir(q.GetTargetPath(), 0o755); err != nil && !os.IsExist(err) {
		return nil, err
	}
	for have, err := mnt.At(q.GetTargetPath()); o.share != "" && len(have) < o.layers; have, err = mnt.At(q.GetTargetPath()) {
		if err != nil {
			return nil, err
		}
		if err := mnt.Bind(o.share, q.GetTargetPath(), mnt.BindOptions{}); err != nil {
			return nil, err
		}
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (o *odd) NodeUnpublishVolume(_ context.Context, q *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	leave, err := o.enter(q.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer leave()
	if _, err := mnt.Unwind(q.GetTargetPath()); err != nil {
		return nil, err
	}
	if err := os.Remove(q.GetTargetPath()); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (o *odd) NodeGetVolumeStats(ctx context.Context, q *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	leave, err := o.enter(q.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer leave()
	select {
	case <-time.After(o.call):
	case <-ctx.Done():
	}
	if _, err := os.Lstat(q.GetVolumePath()); err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{Unit: csi.VolumeUsage_BYTES, Total: 1 << 30}}}, nil
}

type quiet struct{}

func (quiet) Begin(string)     {}
func (quiet) End(check.Result) {}

// valid runs one check against a driver that is within the spec.
func valid(t *testing.T, o *odd, id string) {
	t.Helper()
	o.busy = map[string]bool{}
	dir, err := os.MkdirTemp("", "c") //nolint:usetesting // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) }) // the socket is gone with its server
	lis, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	csi.RegisterIdentityServer(s, o)
	csi.RegisterControllerServer(s, o)
	csi.RegisterNodeServer(s, o)
	go func() { _ = s.Serve(lis) }()
	defer s.Stop()
	at := "unix://" + lis.Addr().String()
	results, _, err := check.Run(t.Context(), check.Config{
		Node: at, Controller: at, Size: 1 << 30, CallTimeout: time.Minute, Dir: t.TempDir(), Host: true, Only: []string{id},
		Parameters: map[string]string{"share": o.share}, Reproduce: func(string) string { return "" },
	}, All(), quiet{})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(results, func(r check.Result) bool { return r.ID == id })
	if i < 0 {
		t.Fatalf("%s was not run", id)
	}
	if r := results[i]; r.Verdict != check.Pass && r.Verdict != check.Warn {
		t.Errorf("%s: %v %s", id, r.Verdict, r.Message)
	}
}

// TestInlineByName: inline volumes whose attributes name storage that is there are one
// directory, and nothing is left in it.
func TestInlineByName(t *testing.T) {
	testenv.Root(t)
	share := t.TempDir()
	valid(t, &odd{share: share, layers: 1}, "H-29/kubelet/ephemeral")
	left, err := os.ReadDir(share)
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left in what the attributes name: %v", left, err)
	}
}

// TestTwoLayers: a driver may have two mounts at a target, as long as they get no more.
func TestTwoLayers(t *testing.T) {
	testenv.Root(t)
	valid(t, &odd{share: t.TempDir(), layers: 2}, "H-29/kubelet/republish")
}

// TestOneCallAtATime: statistics that take long keep a driver busy that refuses the second
// call for a volume, for as long as somebody asks for them all the time.
func TestOneCallAtATime(t *testing.T) {
	testenv.Root(t)
	valid(t, &odd{call: 50 * time.Millisecond}, "H-29/kubelet/stats-unpublish")
}
