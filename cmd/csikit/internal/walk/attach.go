package walk

import (
	"context"
	"fmt"
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// controllerPublish attaches the volume to the node, if the driver attaches.
func (v *Volume) controllerPublish(ctx context.Context) error {
	if !v.can.controller[csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME] {
		return nil
	}
	req := &csi.ControllerPublishVolumeRequest{
		VolumeId: v.id(), NodeId: v.info.GetNodeId(), VolumeCapability: v.capability(), VolumeContext: v.vol.GetVolumeContext(), Secrets: v.o.Secrets,
	}
	v.attached = true
	resp, err := call(ctx, v.Walk, "ControllerPublishVolume", v.label("to "+v.info.GetNodeId()), v.controller.ControllerPublishVolume, req)
	if err != nil {
		return err
	}
	v.attach = resp.GetPublishContext()
	again, err := call(ctx, v.Walk, "ControllerPublishVolume", v.label("again: the same call"), v.controller.ControllerPublishVolume, req)
	if err != nil {
		return err
	}
	if !maps.Equal(again.GetPublishContext(), v.attach) {
		return fmt.Errorf("ControllerPublishVolume repeated answers another publish_context")
	}
	return v.showNodes(ctx)
}

func (v *Volume) controllerUnpublish(ctx context.Context) error {
	if !v.attached {
		return nil
	}
	_, err := call(ctx, v.Walk, "ControllerUnpublishVolume", v.label("from "+v.info.GetNodeId()), v.controller.ControllerUnpublishVolume,
		&csi.ControllerUnpublishVolumeRequest{VolumeId: v.id(), NodeId: v.info.GetNodeId(), Secrets: v.o.Secrets})
	if err != nil {
		return err
	}
	v.attached, v.attach = false, nil
	return v.showNodes(ctx)
}

// showNodes asks where the volume is attached, as an attacher does each minute.
// Once is enough: for the walk's own volume.
func (v *Volume) showNodes(ctx context.Context) error {
	if v.alias != "" || !v.can.controller[csi.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES] {
		return nil
	}
	if err := v.getVolume(ctx); err != nil {
		return err
	}
	return v.listed(ctx, true)
}
