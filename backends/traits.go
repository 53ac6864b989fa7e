package backends

// Traits is what holds for the driver wherever it runs: the controller process
// and every node give the same (CSI: "all instances ... SHALL return the same
// set of capabilities"). A value of a constant, not of a connection.
type Traits struct {
	Modes            []AccessMode // of any volume; per-volume limits belong in CheckVolume
	Block            bool         // raw block volumes
	Filesystem       bool         // mounted volumes
	Devices          bool         // OpenVolume returns devices: node expansion is needed, FSTypes matter
	FSTypes          []string     // the first is the default; used only with Devices
	Lifecycle        Lifecycle    // Persistent, Ephemeral or both
	TopologyKeys     []string     // non-empty: VOLUME_ACCESSIBILITY_CONSTRAINTS
	SnapshotTopology bool         // SNAPSHOT_ACCESSIBILITY_CONSTRAINTS
	OfflineExpand    bool         // EXPAND only while unpublished
	AttachReadOnly   bool         // PUBLISH_READONLY
	MountGroup       bool         // VOLUME_MOUNT_GROUP: kubelet leaves fsGroup to the driver; see package mounter for what it does then
	SizeMin          int64        // bytes
	SizeMax          int64        // bytes; 0: no limit
	SizeDefault      int64        // bytes, when no capacity is asked for; 0: volumes have no size of their own
	SizeStep         int64        // bytes: csikit rounds up to a multiple; a backend with steps per class does it itself
	Parameters       []Parameter  // nil: any. Otherwise an unknown one is INVALID_ARGUMENT before anything is made
	Kubernetes       Kubernetes   // what the CSIDriver object must say; travels in GetPluginInfo.manifest
}

// Lifecycle says which kinds of volume the node half serves.
type Lifecycle uint8

// Kinds of volume.
const (
	Persistent Lifecycle = 1 << iota // made by CreateVolume, or static
	Ephemeral                        // made at publish for one pod (EphemeralProvisioner)
)

// Kubernetes is what CSI has no field for and manifests need.
type Kubernetes struct {
	PodInfo       bool   // which pod a volume is published for; implied by Ephemeral
	FSGroupPolicy string // "File", "None" or "ReadWriteOnceWithFSType"; "" is the last
	Republish     bool
	SELinuxMount  bool
	// StorageCapacity: the scheduler leaves out nodes whose storage has no room. Only
	// with topology: of a driver without external-provisioner deletes what it has just
	// said (csikit manifests).
	StorageCapacity bool
	TokenAudiences  []string
	// NodeLocal: each node's process makes, copies and deletes the volumes of its own
	// node, and needs both halves there (distributed provisioning).
	NodeLocal bool
	// HostNetwork: nodes are in the network of the host, for connections of the kernel
	// (NFS, iSCSI) that must outlive the driver's pod.
	HostNetwork bool
	// PrivilegedController: the controller half mounts, too.
	PrivilegedController bool
	// HostPaths are directories of the host that nodes need besides /dev and kubelet's,
	// as /run/lock/lvm; they are made if they are not there.
	HostPaths []string
}

// Parameter describes one parameter of CreateVolume (StorageClass) or, when
// Mutable, of ModifyVolume too (VolumeAttributesClass).
type Parameter struct {
	Name, Doc, Default string
	Values             []string // nil: any
	Required, Mutable  bool
}
