package backends

import "context"

// Controller is the core of the controller half. Every other controller ability
// is an optional interface, found on the same value by [DetectController].
//
// Concurrency: csidriver never runs two of these for one volume ID, one name or
// one snapshot ID at a time, save the read-only ones (Volume, lists, Capacity,
// health). CreateVolume for a name and DeleteVolume for the ID it will have
// exclude each other only when the backend is a [VolumeIDer].
type Controller interface {
	// Volume returns the volume with this ID. A half-made one is ErrUnavailable,
	// a missing one VolumeNotFound(req.ID).
	Volume(ctx context.Context, req VolumeRequest) (*Volume, error)

	// FindVolume returns the finished volume that an earlier CreateVolume with
	// req.Name made, unchanged and without comparing it to req: csidriver
	// compares, and answers ALREADY_EXISTS. A free name, and a half-made volume,
	// is VolumeNotFound(req.Name), from a VolumeIDer also of the ID. It must not look at a content source: the
	// snapshot may be gone by the time the CO repeats the call.
	FindVolume(ctx context.Context, req CreateVolumeRequest) (*Volume, error)

	// CreateVolume makes the volume called req.Name, or finishes or replaces a
	// half-made one. csidriver calls it after FindVolume, with the name locked
	// in this process; where another replica may have won, it returns ErrExists
	// and csidriver looks again. ErrNoSpace and ErrOutOfRange promise that
	// nothing is left behind.
	//
	// Storage that an earlier volume had reads as zeros in the next one, or the
	// backend says FormatUnknown of that: with what is left there one tenant
	// would see another's files.
	CreateVolume(ctx context.Context, req CreateVolumeRequest) (*Volume, error)

	// DeleteVolume deletes a finished or half-made volume. VolumeNotFound(req.ID)
	// is success; a not-found that names anything else is not. A volume that is
	// in use, or that its snapshots depend on, is ErrInUse and left untouched.
	DeleteVolume(ctx context.Context, req DeleteVolumeRequest) error
}

// VolumeRequest names a volume.
type VolumeRequest struct {
	ID      string
	Secrets Secrets
}

// CreateVolumeRequest asks for a volume.
type CreateVolumeRequest struct {
	Name         string // any Unicode up to 128 bytes, without control characters
	Size         int64  // bytes to make: within Range, rounded by Traits; 0: none was asked for and Traits has no default
	Range        CapacityRange
	Capabilities []Capability      // the volume must serve all of them
	Parameters   map[string]string // without csi.storage.k8s.io/*, and without a key of Mutable
	Mutable      map[string]string // take precedence over Parameters, out of which csidriver takes their keys
	Topology     TopologyRequirement
	Owner        Owner
	// Fingerprint stands for the immutable parameters. It is to be kept with the
	// volume (at most 40 characters of [a-z0-9.]) and given back in
	// Volume.Fingerprint.
	Fingerprint string
	Secrets     Secrets
}

// DeleteVolumeRequest names the volume to delete.
type DeleteVolumeRequest struct {
	ID      string
	Secrets Secrets
}

// VolumeIDer says beforehand which ID CreateVolume will give. Pure, no I/O:
// with it csidriver makes create and delete of one volume exclude each other.
type VolumeIDer interface {
	VolumeID(req CreateVolumeRequest) (string, error)
}

// VolumeChecker refuses what this backend cannot serve, before anything is made
// (ErrInvalid, ErrOutOfRange); it also answers ValidateVolumeCapabilities and
// guards GetCapacity. It must not change anything.
type VolumeChecker interface {
	CheckVolume(ctx context.Context, req CheckVolumeRequest) error
}

// CheckVolumeRequest describes a volume that exists or is about to be made.
type CheckVolumeRequest struct {
	Volume       *Volume // nil: about to be made
	Capabilities []Capability
	Parameters   map[string]string
	Mutable      map[string]string
	Size         int64
	Topology     TopologyRequirement
	Source       ContentSource
	Secrets      Secrets
}

