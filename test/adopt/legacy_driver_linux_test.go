package adopt

import (
	"context"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/mount-utils"
)

// legacyMounter is what drivers declare to put a fake in the place of
// mount.SafeFormatAndMount.
type legacyMounter interface {
	mount.Interface
	FormatAndMount(source, target, fstype string, options []string) error
}

var _ legacyMounter = (*mount.SafeFormatAndMount)(nil)

// legacyDriver is the node service that most drivers have: mount-utils, and no
// memory. It does not know that there is csikit.
type legacyDriver struct {
	csi.UnimplementedNodeServer
	mounter legacyMounter
	disks   *disks
}

func (d *legacyDriver) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	device, err := d.disks.attach(ctx, req.GetVolumeId())
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if req.GetVolumeCapability().GetBlock() != nil {
		return &csi.NodeStageVolumeResponse{}, nil
	}
	mounted, err := d.prepare(req.GetStagingTargetPath())
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if mounted {
		return &csi.NodeStageVolumeResponse{}, nil
	}
	m := req.GetVolumeCapability().GetMount()
	if err := d.mounter.FormatAndMount(device, req.GetStagingTargetPath(), m.GetFsType(), m.GetMountFlags()); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

// prepare makes the directory, and says whether something is mounted there.
func (d *legacyDriver) prepare(path string) (mounted bool, err error) {
	notMounted, err := d.mounter.IsLikelyNotMountPoint(path)
	if os.IsNotExist(err) {
		return false, os.MkdirAll(path, 0o750)
	}
	if mount.IsCorruptedMnt(err) {
		return false, d.mounter.Unmount(path)
	}
	return !notMounted, err
}

func (d *legacyDriver) NodeUnstageVolume(ctx context.Context, req *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if err := mount.CleanupMountPoint(req.GetStagingTargetPath(), d.mounter, false); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if err := d.disks.detach(ctx, req.GetVolumeId()); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (d *legacyDriver) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	source, target := req.GetStagingTargetPath(), req.GetTargetPath()
	options := []string{"bind"}
	if req.GetReadonly() {
		options = append(options, "ro")
	}
	// As many drivers do: the options of the file system once more.
	options = append(options, req.GetVolumeCapability().GetMount().GetMountFlags()...)
	if req.GetVolumeCapability().GetBlock() != nil {
		return d.publishBlock(ctx, req, options)
	}
	mounted, err := d.prepare(target)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if mounted {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if err := d.mounter.Mount(source, target, "", options); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (d *legacyDriver) publishBlock(ctx context.Context, req *csi.NodePublishVolumeRequest, options []string) (*csi.NodePublishVolumeResponse, error) {
	device, err := d.disks.attach(ctx, req.GetVolumeId())
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	target := req.GetTargetPath()
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	f, err := os.OpenFile(target, os.O_CREATE, 0o660)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if err := f.Close(); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if notMounted, err := d.mounter.IsLikelyNotMountPoint(target); err != nil || !notMounted {
		return &csi.NodePublishVolumeResponse{}, err
	}
	if err := d.mounter.Mount(device, target, "", options); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (d *legacyDriver) NodeUnpublishVolume(_ context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := mount.CleanupMountPoint(req.GetTargetPath(), d.mounter, true); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
