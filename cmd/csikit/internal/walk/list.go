package walk

import (
	"context"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// list looks for the volume where the driver can show it.
func (v *Volume) list(ctx context.Context) error {
	if err := v.getVolume(ctx); err != nil {
		return err
	}
	if v.can.controller[csi.ControllerServiceCapability_RPC_GET_CAPACITY] {
		resp, err := call(ctx, v.Walk, "GetCapacity", "", v.controller.GetCapacity, &csi.GetCapacityRequest{
			VolumeCapabilities: []*csi.VolumeCapability{v.capability()}, Parameters: v.o.Parameters, AccessibleTopology: v.info.GetAccessibleTopology(),
		})
		if err != nil {
			return err
		}
		v.See("%s are free", mib(resp.GetAvailableCapacity()))
	}
	return v.listed(ctx, true)
}

func (v *Volume) getVolume(ctx context.Context) error {
	if !v.can.controller[csi.ControllerServiceCapability_RPC_GET_VOLUME] {
		return nil
	}
	resp, err := call(ctx, v.Walk, "ControllerGetVolume", v.label(""), v.controller.ControllerGetVolume, &csi.ControllerGetVolumeRequest{VolumeId: v.id()})
	if err != nil {
		return err
	}
	if got := resp.GetVolume().GetVolumeId(); got != v.id() {
		return fmt.Errorf("ControllerGetVolume answers volume %q", got)
	}
	if got := resp.GetVolume().GetCapacityBytes(); v.known && got != 0 && got < v.size {
		return fmt.Errorf("ControllerGetVolume answers %d bytes, the volume has %d", got, v.size)
	}
	return v.publishedNodes("ControllerGetVolume", resp.GetStatus().GetPublishedNodeIds())
}

// publishedNodes: the node is named exactly while the volume is attached to it.
// Only LIST_VOLUMES_PUBLISHED_NODES promises that nodes are named.
func (v *Volume) publishedNodes(rpc string, nodes []string) error {
	if !v.can.controller[csi.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES] {
		return nil
	}
	if here := slices.Contains(nodes, v.info.GetNodeId()); here != v.attached {
		return fmt.Errorf("%s says that the volume is published to nodes %q; attached to %s: %t", rpc, nodes, v.info.GetNodeId(), v.attached)
	}
	v.See("published to nodes %q", nodes)
	return nil
}

// maxPages bounds a list whose token goes round in circles.
const maxPages = 10_000

// pages reads a list to its end.
func pages(rpc string, page func(token string) (next string, err error)) error {
	token := ""
	for range maxPages {
		next, err := page(token)
		if err != nil || next == "" {
			return err
		}
		token = next
	}
	return fmt.Errorf("%s has not come to an end after %d pages", rpc, maxPages)
}

// listed looks through the pages of ListVolumes.
func (v *Volume) listed(ctx context.Context, want bool) error {
	if !v.can.controller[csi.ControllerServiceCapability_RPC_LIST_VOLUMES] {
		return nil
	}
	volumes := 0
	var found []*csi.ListVolumesResponse_Entry
	err := pages("ListVolumes", func(token string) (string, error) {
		resp, err := call(ctx, v.Walk, "ListVolumes", v.label(""), v.controller.ListVolumes, &csi.ListVolumesRequest{StartingToken: token})
		for _, e := range resp.GetEntries() {
			volumes++
			if e.GetVolume().GetVolumeId() == v.id() {
				found = append(found, e)
			}
		}
		return resp.GetNextToken(), err
	})
	if err != nil {
		return err
	}
	v.See("%d volumes", volumes)
	switch {
	case len(found) > 1:
		return fmt.Errorf("ListVolumes has volume %s %d times", v.id(), len(found))
	case len(found) == 1 != want:
		return fmt.Errorf("ListVolumes has volume %s: %t", v.id(), len(found) == 1)
	case want:
		return v.publishedNodes("ListVolumes", found[0].GetStatus().GetPublishedNodeIds())
	}
	return nil
}
