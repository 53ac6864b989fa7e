package walk

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// expandable: without a size there is none to grow from.
func (v *Volume) expandable() bool {
	return v.size > 0 && (v.can.controller[csi.ControllerServiceCapability_RPC_EXPAND_VOLUME] ||
		v.can.node[csi.NodeServiceCapability_RPC_EXPAND_VOLUME])
}

func (w *Walk) offline() bool {
	return w.can.expansion[csi.PluginCapability_VolumeExpansion_OFFLINE] && !w.can.expansion[csi.PluginCapability_VolumeExpansion_ONLINE]
}

// expandOnline expands the volume while a pod uses it.
func (v *Volume) expandOnline(ctx context.Context) error {
	if !v.expandable() || v.offline() {
		return nil
	}
	before, err := v.sizeOf(pod1)
	if err != nil {
		return err
	}
	if err := v.controllerExpand(ctx); err != nil {
		return err
	}
	if err := v.nodeExpand(ctx, "in use"); err != nil || v.grow || before == 0 {
		return err
	}
	return v.seeGrowth(before)
}

// expandOffline expands the volume while nobody uses it. The node has its part
// when it is published again.
func (v *Volume) expandOffline(ctx context.Context) error {
	if !v.expandable() || !v.offline() {
		return nil
	}
	return v.controllerExpand(ctx)
}

func (v *Volume) controllerExpand(ctx context.Context) error {
	v.size += v.size / 2
	v.grow = v.can.node[csi.NodeServiceCapability_RPC_EXPAND_VOLUME]
	if !v.can.controller[csi.ControllerServiceCapability_RPC_EXPAND_VOLUME] {
		return nil
	}
	resp, err := call(ctx, v.Walk, "ControllerExpandVolume", v.label("to "+mib(v.size)), v.controller.ControllerExpandVolume, &csi.ControllerExpandVolumeRequest{
		VolumeId: v.id(), CapacityRange: &csi.CapacityRange{RequiredBytes: v.size}, VolumeCapability: v.capability(), Secrets: v.o.Secrets,
	})
	if err != nil {
		return err
	}
	if got := resp.GetCapacityBytes(); got < v.size {
		return fmt.Errorf("ControllerExpandVolume answers %d bytes, asked for were at least %d", got, v.size)
	}
	v.grow = v.grow && resp.GetNodeExpansionRequired()
	return v.getVolume(ctx)
}

// nodeExpand has the node do its part, if there is one to do.
func (v *Volume) nodeExpand(ctx context.Context, what string) error {
	if !v.grow {
		return nil
	}
	_, err := call(ctx, v.Walk, "NodeExpandVolume", v.label(what), v.node.NodeExpandVolume, &csi.NodeExpandVolumeRequest{
		VolumeId: v.id(), VolumePath: v.path(pod1), StagingTargetPath: v.stagingPath(),
		CapacityRange: &csi.CapacityRange{RequiredBytes: v.size}, VolumeCapability: v.capability(), Secrets: v.o.Secrets,
	})
	if status.Code(err) == codes.FailedPrecondition {
		v.See("not while it is in use, says the node: the next publish does it")
		return nil
	}
	if err != nil {
		return err
	}
	v.grow = false
	return nil
}

// seeGrowth: half of what was added is there at least; the rest may be the file
// system's own. A directory shows the size of what it lies in.
func (v *Volume) seeGrowth(before int64) error {
	after, err := v.sizeOf(pod1)
	if err != nil {
		return err
	}
	v.See("df pod-1: %s -> %s", mib(before), mib(after))
	if before >= v.size {
		v.See("that is no file system of its own: how much the volume may hold is not to be seen")
		return nil
	}
	if added := v.size / 3; after < before+added/2 {
		return fmt.Errorf("df says %s after growth from %s", mib(after), mib(before))
	}
	return nil
}

// seeSize: the volume has two thirds of its size at least.
func (v *Volume) seeSize(pod string) error {
	size, err := v.sizeOf(pod)
	if err != nil || size == 0 || !v.known || v.grow {
		return err
	}
	v.See("df %s: %s", pod, mib(size))
	if size < v.size/3*2 {
		return fmt.Errorf("df says %s, and the volume has %s", mib(size), mib(v.size))
	}
	return nil
}
