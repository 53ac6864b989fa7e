package csidriver

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

// TestLife walks one volume through every RPC that is served.
func TestLife(t *testing.T) {
	r, ctx := startRig(t, nil), t.Context()
	made, err := r.CreateVolume(ctx, createReq("pvc-1"))
	wantCode(t, err, codes.OK)
	id := made.GetVolume().GetVolumeId()
	if id != "id-pvc-1" || made.GetVolume().GetCapacityBytes() != gi {
		t.Fatalf("made %v", made)
	}
	_, err = r.ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: id})
	wantCode(t, err, codes.OK)
	confirmed, err := r.ValidateVolumeCapabilities(ctx, &csi.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: []*csi.VolumeCapability{mountCap(), blockCap()}})
	wantCode(t, err, codes.OK)
	if len(confirmed.GetConfirmed().GetVolumeCapabilities()) != 2 {
		t.Errorf("confirmed %v", confirmed)
	}
	list, err := r.ListVolumes(ctx, &csi.ListVolumesRequest{})
	wantCode(t, err, codes.OK)
	if len(list.GetEntries()) != 1 {
		t.Errorf("listed %v", list)
	}
	free, err := r.GetCapacity(ctx, &csi.GetCapacityRequest{})
	wantCode(t, err, codes.OK)
	if free.GetAvailableCapacity() != 5*gi || free.GetMaximumVolumeSize().GetValue() != 1<<40 || free.GetMinimumVolumeSize().GetValue() != 1<<20 {
		t.Errorf("capacity %v", free)
	}

	_, err = r.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: "/s/1/", VolumeCapability: mountCap()})
	wantCode(t, err, codes.OK)
	_, err = r.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{VolumeId: id, StagingTargetPath: "/s/1", TargetPath: "/t/1", VolumeCapability: mountCap()})
	wantCode(t, err, codes.OK)
	stats, err := r.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: "/t/1"})
	wantCode(t, err, codes.OK)
	if len(stats.GetUsage()) != 2 || stats.GetUsage()[0].GetTotal() != 10 || stats.GetUsage()[1].GetUnit() != csi.VolumeUsage_INODES {
		t.Errorf("stats %v", stats)
	}

	_, err = r.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
	wantCode(t, err, codes.FailedPrecondition, "in use at /")

	grown, err := r.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: &csi.CapacityRange{RequiredBytes: 2*gi - 1}})
	wantCode(t, err, codes.OK)
	if grown.GetCapacityBytes() != 2*gi || !grown.GetNodeExpansionRequired() {
		t.Errorf("expanded %v", grown)
	}
	node, err := r.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: id, VolumePath: "/t/1", CapacityRange: &csi.CapacityRange{RequiredBytes: 2 * gi}})
	wantCode(t, err, codes.OK)
	if node.GetCapacityBytes() != 2*gi {
		t.Errorf("expanded on the node %v", node)
	}

	for range 2 { // each is idempotent
		_, err = r.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: "/t/1"})
		wantCode(t, err, codes.OK)
		_, err = r.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: "/s/1"})
		wantCode(t, err, codes.OK)
		_, err = r.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
		wantCode(t, err, codes.OK)
	}
	if err := r.stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
}
