package backends

import (
	"context"
	"os"
)

// Node is the core of the node half: it says where a volume is on this node;
// package mounter formats, mounts, binds, grows and cleans up.
//
// csikit sees one node. What keeps a single-node volume on shared storage from
// being opened on two is the storage's: an attach (Attacher), an access list, a
// reservation. OpenVolume answers ErrInUse when it is open elsewhere.
//
// Concurrency: never two of these for one volume ID at a time on a node, save
// the read-only ones.
type Node interface {
	// OpenVolume makes the volume reachable on this node. Called once per volume
	// and node while it is in use, however many staging and target paths there
	// are; called again with the same request after a crash, and then returns
	// the same Source. An unknown volume is VolumeNotFound(req.ID).
	OpenVolume(ctx context.Context, req OpenVolumeRequest) (*Source, error)
	// CloseVolume undoes OpenVolume, after the last mount of it is gone. It must
	// work from req.ID and req.State alone: CSI sends no context and no secrets
	// when it unstages. A volume that is not open, or not known any more, is no
	// error. One that is busy is ErrInUse and stays open: when all records are
	// lost, only the backend can tell.
	CloseVolume(ctx context.Context, req CloseVolumeRequest) error
}

// OpenVolumeRequest says which volume and how it is to be used.
type OpenVolumeRequest struct {
	ID             string
	Capability     Capability
	Context        map[string]string // the Volume's own, without the CO's keys
	PublishContext map[string]string // what AttachVolume answered
	Owner          Owner
	Secrets        Secrets // node-stage secrets; node-publish secrets for an ephemeral volume
	State          []byte  // what an earlier OpenVolume returned, after a crash
}

// CloseVolumeRequest says which volume.
type CloseVolumeRequest struct {
	ID    string
	State []byte // Source.State; nil when the record was lost (node wiped)
}

// Source says where a volume is on a node: exactly one of Device, Mount,
// FUSE and Dir.
type Source struct {
	Device *Device
	Mount  *Mount
	FUSE   *FUSE
	Dir    string // an absolute directory, bound as it is
	// IDMap maps the owners of files, wherever the volume is mounted; empty: as
	// they are. It needs Linux 5.12, for btrfs 5.15, for tmpfs 6.3, and a file
	// system that can do it; else the volume is refused.
	IDMap []IDMap
	// State is kept by csikit in its node record, fsynced before the first
	// mount, and handed to CloseVolume, NodeExpandVolume, RecoverNode. No
	// secrets.
	State []byte
}

// Device is a block device and how to know that it is the right one. csikit
// opens Path once, checks Identity on that descriptor, and holds it until the
// mount stands.
type Device struct {
	Path     string
	Identity Identity
	Format   FormatState
	FSType   string // with FormatStarted and FormatDone: what it was formatted with
	// MkfsOptions are added to mkfs's own, and win where they name a feature that
	// would be turned off for the running kernel; never secrets.
	MkfsOptions []string
	// Encryption asks for a layer of LUKS between the device and its data; nil:
	// none, and a device that has one is refused.
	Encryption *Encryption
}

// Identity says which device is the right one: every field that is set must
// hold. At least one besides Size is set, or Unverified says why not.
type Identity struct {
	Serial     string // sysfs device/serial, VPD 0x80
	WWID       string // sysfs wwid, VPD 0x83, NVMe uuid or nguid
	DMUUID     string // sysfs dm/uuid
	BackingDev uint64 // loop: device number of the file behind, as in stat(2) st_dev
	BackingIno uint64 // loop: inode of the file behind
	Size       int64  // bytes; a check besides, never alone
	Check      func(ctx context.Context, dev *os.File) error
	Unverified string // why nothing above can be known
}

// FormatState is what the backend remembers about the file system.
type FormatState uint8

// What a backend may remember.
const (
	// FormatUnknown means no memory. Only a device that reads as blank is formatted;
	// an mkfs that was killed can be redone only from this node's record.
	FormatUnknown FormatState = iota
	// FormatNever means that this volume was never formatted, the backend vouches
	// for it. It counts only from a FormatRecorder, which can take it back;
	// otherwise it is FormatUnknown.
	// Leftover bytes without a known signature may be overwritten; a file system is
	// refused, as left by somebody else. So never of a clone or a restored snapshot.
	FormatNever
	// FormatStarted means that mkfs may have been cut short; it may be run again.
	FormatStarted
	// FormatDone means done: never formatted again, even if it reads as blank.
	FormatDone
)

// String is the name used in records and messages.
func (s FormatState) String() string {
	switch s {
	case FormatNever:
		return "never"
	case FormatStarted:
		return "started"
	case FormatDone:
		return "done"
	default:
		return "unknown"
	}
}

