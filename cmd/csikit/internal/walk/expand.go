package walk

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// expandable: without a size there is none to grow from.
func (w *Walk) expandable() bool {
	return w.size > 0 && (w.can.controller[csi.ControllerServiceCapability_RPC_EXPAND_VOLUME] ||
		w.can.node[csi.NodeServiceCapability_RPC_EXPAND_VOLUME])
}

func (w *Walk) offline() bool {
	return w.can.expansion[csi.PluginCapability_VolumeExpansion_OFFLINE] && !w.can.expansion[csi.PluginCapability_VolumeExpansion_ONLINE]
}

// expandOnline expands the volume while a pod uses it.
func (w *Walk) expandOnline(ctx context.Context) error {
	if !w.expandable() || w.offline() {
		return nil
	}
	before, err := w.sizeOf(pod1)
	if err != nil {
		return err
	}
	if err := w.controllerExpand(ctx); err != nil {
		return err
	}
	if err := w.nodeExpand(ctx, "in use"); err != nil || w.grow || before == 0 {
		return err
	}
	return w.seeGrowth(before)
}

// expandOffline expands the volume while nobody uses it. The node has its part
// when it is published again.
func (w *Walk) expandOffline(ctx context.Context) error {
	if !w.expandable() || !w.offline() {
		return nil
	}
	return w.controllerExpand(ctx)
}

func (w *Walk) controllerExpand(ctx context.Context) error {
	w.size += w.size / 2
	w.grow = w.can.node[csi.NodeServiceCapability_RPC_EXPAND_VOLUME]
	if !w.can.controller[csi.ControllerServiceCapability_RPC_EXPAND_VOLUME] {
		return nil
	}
	resp, err := call(ctx, w, "ControllerExpandVolume", "to "+mib(w.size), w.controller.ControllerExpandVolume, &csi.ControllerExpandVolumeRequest{
		VolumeId: w.id(), CapacityRange: &csi.CapacityRange{RequiredBytes: w.size}, VolumeCapability: w.capability(), Secrets: w.o.Secrets,
	})
	if err != nil {
		return err
	}
	if got := resp.GetCapacityBytes(); got < w.size {
		return fmt.Errorf("ControllerExpandVolume answers %d bytes, asked for were at least %d", got, w.size)
	}
	w.grow = w.grow && resp.GetNodeExpansionRequired()
	return nil
}

// nodeExpand has the node do its part, if there is one to do.
func (w *Walk) nodeExpand(ctx context.Context, what string) error {
	if !w.grow {
		return nil
	}
	_, err := call(ctx, w, "NodeExpandVolume", what, w.node.NodeExpandVolume, &csi.NodeExpandVolumeRequest{
		VolumeId: w.id(), VolumePath: w.path(pod1), StagingTargetPath: w.stagingPath(),
		CapacityRange: &csi.CapacityRange{RequiredBytes: w.size}, VolumeCapability: w.capability(), Secrets: w.o.Secrets,
	})
	if status.Code(err) == codes.FailedPrecondition {
		w.See("not while it is in use, says the node: the next publish does it")
		return nil
	}
	if err != nil {
		return err
	}
	w.grow = false
	return nil
}

// seeGrowth: half of what was added is there at least; the rest may be the file
// system's own.
func (w *Walk) seeGrowth(before int64) error {
	after, err := w.sizeOf(pod1)
	if err != nil {
		return err
	}
	w.See("df pod-1: %s -> %s", mib(before), mib(after))
	if added := w.size / 3; after < before+added/2 {
		return fmt.Errorf("df says %s after growth from %s", mib(after), mib(before))
	}
	return nil
}

// seeSize: the volume has two thirds of its size at least.
func (w *Walk) seeSize(pod string) error {
	size, err := w.sizeOf(pod)
	if err != nil || size == 0 || w.o.Size == 0 {
		return err
	}
	w.See("df %s: %s", pod, mib(size))
	if size < w.size/3*2 {
		return fmt.Errorf("df says %s, and the volume has %s", mib(size), mib(w.size))
	}
	return nil
}
