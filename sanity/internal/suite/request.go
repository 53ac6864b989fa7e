package suite

import (
	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// T is a check at work.
type T = check.T

// Check is one thing that is looked at.
type Check = check.Check

// rpc is an RPC with what it takes for it to be served.
type rpc struct {
	name  string
	needs string
	// request makes a proper request, and what it needs.
	request func(*T) proto.Message
	unary   bool
}

// capRange is a range of sizes.
func capRange(required, limit int64) *csi.CapacityRange {
	return &csi.CapacityRange{RequiredBytes: required, LimitBytes: limit}
}

// controllerRPCs are those of the controller's services, with proper requests.
func controllerRPCs() []rpc {
	return []rpc{
		{"CreateVolume", "CREATE_DELETE_VOLUME", func(t *T) proto.Message { t.Mode(); return t.CreateRequest() }, true},
		{"DeleteVolume", "CREATE_DELETE_VOLUME", func(t *T) proto.Message { return t.NewVolume().DeleteRequest() }, true},
		{"ControllerPublishVolume", "CREATE_DELETE_VOLUME PUBLISH_UNPUBLISH_VOLUME node", func(t *T) proto.Message { return t.NewVolume().AttachRequest() }, true},
		{"ControllerUnpublishVolume", "CREATE_DELETE_VOLUME PUBLISH_UNPUBLISH_VOLUME node", func(t *T) proto.Message {
			return &csi.ControllerUnpublishVolumeRequest{VolumeId: t.NewVolume().VolumeId, NodeId: t.NodeID(), Secrets: t.Config().Secrets}
		}, true},
		{"ValidateVolumeCapabilities", "CREATE_DELETE_VOLUME", func(t *T) proto.Message { return validateRequest(t.NewVolume()) }, true},
		{"ListVolumes", "LIST_VOLUMES", func(*T) proto.Message { return &csi.ListVolumesRequest{} }, true},
		{"GetCapacity", "GET_CAPACITY", func(t *T) proto.Message { return &csi.GetCapacityRequest{Parameters: t.Config().Parameters} }, true},
		{"ControllerGetCapabilities", "controller", func(*T) proto.Message { return &csi.ControllerGetCapabilitiesRequest{} }, true},
		{"CreateSnapshot", "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT", func(t *T) proto.Message { return t.SnapshotRequest(t.NewVolume().VolumeId) }, true},
		{"DeleteSnapshot", "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT", func(t *T) proto.Message {
			return &csi.DeleteSnapshotRequest{SnapshotId: t.NewVolume().NewSnapshot().GetSnapshotId(), Secrets: t.Config().Secrets}
		}, true},
		{"ListSnapshots", "LIST_SNAPSHOTS", func(t *T) proto.Message { return &csi.ListSnapshotsRequest{Secrets: t.Config().Secrets} }, true},
		{"GetSnapshot", "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT GET_SNAPSHOT", func(t *T) proto.Message {
			return &csi.GetSnapshotRequest{SnapshotId: t.NewVolume().NewSnapshot().GetSnapshotId(), Secrets: t.Config().Secrets}
		}, true},
		{"ControllerExpandVolume", "CREATE_DELETE_VOLUME EXPAND_VOLUME", func(t *T) proto.Message { return expandRequest(t.NewVolume(), t.Config().ExpandSize) }, true},
		{"ControllerGetVolume", "CREATE_DELETE_VOLUME GET_VOLUME", func(t *T) proto.Message {
			return &csi.ControllerGetVolumeRequest{VolumeId: t.NewVolume().VolumeId}
		}, true},
		{"ControllerModifyVolume", "CREATE_DELETE_VOLUME MODIFY_VOLUME mutable", func(t *T) proto.Message { return modifyRequest(t.NewVolume()) }, true},
		{"ControllerGetVolumeHealth", "CREATE_DELETE_VOLUME GET_VOLUME_HEALTH|LIST_VOLUME_HEALTH", func(t *T) proto.Message {
			return &csi.ControllerGetVolumeHealthRequest{VolumeId: t.NewVolume().VolumeId}
		}, true},
		{"ControllerListVolumeHealth", "LIST_VOLUME_HEALTH", func(*T) proto.Message { return &csi.ControllerListVolumeHealthRequest{} }, true},
		{"GroupControllerGetCapabilities", "plugin:GROUP_CONTROLLER_SERVICE", func(*T) proto.Message { return &csi.GroupControllerGetCapabilitiesRequest{} }, true},
		{"CreateVolumeGroupSnapshot", "CREATE_DELETE_VOLUME group", func(t *T) proto.Message { return groupRequest(t, t.NewVolume().VolumeId, t.NewVolume().VolumeId) }, true},
		{"DeleteVolumeGroupSnapshot", "CREATE_DELETE_VOLUME group", func(t *T) proto.Message {
			g := newGroup(t, t.NewVolume().VolumeId)
			return &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: g.GetGroupSnapshotId(), SnapshotIds: members(g), Secrets: t.Config().Secrets}
		}, true},
		{"GetVolumeGroupSnapshot", "CREATE_DELETE_VOLUME group", func(t *T) proto.Message { return getGroup(t, newGroup(t, t.NewVolume().VolumeId)) }, true},
		{"GetMetadataAllocated", "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT metadata", func(t *T) proto.Message {
			return &csi.GetMetadataAllocatedRequest{SnapshotId: readySnapshot(t, t.NewVolume()).GetSnapshotId(), Secrets: t.Config().Secrets}
		}, false},
		{"GetMetadataDelta", "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT metadata", func(t *T) proto.Message {
			v := t.NewVolume()
			return &csi.GetMetadataDeltaRequest{BaseSnapshotId: readySnapshot(t, v).GetSnapshotId(), TargetSnapshotId: readySnapshot(t, v).GetSnapshotId(), Secrets: t.Config().Secrets}
		}, false},
	}
}