// Mount is one mount without its target.
type Mount struct {
	Source, FSType string
	Options        []string          // no secrets: those go to Env or Files
	Remote         bool              // stat, statfs and access may hang: only in a child
	Env            Secrets           // for the helper: never in argv
	Files          map[string]Secret // option name -> content, given to the helper as a file it can open
}

// FormatRecorder remembers with the volume, not with the node, that it was
// formatted. Called before mkfs (FormatStarted) and after it (FormatDone), and
// durable when it returns.
type FormatRecorder interface {
	RecordFormat(ctx context.Context, req RecordFormatRequest) error
}

// RecordFormatRequest is what to remember.
type RecordFormatRequest struct {
	ID     string
	Format FormatState // FormatStarted or FormatDone
	FSType string      // "": used as a raw block device, so that there may be data
	State  []byte
	// Secrets are those of the stage.
	Secrets Secrets
}

// NodeExpander makes the device as big as the volume (rescan, LOOP_SET_CAPACITY)
// before csikit grows the file system.
type NodeExpander interface {
	NodeExpandVolume(ctx context.Context, req NodeExpandVolumeRequest) error
}

// NodeExpandVolumeRequest says which volume, and what size is expected.
type NodeExpandVolumeRequest struct {
	ID      string
	Range   CapacityRange // zero: whatever the volume has
	State   []byte
	Secrets Secrets
}

// TargetPreparer is told of each target path before it is bound, and again with
// fresh tokens and secrets when the CO republishes (never remounted).
type TargetPreparer interface {
	PrepareTarget(ctx context.Context, req TargetRequest) error
}

// TargetRequest is one target path of a volume.
type TargetRequest struct {
	ID, Path string // ID is the backend's own, also of an ephemeral volume
	ReadOnly bool
	Again    bool // published already
	Context  map[string]string
	Owner    Owner
	Secrets  Secrets
	State    []byte
}

// EphemeralProvisioner makes volumes that live as long as one target path.
// csikit writes its record before CreateEphemeral, then calls OpenVolume with
// the Volume's own ID and Context, which may not be those of another volume. At
// unpublish: CloseVolume, DeleteEphemeral.
type EphemeralProvisioner interface {
	// CreateEphemeral is called again with the same ID when the driver died before
	// it returned, or when nobody knows what an error left, and then returns the
	// same Volume. Its Context is kept on the node: no secrets.
	CreateEphemeral(ctx context.Context, req CreateEphemeralRequest) (*Volume, error)
	// DeleteEphemeral has no parameters and no secrets to work with. VolumeID is
	// "" when the driver died before CreateEphemeral returned. A volume that is not
	// there, or not any more, is no error.
	DeleteEphemeral(ctx context.Context, req DeleteEphemeralRequest) error
}

// CreateEphemeralRequest asks for a volume of a pod's own.
type CreateEphemeralRequest struct {
	ID         string            // the CO's, unique to the pod and volume
	Parameters map[string]string // the pod's volumeAttributes: untrusted
	Capability Capability
	ReadOnly   bool
	Owner      Owner
	Secrets    Secrets
}

// DeleteEphemeralRequest names an ephemeral volume.
type DeleteEphemeralRequest struct {
	ID, VolumeID string
	State        []byte
}

// StatsReporter replaces csikit's own statfs answer to NodeGetVolumeStats.
type StatsReporter interface {
	VolumeStats(ctx context.Context, req VolumeStatsRequest) (*VolumeStats, error)
}

// VolumeStatsRequest names a volume and a path where it is mounted.
type VolumeStatsRequest struct {
	ID, Path string
	State    []byte
}

// VolumeStats in bytes and inodes. A block volume has Total alone.
type VolumeStats struct{ Total, Used, Available, Inodes, InodesUsed, InodesFree int64 }

// TopologyReporter says where this node is, in Traits.TopologyKeys. The answer
// stays the same for the life of the node.
type TopologyReporter interface {
	NodeTopology(ctx context.Context) (Segments, error)
}

// AttachLimiter says how many volumes this node can hold; 0: the CO decides.
type AttachLimiter interface {
	MaxVolumes(ctx context.Context) (int64, error)
}

// NodeRecoverer is called once before the node serves, with what csikit's
// records say is open here. Whatever else the backend finds of its own on this
// node (a loop device, an active LV) and nobody uses, it closes.
type NodeRecoverer interface {
	RecoverNode(ctx context.Context, open []OpenVolume) error
}

// OpenVolume is a volume that csikit's records call open on this node.
type OpenVolume struct {
	ID        string
	State     []byte
	Mounted   bool
	Ephemeral bool
}
