package co

import (
	"context"
	"iter"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
)

func streamRPCs() []*rpc {
	broken := backends.BlockMap{VolumeSize: -1, Blocks: iter.Seq2[backends.Block, error](func(func(backends.Block, error) bool) {})}
	return []*rpc{
		{full: csi.SnapshotMetadata_GetMetadataAllocated_FullMethodName, name: "GetMetadataAllocated", at: "ChangedBlocks", ability: "ChangedBlockTracker",
			prepare: withSnapshot, call: func(ctx context.Context, f *fixture) error {
				return drained(f.c.GetMetadataAllocated(ctx, &csi.GetMetadataAllocatedRequest{SnapshotId: f.snap, Secrets: secrets()}))
			}, empty: func(ctx context.Context, f *fixture) error {
				return drained(f.c.GetMetadataAllocated(ctx, &csi.GetMetadataAllocatedRequest{}))
			}, rival: deleteSnapshot, stuck: "DeleteSnapshot", gone: snapshotGone, answer: broken},
		{full: csi.SnapshotMetadata_GetMetadataDelta_FullMethodName, name: "GetMetadataDelta", at: "ChangedBlocks", ability: "ChangedBlockTracker",
			prepare: withSnapshot, call: func(ctx context.Context, f *fixture) error {
				return drained(f.c.GetMetadataDelta(ctx, &csi.GetMetadataDeltaRequest{BaseSnapshotId: f.older, TargetSnapshotId: f.snap, Secrets: secrets()}))
			}, empty: func(ctx context.Context, f *fixture) error {
				return drained(f.c.GetMetadataDelta(ctx, &csi.GetMetadataDeltaRequest{}))
			}, rival: deleteSnapshot, stuck: "DeleteSnapshot", gone: snapshotGone, answer: broken},
	}
}

func nodeRPCs() []*rpc {
	const stage, publish = csi.Node_NodeStageVolume_FullMethodName, csi.Node_NodePublishVolume_FullMethodName
	const unstage, unpublish = csi.Node_NodeUnstageVolume_FullMethodName, csi.Node_NodeUnpublishVolume_FullMethodName
	return []*rpc{
		{full: stage, name: "NodeStageVolume", at: "OpenVolume", prepare: withAttached, call: stageVolume,
			empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{}))
			}, rival: deleteVolume, stuck: "DeleteVolume", undo: unstageVolume, gone: volumeGone, answer: (*backends.Source)(nil), undone: closed},
		{full: stage, name: "NodeStageVolume", at: "RecordFormat", prepare: withAttached, call: stageVolume, undo: unstageVolume, gone: volumeGone},
		{full: stage, name: "NodeStageVolume", at: "engine", prepare: withAttached, call: stageVolume, undo: unstageVolume, gone: volumeGone},
		{full: unstage, name: "NodeUnstageVolume", at: "CloseVolume", prepare: withStaged, call: unstageVolume,
			empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{}))
			}, rival: expandOnNode, stuck: "NodeExpandVolume"},
		{full: unstage, name: "NodeUnstageVolume", at: "engine", prepare: withStaged, call: unstageVolume},
		{full: publish, name: "NodePublishVolume", at: "PrepareTarget", prepare: withStaged, call: publishVolume,
			empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{}))
			}, rival: expandOnNode, stuck: "NodeExpandVolume", undo: unpublishVolume, gone: volumeGone},
		{full: publish, name: "NodePublishVolume", at: "engine", prepare: withStaged, call: publishVolume, undo: unpublishVolume, gone: volumeGone},
		{full: publish, name: "NodePublishVolume, inline", at: "CreateEphemeral", prepare: nothing, call: publishPod, undo: unpublishPod, answer: (*backends.Volume)(nil), undone: func(f *fixture) bool { return closed(f) && f.m.store.Empty() }},
		{full: unpublish, name: "NodeUnpublishVolume", at: "engine", prepare: withPublished, call: unpublishVolume,
			empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{}))
			}},
		{full: unpublish, name: "NodeUnpublishVolume, inline", at: "DeleteEphemeral", prepare: withPod, call: unpublishPod},
		{full: csi.Node_NodeExpandVolume_FullMethodName, name: "NodeExpandVolume", at: "NodeExpandVolume", prepare: withPublished, call: expandOnNode,
			empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{}))
			}, rival: publishVolume, stuck: "PrepareTarget", gone: volumeGone},
		{full: csi.Node_NodeGetVolumeStats_FullMethodName, name: "NodeGetVolumeStats", at: "VolumeStats", prepare: withPublished,
			call: func(ctx context.Context, f *fixture) error {
				return done(f.c.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: f.vol, VolumePath: f.target()}))
			}, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{}))
			}, gone: volumeGone, answer: &backends.VolumeStats{Total: -1}},
		{full: csi.Node_NodeGetVolumeHealth_FullMethodName, name: "NodeGetVolumeHealth", at: "NodeVolumeHealth", prepare: withPublished,
			call: func(ctx context.Context, f *fixture) error {
				return done(f.c.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: f.vol, VolumePublishPath: f.target()}))
			}, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{}))
			}, gone: volumeGone, answer: []backends.Health{{Status: 99}}},
		{full: csi.Node_NodeGetStorageHealth_FullMethodName, name: "NodeGetStorageHealth", at: "StorageHealth", ability: "StorageHealthChecker",
			call: func(ctx context.Context, f *fixture) error {
				return done(f.c.NodeGetStorageHealth(ctx, &csi.NodeGetStorageHealthRequest{Secrets: secrets()}))
			}, answer: []backends.StorageHealth{{Status: 99}}},
		{full: csi.Node_NodeGetCapabilities_FullMethodName, name: "NodeGetCapabilities", call: func(ctx context.Context, f *fixture) error {
			return done(f.c.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{}))
		}},
		{full: csi.Node_NodeGetInfo_FullMethodName, name: "NodeGetInfo", at: "NodeTopology", call: func(ctx context.Context, f *fixture) error {
			return done(f.c.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{}))
		}, answer: backends.Segments{}},
	}
}

func nothing(*fixture) {}

// closed tells whether the node has nothing open and nothing mounted.
func closed(f *fixture) bool {
	return len(f.m.store.Open(thisNode)) == 0 && len(f.m.kernel.Mounts()) == 0
}
