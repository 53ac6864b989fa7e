package backends

// Volume is what a backend knows of one of its volumes.
type Volume struct {
	ID          string            // at most 128 bytes; enough to find the volume without anything else
	Name        string            // as in CreateVolumeRequest, when it is known
	Capacity    int64             // bytes; 0: not known
	Context     map[string]string // given back at attach, stage and publish; the same each time, no secrets
	Source      ContentSource
	Topology    []Segments
	Fingerprint string            // "" when the backend cannot keep it: then only what is visible here is compared
	Mutable     map[string]string // as they were asked for last; nil: not known, and not compared
	Nodes       []string          // where it is attached; only from a PublishedNodesLister
}

// ContentSource is what a volume was made of: at most one is set.
type ContentSource struct{ SnapshotID, VolumeID string }

// Capability is one way in which a volume is to be used.
type Capability struct {
	Mode   AccessMode
	Block  bool   // a raw block device; else a mounted file system
	FSType string // "" asks for the default
	Flags  Flags  // mount options; CSI: may hold secrets
	Group  string // VOLUME_MOUNT_GROUP
}

// AccessMode says how many nodes and writers a volume has at a time.
type AccessMode uint8

// The access modes of CSI.
const (
	SingleNodeWriter AccessMode = iota + 1
	SingleNodeReader
	SingleNodeSingleWriter
	SingleNodeMultiWriter
	MultiNodeReader
	MultiNodeSingleWriter
	MultiNodeMultiWriter
)

// String is the name in the CSI spec.
func (m AccessMode) String() string {
	switch m {
	case SingleNodeWriter:
		return "SINGLE_NODE_WRITER"
	case SingleNodeReader:
		return "SINGLE_NODE_READER_ONLY"
	case SingleNodeSingleWriter:
		return "SINGLE_NODE_SINGLE_WRITER"
	case SingleNodeMultiWriter:
		return "SINGLE_NODE_MULTI_WRITER"
	case MultiNodeReader:
		return "MULTI_NODE_READER_ONLY"
	case MultiNodeSingleWriter:
		return "MULTI_NODE_SINGLE_WRITER"
	case MultiNodeMultiWriter:
		return "MULTI_NODE_MULTI_WRITER"
	default:
		return "UNKNOWN"
	}
}

// ReadOnly tells the modes in which nobody writes.
func (m AccessMode) ReadOnly() bool { return m == SingleNodeReader || m == MultiNodeReader }

// MultiNode tells the modes in which several nodes hold the volume.
func (m AccessMode) MultiNode() bool { return m >= MultiNodeReader }

// CapacityRange in bytes; 0 is unset.
type CapacityRange struct{ Required, Limit int64 }

// Segments are topology keys and values of one place.
type Segments map[string]string

// TopologyRequirement says where a volume must be reachable; Preferred is tried
// in order.
type TopologyRequirement struct{ Requisite, Preferred []Segments }

// Page asks for a part of a list.
type Page struct {
	Token string // of an earlier answer; "" starts
	Limit int    // > 0: csidriver always sets it, so that an answer stays under gRPC's 4 MiB
}

// Owner is what Kubernetes adds about who asks; empty elsewhere.
type Owner struct {
	PVC, PVCNamespace, PV       string
	Snapshot, SnapshotNamespace string
	SnapshotContent             string
	Pod, PodNamespace, PodUID   string
	ServiceAccount              string
	Tokens                      Secret // serviceAccount.tokens, JSON
}
