package pbconv

import (
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/csikit/csikit/backends"
)

// CreateSnapshot converts a CreateSnapshotRequest.
func CreateSnapshot(in *csi.CreateSnapshotRequest) backends.CreateSnapshotRequest {
	params, owner := Split(in.GetParameters())
	secrets := Secrets(in.GetSecrets(), &owner)
	return backends.CreateSnapshotRequest{
		Name:       in.GetName(),
		VolumeID:   in.GetSourceVolumeId(),
		Parameters: params,
		Topology:   Topology(in.GetAccessibilityRequirements()),
		Owner:      owner,
		Secrets:    secrets,
	}
}

// Snapshot converts a snapshot for an answer.
func Snapshot(s *backends.Snapshot) *csi.Snapshot {
	return &csi.Snapshot{
		SizeBytes:          s.Size,
		SnapshotId:         s.ID,
		SourceVolumeId:     s.VolumeID,
		CreationTime:       timestamppb.New(s.Created),
		ReadyToUse:         s.Ready,
		GroupSnapshotId:    s.GroupID,
		AccessibleTopology: accessible(s.Topology),
	}
}

// deletionPolicy is a field of Kubernetes' classes, and no parameter.
const deletionPolicy = "deletionPolicy"

// CreateGroupSnapshot converts a CreateVolumeGroupSnapshotRequest.
func CreateGroupSnapshot(in *csi.CreateVolumeGroupSnapshotRequest) backends.CreateGroupSnapshotRequest {
	params, owner := Split(in.GetParameters())
	// Kubernetes' suite for storage drivers writes the class's deletionPolicy among its
	// parameters too. What becomes of the group is the CO's business, and a driver that
	// refuses parameters that it does not know would fail there.
	if p := params[deletionPolicy]; p == "Delete" || p == "Retain" {
		delete(params, deletionPolicy)
	}
	secrets := Secrets(in.GetSecrets(), &owner)
	volumes := slices.Clone(in.GetSourceVolumeIds())
	slices.Sort(volumes)
	return backends.CreateGroupSnapshotRequest{
		Name:       in.GetName(),
		VolumeIDs:  slices.Compact(volumes),
		Parameters: params,
		Owner:      owner,
		Secrets:    secrets,
	}
}

// GroupSnapshot converts a group snapshot for an answer. It is ready when all of
// its members are.
func GroupSnapshot(g *backends.GroupSnapshot) *csi.VolumeGroupSnapshot {
	out := &csi.VolumeGroupSnapshot{
		GroupSnapshotId: g.ID,
		CreationTime:    timestamppb.New(g.Created),
		ReadyToUse:      true,
		Snapshots:       make([]*csi.Snapshot, len(g.Snapshots)),
	}
	for i := range g.Snapshots {
		out.Snapshots[i] = Snapshot(&g.Snapshots[i])
		out.Snapshots[i].GroupSnapshotId = g.ID
		out.ReadyToUse = out.ReadyToUse && g.Snapshots[i].Ready
	}
	return out
}

// Blocks says of which kind the blocks of a map are.
func Blocks(fixed bool) csi.BlockMetadataType {
	if fixed {
		return csi.BlockMetadataType_FIXED_LENGTH
	}
	return csi.BlockMetadataType_VARIABLE_LENGTH
}

// Block converts one range of bytes.
func Block(b backends.Block) *csi.BlockMetadata {
	return &csi.BlockMetadata{ByteOffset: b.Offset, SizeBytes: b.Size}
}
