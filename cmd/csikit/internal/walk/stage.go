package walk

import (
	"context"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// stage makes the volume ready on this node, if the driver stages.
func (w *Walk) stage(ctx context.Context) error {
	path := w.stagingPath()
	if path == "" {
		return nil
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return err
	}
	w.staged = true
	_, err := call(ctx, w, "NodeStageVolume", "once for this node", w.node.NodeStageVolume, &csi.NodeStageVolumeRequest{
		VolumeId: w.id(), StagingTargetPath: path, VolumeCapability: w.capability(),
		VolumeContext: w.vol.GetVolumeContext(), PublishContext: w.attach, Secrets: w.o.Secrets,
	})
	if err != nil || w.o.Block || w.o.NoData {
		return err
	}
	// A driver may mount nothing here; and one elsewhere, where we cannot look.
	_, err = w.seeStack(path)
	return err
}

func (w *Walk) unstage(ctx context.Context) error {
	if !w.staged {
		return nil
	}
	_, err := call(ctx, w, "NodeUnstageVolume", "", w.node.NodeUnstageVolume,
		&csi.NodeUnstageVolumeRequest{VolumeId: w.id(), StagingTargetPath: w.path("staging")})
	if err != nil {
		return err
	}
	w.staged = false
	return nil
}
