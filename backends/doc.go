// Package backends is the contract between csikit and a storage system.
//
// A driver author writes a backend: a [Controller] that makes and deletes
// volumes, a [Node] that says where a volume is on a node, or both on one value.
// Package csidriver turns it into a CSI v1.13 driver. Everything beyond those two
// interfaces is an optional interface named by its role; a CSI capability is
// advertised exactly when the backend's method set holds the interface:
//
//	interface             capability or RPC
//	Controller            CREATE_DELETE_VOLUME, GET_VOLUME, ValidateVolumeCapabilities
//	Attacher              PUBLISH_UNPUBLISH_VOLUME
//	Expander              EXPAND_VOLUME (with Traits.Devices also on the node)
//	Snapshotter           CREATE_DELETE_SNAPSHOT, GET_SNAPSHOT
//	Cloner                CLONE_VOLUME
//	VolumeLister          LIST_VOLUMES
//	PublishedNodesLister  LIST_VOLUMES_PUBLISHED_NODES
//	SnapshotLister        LIST_SNAPSHOTS
//	CapacityReporter      GET_CAPACITY
//	Modifier              MODIFY_VOLUME
//	GroupSnapshotter      GROUP_CONTROLLER_SERVICE
//	ChangedBlockTracker   SNAPSHOT_METADATA_SERVICE
//	HealthChecker         GET_VOLUME_HEALTH
//	HealthLister          LIST_VOLUME_HEALTH
//	NodeHealthChecker     what GET_VOLUME_HEALTH on the node says besides what the kernel shows
//	StorageHealthChecker  GET_STORAGE_HEALTH
//	EphemeralProvisioner  inline ephemeral volumes
//	TopologyReporter      VOLUME_ACCESSIBILITY_CONSTRAINTS
//	AttachLimiter         NodeGetInfo.max_volumes_per_node
//	Prober                Probe
//
// The rest (VolumeIDer, SnapshotIDer, GroupSnapshotIDer, VolumeChecker,
// FormatRecorder, NodeExpander, TargetPreparer, StatsReporter, Recoverer,
// NodeRecoverer, FUSEReopener, RemoteMounter) changes how csikit works, not what it advertises. A
// method of the right name and the wrong signature is silently none of these: write
// the compiler's check beside the type,
//
//	var _ backends.Expander = (*Backend)(nil)
//
// for each interface that you mean to implement; csidriver logs at its start which
// capabilities it found.
//
// # Rules for every method
//
// Sizes are bytes. Requests have been validated: required fields are set, access
// modes and file systems are of [Traits], sizes are resolved. A method may be
// called again with the same request after any failure, a crash included, and
// must then finish or redo the work. Errors are kinds (errors.go) wrapped with
// %w and the words of the tool or kernel; an error of no kind from a method that
// changes something means "nobody knows what is left" and makes the CO retry.
// The context is not cancelled by the client's deadline: it ends when the
// operation makes no [Progress] for Options.Stall, when the opposite operation
// is asked for, or when the driver stops.
//
// # When not to use it
//
// A driver that already has its own csi.ControllerServer and csi.NodeServer can
// take package mounter or package idempotency alone.
//
// This package imports the standard library only, and a backend can be unit
// tested without gRPC.
package backends
