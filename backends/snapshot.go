package backends

import (
	"context"
	"iter"
	"time"
)

// Snapshotter serves CREATE_DELETE_SNAPSHOT, and restore, which CSI requires with it.
// The rules of Volume, FindVolume, CreateVolume and DeleteVolume hold alike.
type Snapshotter interface {
	// Snapshot returns the snapshot with this ID, ready or not.
	Snapshot(ctx context.Context, req SnapshotRequest) (*Snapshot, error)
	FindSnapshot(ctx context.Context, req CreateSnapshotRequest) (*Snapshot, error)
	// CreateSnapshot returns when the snapshot is cut, with Ready false while it
	// is still being copied. Created is the moment of the cut, and stays.
	CreateSnapshot(ctx context.Context, req CreateSnapshotRequest) (*Snapshot, error)
	DeleteSnapshot(ctx context.Context, req DeleteSnapshotRequest) error
	// RestoreSnapshot is CreateVolume with a snapshot as the content source.
	RestoreSnapshot(ctx context.Context, snap Snapshot, req CreateVolumeRequest) (*Volume, error)
}

// SnapshotRequest names a snapshot.
type SnapshotRequest struct {
	ID      string
	Secrets Secrets
}

// CreateSnapshotRequest asks for a snapshot of a volume.
type CreateSnapshotRequest struct {
	Name, VolumeID string
	Parameters     map[string]string // without csi.storage.k8s.io/*
	Topology       TopologyRequirement
	Owner          Owner
	Fingerprint    string // kept as CreateVolumeRequest.Fingerprint is
	Secrets        Secrets
}

// DeleteSnapshotRequest names the snapshot to delete.
type DeleteSnapshotRequest struct {
	ID      string
	Secrets Secrets
}

// SnapshotLister serves LIST_SNAPSHOTS. The rules of [VolumeLister] hold.
type SnapshotLister interface {
	ListSnapshots(ctx context.Context, req ListSnapshotsRequest) (snaps []*Snapshot, next string, err error)
}

// ListSnapshotsRequest asks for one page.
type ListSnapshotsRequest struct {
	VolumeID string // "": of any volume; a lookup by ID goes to Snapshotter.Snapshot
	Page     Page
	Secrets  Secrets
}

// GroupSnapshotter serves GROUP_CONTROLLER_SERVICE. All members are cut at one moment
// or none is left behind.
type GroupSnapshotter interface {
	GroupSnapshot(ctx context.Context, req GroupSnapshotRequest) (*GroupSnapshot, error)
	FindGroupSnapshot(ctx context.Context, req CreateGroupSnapshotRequest) (*GroupSnapshot, error)
	CreateGroupSnapshot(ctx context.Context, req CreateGroupSnapshotRequest) (*GroupSnapshot, error)
	DeleteGroupSnapshot(ctx context.Context, req DeleteGroupSnapshotRequest) error
}

// GroupSnapshotRequest names a group snapshot.
type GroupSnapshotRequest struct {
	ID          string
	SnapshotIDs []string
	Secrets     Secrets
}

// CreateGroupSnapshotRequest asks for snapshots of several volumes at once.
type CreateGroupSnapshotRequest struct {
	Name        string
	VolumeIDs   []string // sorted, no duplicates
	Parameters  map[string]string
	Owner       Owner
	Fingerprint string
	Secrets     Secrets
}

// DeleteGroupSnapshotRequest names the group snapshot to delete, with all its
// members.
type DeleteGroupSnapshotRequest struct {
	ID          string
	SnapshotIDs []string
	Secrets     Secrets
}

// Snapshot is a point in time of a volume.
type Snapshot struct {
	ID, Name, VolumeID string
	Size               int64 // bytes: the least size of a volume made of it
	Created            time.Time
	Ready              bool
	GroupID            string // set when it can be deleted only with its group
	Topology           []Segments
	Fingerprint        string
}

// GroupSnapshot is one point in time of several volumes.
type GroupSnapshot struct {
	ID, Name    string
	Snapshots   []Snapshot
	Created     time.Time
	Ready       bool
	Fingerprint string
}

// ChangedBlockTracker serves SNAPSHOT_METADATA_SERVICE. With Base "" it lists what is
// allocated in Target, else what differs between the two; ErrPrecondition when
// it was not tracked.
type ChangedBlockTracker interface {
	ChangedBlocks(ctx context.Context, req ChangedBlocksRequest) (BlockMap, error)
}

// ChangedBlocksRequest names the snapshots and where to start.
type ChangedBlocksRequest struct {
	Base, Target string
	Offset       int64 // bytes
	Secrets      Secrets
}

// BlockMap is what ChangedBlocks found.
type BlockMap struct {
	VolumeSize int64 // bytes
	Fixed      bool  // all blocks are of one size
	// Blocks come in ascending order without overlap, from Offset on. An error
	// ends the sequence.
	Blocks iter.Seq2[Block, error]
}

// Block is a range of bytes.
type Block struct{ Offset, Size int64 }
