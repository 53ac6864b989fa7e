package walk

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// controllerPublish attaches the volume to the node, if the driver attaches.
func (w *Walk) controllerPublish(ctx context.Context) error {
	if !w.can.controller[csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME] {
		return nil
	}
	w.attached = true
	resp, err := call(ctx, w, "ControllerPublishVolume", "to "+w.info.GetNodeId(), w.controller.ControllerPublishVolume,
		&csi.ControllerPublishVolumeRequest{
			VolumeId: w.id(), NodeId: w.info.GetNodeId(), VolumeCapability: w.capability(), VolumeContext: w.vol.GetVolumeContext(), Secrets: w.o.Secrets,
		})
	if err != nil {
		return err
	}
	w.attach = resp.GetPublishContext()
	return nil
}

func (w *Walk) controllerUnpublish(ctx context.Context) error {
	if !w.attached {
		return nil
	}
	_, err := call(ctx, w, "ControllerUnpublishVolume", "from "+w.info.GetNodeId(), w.controller.ControllerUnpublishVolume,
		&csi.ControllerUnpublishVolumeRequest{VolumeId: w.id(), NodeId: w.info.GetNodeId(), Secrets: w.o.Secrets})
	if err != nil {
		return err
	}
	w.attached, w.attach = false, nil
	return nil
}