// Attacher serves PUBLISH_UNPUBLISH_VOLUME. It runs in the controller process, not on
// the node.
type Attacher interface {
	// AttachVolume makes the volume reachable from a node. Attached already with
	// the same arguments is no error; with others ErrIncompatible; a single-node
	// volume elsewhere is ErrInUse, whose text names that node, a full node
	// ErrLimit, an unknown node NodeNotFound. The answer is the same on each call
	// and holds no secrets.
	AttachVolume(ctx context.Context, req AttachVolumeRequest) (publishContext map[string]string, err error)
	// DetachVolume undoes it. Not attached, and an unknown volume or node that is
	// surely detached, is no error; a not-found says that nobody knows. Then
	// csidriver looks at what a PublishedNodesLister lists.
	DetachVolume(ctx context.Context, req DetachVolumeRequest) error
}

// AttachVolumeRequest names a volume and a node.
type AttachVolumeRequest struct {
	ID, NodeID string
	Capability Capability
	ReadOnly   bool
	Context    map[string]string // the Volume's own
	Owner      Owner
	Secrets    Secrets
}

// DetachVolumeRequest names a volume and a node; NodeID "" is every node.
type DetachVolumeRequest struct {
	ID, NodeID string
	Secrets    Secrets
}

// Expander serves EXPAND_VOLUME. A size that the volume already has, or less, is no
// error; the answer is the size it has afterwards, never less than before.
type Expander interface {
	ExpandVolume(ctx context.Context, req ExpandVolumeRequest) (size int64, err error)
}

// ExpandVolumeRequest asks for a bigger volume.
type ExpandVolumeRequest struct {
	ID         string
	Size       int64 // bytes: within Range, rounded by Traits
	Range      CapacityRange
	Capability *Capability // nil: not given
	Secrets    Secrets
}

// Cloner serves CLONE_VOLUME. The rules of CreateVolume and of RestoreSnapshot hold:
// csidriver has looked the source up, and req.Size is not less than its Capacity.
type Cloner interface {
	CloneVolume(ctx context.Context, source Volume, req CreateVolumeRequest) (*Volume, error)
}

// VolumeLister serves LIST_VOLUMES. Volumes come in an order that does not change, so
// that a token stands for a position and survives creates and deletes. An
// unknown token is ErrStaleToken. csidriver refuses what was no token of this list
// before it asks, unless it is longer than 120 bytes. A token has at most 128.
type VolumeLister interface {
	ListVolumes(ctx context.Context, req ListVolumesRequest) (vols []*Volume, next string, err error)
}

// ListVolumesRequest asks for one page.
type ListVolumesRequest struct{ Page Page }

// PublishedNodesLister marks a VolumeLister whose Volume.Nodes are complete:
// LIST_VOLUMES_PUBLISHED_NODES. It needs an [Attacher].
type PublishedNodesLister interface {
	VolumeLister
	ListsPublishedNodes()
}

// CapacityReporter serves GET_CAPACITY.
type CapacityReporter interface {
	Capacity(ctx context.Context, req CapacityRequest) (Capacity, error)
}

// CapacityRequest says for which volumes and where; empty fields are "any".
type CapacityRequest struct {
	Capabilities []Capability
	Parameters   map[string]string
	Topology     Segments
}

// Capacity in bytes. MaxVolume and MinVolume bound one volume; 0: not known.
type Capacity struct{ Available, MaxVolume, MinVolume int64 }

// Modifier serves MODIFY_VOLUME. Keys that are absent stay as they are; ErrInvalid
// promises that nothing of the call was applied.
type Modifier interface {
	ModifyVolume(ctx context.Context, req ModifyVolumeRequest) error
}

// ModifyVolumeRequest is a patch of a volume's mutable parameters.
type ModifyVolumeRequest struct {
	ID      string
	Mutable map[string]string
	Owner   Owner
	Secrets Secrets
}

// Recoverer is called once before the controller serves: finish or undo what an
// earlier process left half-made.
type Recoverer interface {
	RecoverController(ctx context.Context) error
}

// Prober answers Probe: nil is ready, ErrNotReady is ready=false, anything else
// FAILED_PRECONDITION. Cheap; csidriver caches the answer. Either half may have
// one.
type Prober interface {
	Probe(ctx context.Context) error
}
