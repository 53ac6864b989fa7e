package backends

import (
	"context"
	"iter"
	"time"
)

// Snapshotter serves CREATE_DELETE_SNAPSHOT, and restore, which CSI requires with it.
// The rules of Volume, FindVolume, CreateVolume and DeleteVolume hold alike.
// csidriver refuses to delete a member of a group before it asks, if it can look
// the snapshot up.
type Snapshotter interface {
	// Snapshot returns the snapshot with this ID, ready or not.
	Snapshot(ctx context.Context, req SnapshotRequest) (*Snapshot, error)
	FindSnapshot(ctx context.Context, req CreateSnapshotRequest) (*Snapshot, error)
	// CreateSnapshot returns when the snapshot is cut, with Ready false while it
	// is still being copied. Created is the moment of the cut, and stays.
	CreateSnapshot(ctx context.Context, req CreateSnapshotRequest) (*Snapshot, error)
	DeleteSnapshot(ctx context.Context, req DeleteSnapshotRequest) error
	// RestoreSnapshot is CreateVolume with a snapshot as the content source, which
	// Volume.Source names ever after. csidriver has looked it up: snap is ready, and
	// req.Size is not less than its Size. A half-made volume whose snapshot is gone
	// is for a Recoverer: nobody asks for it again.
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

// SnapshotIDer is [VolumeIDer] for snapshots.
type SnapshotIDer interface {
	SnapshotID(req CreateSnapshotRequest) (string, error)
}

// SnapshotLister serves LIST_SNAPSHOTS. The rules of [VolumeLister] hold. Snapshots
// of volumes that were not asked for are left out by csidriver.
type SnapshotLister interface {
	ListSnapshots(ctx context.Context, req ListSnapshotsRequest) (snaps []*Snapshot, next string, err error)
}

// ListSnapshotsRequest asks for one page.
type ListSnapshotsRequest struct {
	VolumeID string // "": of any volume; a lookup by ID goes to Snapshotter.Snapshot
	Page     Page
	Secrets  Secrets
}

// GroupSnapshotter serves GROUP_CONTROLLER_SERVICE; it needs a [Snapshotter]. All
// members are cut at one moment or none is left behind. Volumes that cannot be
// snapshotted together are ErrPrecondition.
type GroupSnapshotter interface {
	GroupSnapshot(ctx context.Context, req GroupSnapshotRequest) (*GroupSnapshot, error)
	FindGroupSnapshot(ctx context.Context, req CreateGroupSnapshotRequest) (*GroupSnapshot, error)
	CreateGroupSnapshot(ctx context.Context, req CreateGroupSnapshotRequest) (*GroupSnapshot, error)
	DeleteGroupSnapshot(ctx context.Context, req DeleteGroupSnapshotRequest) error
}

// GroupSnapshotIDer is [VolumeIDer] for group snapshots.
type GroupSnapshotIDer interface {
	GroupSnapshotID(req CreateGroupSnapshotRequest) (string, error)
}

// GroupSnapshotRequest names a group snapshot.
type GroupSnapshotRequest struct {
	ID          string
	SnapshotIDs []string // its members, as the CO knows them; csidriver compares; nil: not given
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
	SnapshotIDs []string // its members; nil when neither the CO nor a lookup named them
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
	Snapshots   []Snapshot // one of each volume; csidriver fills in GroupID
	Created     time.Time
	Fingerprint string
}

// ChangedBlockTracker serves SNAPSHOT_METADATA_SERVICE. With Base "" it lists what is
// allocated in Target, else what differs between the two; ErrPrecondition when
// it was not tracked. csidriver has looked the snapshots up, and they are of one
// volume. The context is the caller's: it ends with the stream, or when a deletion
// of a snapshot has waited long enough. Until then none of this process comes.
type ChangedBlockTracker interface {
	ChangedBlocks(ctx context.Context, req ChangedBlocksRequest) (BlockMap, error)
}

// ChangedBlocksRequest names the snapshots and where to start.
type ChangedBlocksRequest struct {
	Base, Target string
	Offset       int64 // bytes; may be beyond the volume, which csidriver answers then
	Secrets      Secrets
}

// BlockMap is what ChangedBlocks found.
type BlockMap struct {
	VolumeSize int64 // bytes
	Fixed      bool  // all blocks are of one size
	// Blocks come in ascending order without overlap, from Offset on; those that
	// end before it are left out by csidriver. An error ends the sequence.
	Blocks iter.Seq2[Block, error]
}

// Block is a range of bytes.
type Block struct{ Offset, Size int64 }
