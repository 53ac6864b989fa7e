package walk

import (
	"context"
	"errors"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// stats asks as kubelet does: without the staging path.
func (v *Volume) stats(ctx context.Context) error {
	if !v.can.node[csi.NodeServiceCapability_RPC_GET_VOLUME_STATS] {
		return nil
	}
	resp, err := call(ctx, v.Walk, "NodeGetVolumeStats", v.label("what kubelet asks"), v.node.NodeGetVolumeStats,
		&csi.NodeGetVolumeStatsRequest{VolumeId: v.id(), VolumePath: v.path(pod1)})
	if err != nil {
		return err
	}
	if len(resp.GetUsage()) == 0 {
		return errors.New("NodeGetVolumeStats answers no usage, which is an error to kubelet")
	}
	for _, u := range resp.GetUsage() {
		if err := v.seeUsage(u); err != nil {
			return err
		}
	}
	return nil
}

// seeUsage: the total of a volume whose size is known is about that, or more
// where a file system is shared.
func (v *Volume) seeUsage(u *csi.VolumeUsage) error {
	if min(u.GetTotal(), u.GetUsed(), u.GetAvailable()) < 0 || u.GetTotal() > 0 && max(u.GetUsed(), u.GetAvailable()) > u.GetTotal() {
		return fmt.Errorf("NodeGetVolumeStats answers what cannot be: %v", u)
	}
	if u.GetUnit() != csi.VolumeUsage_BYTES {
		return nil
	}
	v.See("%s in all, %s used", mib(u.GetTotal()), mib(u.GetUsed()))
	if v.known && !v.grow && u.GetTotal() > 0 && u.GetTotal() < v.size/3*2 {
		return fmt.Errorf("NodeGetVolumeStats answers %s in all, and the volume has %s", mib(u.GetTotal()), mib(v.size))
	}
	return nil
}
