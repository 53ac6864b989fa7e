package walk

import (
	"context"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// stage makes the volume ready on this node, if the driver stages.
func (v *Volume) stage(ctx context.Context) error {
	path := v.stagingPath()
	if path == "" {
		return nil
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return err
	}
	v.staged = true
	_, err := call(ctx, v.Walk, "NodeStageVolume", v.label("once for this node"), v.node.NodeStageVolume, &csi.NodeStageVolumeRequest{
		VolumeId: v.id(), StagingTargetPath: path, VolumeCapability: v.capability(),
		VolumeContext: v.vol.GetVolumeContext(), PublishContext: v.attach, Secrets: v.o.Secrets,
	})
	if err != nil || v.block || v.o.NoData {
		return err
	}
	// A driver may mount nothing here; and one elsewhere, where we cannot look.
	_, err = v.seeStack(path)
	return err
}

func (v *Volume) unstage(ctx context.Context) error {
	if !v.staged {
		return nil
	}
	_, err := call(ctx, v.Walk, "NodeUnstageVolume", v.label(""), v.node.NodeUnstageVolume,
		&csi.NodeUnstageVolumeRequest{VolumeId: v.id(), StagingTargetPath: v.path("staging")})
	if err != nil {
		return err
	}
	v.staged = false
	return nil
}
