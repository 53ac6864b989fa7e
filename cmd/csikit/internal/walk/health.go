package walk

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// health asks for the health of the volume and of the storage, where the driver
// tells. What is ill is shown and is no failure: it may be so.
func (v *Volume) health(ctx context.Context) error {
	return steps(ctx, v.controllerHealth, v.listHealth, v.nodeHealth, v.storageHealth)
}

func (v *Volume) controllerHealth(ctx context.Context) error {
	if !v.can.controller[csi.ControllerServiceCapability_RPC_GET_VOLUME_HEALTH] {
		return nil
	}
	resp, err := call(ctx, v.Walk, "ControllerGetVolumeHealth", v.label(""), v.controller.ControllerGetVolumeHealth,
		&csi.ControllerGetVolumeHealthRequest{VolumeId: v.id(), Secrets: v.o.Secrets})
	if err != nil {
		return err
	}
	return v.seeHealth("ControllerGetVolumeHealth", resp.GetVolumeHealth())
}

func (v *Volume) listHealth(ctx context.Context) error {
	if !v.can.controller[csi.ControllerServiceCapability_RPC_LIST_VOLUME_HEALTH] {
		return nil
	}
	ill := 0
	err := pages("ControllerListVolumeHealth", func(token string) (string, error) {
		resp, err := call(ctx, v.Walk, "ControllerListVolumeHealth", "", v.controller.ControllerListVolumeHealth,
			&csi.ControllerListVolumeHealthRequest{StartingToken: token, Secrets: v.o.Secrets})
		ill += len(resp.GetEntries())
		return resp.GetNextToken(), err
	})
	if err == nil {
		v.See("%d volumes are ill", ill)
	}
	return err
}

func (v *Volume) nodeHealth(ctx context.Context) error {
	if !v.can.node[csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH] {
		return nil
	}
	resp, err := call(ctx, v.Walk, "NodeGetVolumeHealth", v.label(""), v.node.NodeGetVolumeHealth,
		&csi.NodeGetVolumeHealthRequest{VolumeId: v.id(), VolumePublishPath: v.path(pod1), StagingTargetPath: v.stagingPath()})
	if err != nil {
		return err
	}
	return v.seeHealth("NodeGetVolumeHealth", resp.GetVolumeHealth())
}

func (v *Volume) storageHealth(ctx context.Context) error {
	if !v.can.node[csi.NodeServiceCapability_RPC_GET_STORAGE_HEALTH] {
		return nil
	}
	resp, err := call(ctx, v.Walk, "NodeGetStorageHealth", "", v.node.NodeGetStorageHealth, &csi.NodeGetStorageHealthRequest{Secrets: v.o.Secrets})
	if err != nil {
		return err
	}
	for _, h := range resp.GetBackendHealth() {
		v.See("%v: %s: %s", h.GetStatus(), h.GetReason(), h.GetMessage())
	}
	return nil
}

func (v *Volume) seeHealth(rpc string, h *csi.VolumeHealth) error {
	if h.GetVolumeId() != v.id() {
		return fmt.Errorf("%s speaks of volume %q", rpc, h.GetVolumeId())
	}
	for _, s := range h.GetHealthStatuses() {
		v.See("%v: %s: %s", s.GetStatus(), s.GetReason(), s.GetMessage())
	}
	return nil
}
