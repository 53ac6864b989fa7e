package pbconv

import (
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/mounter"
)

// Stage converts a NodeStageVolumeRequest; path is the checked staging path.
func Stage(in *csi.NodeStageVolumeRequest, path string) mounter.StageRequest {
	ctx, owner := Split(in.GetVolumeContext())
	secrets := Secrets(in.GetSecrets(), &owner)
	return mounter.StageRequest{
		ID:             in.GetVolumeId(),
		Path:           path,
		Capability:     Capability(in.GetVolumeCapability()),
		Context:        ctx,
		PublishContext: maps.Clone(in.GetPublishContext()),
		Owner:          owner,
		Secrets:        secrets,
	}
}

// Ephemeral tells whether the volume is an inline one of a pod.
func Ephemeral(in *csi.NodePublishVolumeRequest) bool {
	return in.GetVolumeContext()[ephemeralKey] == "true"
}

// Publish converts a NodePublishVolumeRequest; the paths are the checked ones.
func Publish(in *csi.NodePublishVolumeRequest, staging, target string) mounter.PublishRequest {
	ctx, owner := Split(in.GetVolumeContext())
	secrets := Secrets(in.GetSecrets(), &owner)
	return mounter.PublishRequest{
		ID:             in.GetVolumeId(),
		Ephemeral:      Ephemeral(in),
		StagingPath:    staging,
		Path:           target,
		Capability:     Capability(in.GetVolumeCapability()),
		ReadOnly:       in.GetReadonly(),
		Context:        ctx,
		PublishContext: maps.Clone(in.GetPublishContext()),
		Owner:          owner,
		Secrets:        secrets,
	}
}

// NodeExpand converts a NodeExpandVolumeRequest; the paths are the checked ones.
func NodeExpand(in *csi.NodeExpandVolumeRequest, path, staging string) mounter.ExpandRequest {
	req := mounter.ExpandRequest{
		ID:          in.GetVolumeId(),
		Path:        path,
		StagingPath: staging,
		Range:       Range(in.GetCapacityRange()),
		Secrets:     Secrets(in.GetSecrets(), nil),
	}
	if c := in.GetVolumeCapability(); c != nil {
		converted := Capability(c)
		req.Capability = &converted
	}
	return req
}

// Usage converts the figures of a volume. Inodes are left out where the file
// system does not count them (btrfs) and for a block device.
func Usage(s *mounter.Stats) []*csi.VolumeUsage {
	bytes := &csi.VolumeUsage{Unit: csi.VolumeUsage_BYTES, Total: s.Total}
	if s.Block {
		return []*csi.VolumeUsage{bytes}
	}
	bytes.Used, bytes.Available = s.Used, s.Available
	if s.Inodes == 0 {
		return []*csi.VolumeUsage{bytes}
	}
	return []*csi.VolumeUsage{bytes, {
		Unit:      csi.VolumeUsage_INODES,
		Total:     s.Inodes,
		Used:      s.InodesUsed,
		Available: s.InodesFree,
	}}
}
