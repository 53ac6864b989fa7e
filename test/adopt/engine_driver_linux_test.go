package adopt

import (
	"context"
	"errors"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// engineDriver is a driver with a node service of its own, and of csikit the node
// engine alone.
type engineDriver struct {
	csi.UnimplementedNodeServer
	engine *mounter.Engine
}

// diskNode says where a volume is on this node: all that the engine needs.
type diskNode struct{ disks *disks }

func (n diskNode) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	if !n.disks.exists(req.ID) {
		return nil, backends.VolumeNotFound(req.ID)
	}
	path, err := n.disks.attach(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	dev, ino := n.disks.inode(req.ID)
	return &backends.Source{Device: &backends.Device{
		Path: path, Identity: backends.Identity{BackingDev: dev, BackingIno: ino},
	}}, nil
}

func (n diskNode) CloseVolume(ctx context.Context, req backends.CloseVolumeRequest) error {
	return n.disks.detach(ctx, req.ID)
}

func newEngineDriver(ctx context.Context, d *disks, stateDir string) (*engineDriver, error) {
	engine, err := mounter.New(diskNode{d}, &mounter.Options{StateDir: stateDir})
	if err != nil {
		return nil, err
	}
	return &engineDriver{engine: engine}, engine.Start(ctx)
}

func (d *engineDriver) Close() error { return d.engine.Close() }

func (d *engineDriver) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	return &csi.NodeStageVolumeResponse{}, coded(d.engine.Stage(ctx, mounter.StageRequest{
		ID: req.GetVolumeId(), Path: req.GetStagingTargetPath(), Capability: capability(req.GetVolumeCapability()),
		Context: req.GetVolumeContext(), PublishContext: req.GetPublishContext(), Secrets: backends.NewSecrets(req.GetSecrets()),
	}))
}

func (d *engineDriver) NodeUnstageVolume(ctx context.Context, req *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return &csi.NodeUnstageVolumeResponse{}, coded(d.engine.Unstage(ctx, mounter.UnstageRequest{
		ID: req.GetVolumeId(), Path: req.GetStagingTargetPath(),
	}))
}

func (d *engineDriver) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	return &csi.NodePublishVolumeResponse{}, coded(d.engine.Publish(ctx, mounter.PublishRequest{
		ID: req.GetVolumeId(), StagingPath: req.GetStagingTargetPath(), Path: req.GetTargetPath(),
		Capability: capability(req.GetVolumeCapability()), ReadOnly: req.GetReadonly(), Context: req.GetVolumeContext(),
	}))
}

func (d *engineDriver) NodeUnpublishVolume(ctx context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	return &csi.NodeUnpublishVolumeResponse{}, coded(d.engine.Unpublish(ctx, mounter.UnpublishRequest{
		ID: req.GetVolumeId(), Path: req.GetTargetPath(),
	}))
}

func (d *engineDriver) NodeGetVolumeStats(ctx context.Context, req *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	s, err := d.engine.Stats(ctx, mounter.StatsRequest{ID: req.GetVolumeId(), Path: req.GetVolumePath(), StagingPath: req.GetStagingTargetPath()})
	if err != nil {
		return nil, coded(err)
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{Unit: csi.VolumeUsage_BYTES, Total: s.Total, Available: s.Available, Used: s.Used}}}, nil
}

func capability(c *csi.VolumeCapability) backends.Capability {
	modes := map[csi.VolumeCapability_AccessMode_Mode]backends.AccessMode{
		csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER:      backends.SingleNodeWriter,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY: backends.SingleNodeReader,
	}
	return backends.Capability{
		Mode: modes[c.GetAccessMode().GetMode()], Block: c.GetBlock() != nil,
		FSType: c.GetMount().GetFsType(), Flags: backends.NewFlags(c.GetMount().GetMountFlags()...),
	}
}

// coded gives the engine's kinds of errors the codes that CSI has for them.
func coded(err error) error {
	if err == nil {
		return nil
	}
	code := codes.Unavailable // the kubelet tries again
	for _, k := range []struct {
		kind error
		code codes.Code
	}{
		{backends.ErrPending, codes.Aborted},
		{backends.ErrUnavailable, codes.Unavailable},
		{backends.ErrIncompatible, codes.AlreadyExists},
		{backends.ErrInUse, codes.FailedPrecondition},
		{backends.ErrPrecondition, codes.FailedPrecondition},
		{backends.ErrInvalid, codes.InvalidArgument},
		{backends.ErrNotFound, codes.NotFound},
	} {
		if errors.Is(err, k.kind) {
			code = k.code
			break
		}
	}
	return status.Error(code, err.Error())
}
