package walk

import (
	"context"
	"errors"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// stats asks as kubelet does: without the staging path.
func (w *Walk) stats(ctx context.Context) error {
	if !w.can.node[csi.NodeServiceCapability_RPC_GET_VOLUME_STATS] {
		return nil
	}
	resp, err := call(ctx, w, "NodeGetVolumeStats", "what kubelet asks", w.node.NodeGetVolumeStats,
		&csi.NodeGetVolumeStatsRequest{VolumeId: w.id(), VolumePath: w.path(pod1)})
	if err != nil {
		return err
	}
	if len(resp.GetUsage()) == 0 {
		return errors.New("NodeGetVolumeStats answers no usage, which is an error to kubelet")
	}
	for _, u := range resp.GetUsage() {
		if u.GetUnit() == csi.VolumeUsage_BYTES {
			w.See("%s in all, %s used", mib(u.GetTotal()), mib(u.GetUsed()))
		}
	}
	return nil
}