// nodeRPCs are those of the node's service.
func nodeRPCs() []rpc {
	const volume = "CREATE_DELETE_VOLUME node"
	return []rpc{
		{"NodeStageVolume", volume + " node:STAGE_UNSTAGE_VOLUME", func(t *T) proto.Message {
			v := t.NewVolume()
			v.Attach()
			return v.StageRequest()
		}, true},
		{"NodeUnstageVolume", volume + " node:STAGE_UNSTAGE_VOLUME", func(t *T) proto.Message { return t.NewVolume().ToNode().UnstageRequest() }, true},
		{"NodePublishVolume", volume, func(t *T) proto.Message { return t.NewVolume().ToNode().PublishRequest() }, true},
		{"NodeUnpublishVolume", volume, func(t *T) proto.Message {
			v := t.NewVolume().ToNode()
			return v.UnpublishRequest(v.PublishAt())
		}, true},
		{"NodeGetVolumeStats", volume + " node:GET_VOLUME_STATS", func(t *T) proto.Message {
			v := t.NewVolume().ToNode()
			return &csi.NodeGetVolumeStatsRequest{VolumeId: v.VolumeId, VolumePath: v.PublishAt()}
		}, true},
		{"NodeExpandVolume", volume + " node:EXPAND_VOLUME", func(t *T) proto.Message {
			v := t.NewVolume().ToNode()
			return nodeExpandRequest(v, v.PublishAt(), t.Config().Size)
		}, true},
		{"NodeGetVolumeHealth", volume + " node:GET_VOLUME_HEALTH", func(t *T) proto.Message {
			v := t.NewVolume().ToNode()
			v.PublishAt()
			return &csi.NodeGetVolumeHealthRequest{VolumeId: v.VolumeId}
		}, true},
		{"NodeGetStorageHealth", "node node:GET_STORAGE_HEALTH", func(*T) proto.Message { return &csi.NodeGetStorageHealthRequest{} }, true},
		{"NodeGetCapabilities", "node", func(*T) proto.Message { return &csi.NodeGetCapabilitiesRequest{} }, true},
		{"NodeGetInfo", "node", func(*T) proto.Message { return &csi.NodeGetInfoRequest{} }, true},
	}
}

func validateRequest(v *check.Volume) *csi.ValidateVolumeCapabilitiesRequest {
	return &csi.ValidateVolumeCapabilitiesRequest{
		VolumeId: v.VolumeId, VolumeContext: v.VolumeContext, VolumeCapabilities: []*csi.VolumeCapability{v.Cap},
		Parameters: v.Request.GetParameters(), Secrets: v.T.Config().Secrets,
	}
}

func expandRequest(v *check.Volume, size int64) *csi.ControllerExpandVolumeRequest {
	return &csi.ControllerExpandVolumeRequest{VolumeId: v.VolumeId, CapacityRange: capRange(size, 0), Secrets: v.T.Config().Secrets, VolumeCapability: v.Cap}
}

func nodeExpandRequest(v *check.Volume, path string, size int64) *csi.NodeExpandVolumeRequest {
	return &csi.NodeExpandVolumeRequest{
		VolumeId: v.VolumeId, VolumePath: path, CapacityRange: capRange(size, 0), StagingTargetPath: v.Staging,
		VolumeCapability: v.Cap, Secrets: v.T.Config().Secrets,
	}
}

func modifyRequest(v *check.Volume) *csi.ControllerModifyVolumeRequest {
	return &csi.ControllerModifyVolumeRequest{VolumeId: v.VolumeId, Secrets: v.T.Config().Secrets, MutableParameters: v.T.Config().MutableParameters}
}

func groupRequest(t *T, volumes ...string) *csi.CreateVolumeGroupSnapshotRequest {
	return &csi.CreateVolumeGroupSnapshotRequest{Name: t.UniqueName(), SourceVolumeIds: volumes, Secrets: t.Config().Secrets, Parameters: t.Config().SnapshotParameters}
}

func newGroup(t *T, volumes ...string) *csi.VolumeGroupSnapshot {
	return check.Setup[*csi.CreateVolumeGroupSnapshotResponse](t, "GV-01", groupRequest(t, volumes...)).GetGroupSnapshot()
}

func members(g *csi.VolumeGroupSnapshot) []string {
	var ids []string
	for _, s := range g.GetSnapshots() {
		ids = append(ids, s.GetSnapshotId())
	}
	return ids
}

func getGroup(t *T, g *csi.VolumeGroupSnapshot) *csi.GetVolumeGroupSnapshotRequest {
	return &csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: g.GetGroupSnapshotId(), SnapshotIds: members(g), Secrets: t.Config().Secrets}
}

// readySnapshot makes a snapshot that is ready to use, if the driver says when.
func readySnapshot(t *T, v *check.Volume) *csi.Snapshot {
	req := t.SnapshotRequest(v.VolumeId)
	for range 200 {
		s := check.Setup[*csi.CreateSnapshotResponse](t, "CS-01", req).GetSnapshot()
		if s.GetReadyToUse() {
			return s
		}
		pause(t)
	}
	t.NotRun("the snapshot does not get ready to use")
	return nil
}
