// Package csidriver turns a backend into a CSI v1.13 driver: the gRPC server, the
// protocol, capabilities, validation, retries, the node's mounts.
//
//	driver, err := csidriver.New(csidriver.Config{
//		Name: "csi.example.com", Version: version, Traits: traits,
//		Controller: backend, Node: backend,
//	}, &csidriver.Options{NodeID: nodeID, StateDir: "/var/lib/csi.example.com"})
//	if err != nil {
//		return err // all that does not fit together
//	}
//	return driver.Run(ctx, "") // at CSI_ENDPOINT, until ctx ends
//
// # Life of a process
//
// [New] detects what the backend can do, once, and refuses what contradicts
// itself. [Driver.Run] listens at once: Identity, the capabilities and
// NodeGetInfo answer from the first moment, with ready=false from Probe, and
// everything else is UNAVAILABLE. Then the node's records and the backend's
// Recoverer clean up what an earlier process left half-done, and the driver is
// ready. When the context ends it drains: no new calls, and up to Options.Drain
// for those that run, and for the operations that outlived their calls. What had
// to be cut is named in a [*DrainError]. Signals are main's: signal.NotifyContext.
//
// The controller and the node may be one process or several, by Config.Serve.
// Both halves are given in each, so that Identity is the same everywhere.
//
// # Capabilities
//
// There is no list to keep. A capability is advertised, and its RPCs are served,
// exactly when the backend has the method (after its filters); every other RPC
// is UNIMPLEMENTED.
//
//	CONTROLLER_SERVICE                Config.Controller
//	CREATE_DELETE_VOLUME, GET_VOLUME  backends.Controller
//	PUBLISH_UNPUBLISH_VOLUME          backends.Attacher
//	PUBLISH_READONLY                  Traits.AttachReadOnly
//	LIST_VOLUMES                      backends.VolumeLister
//	LIST_VOLUMES_PUBLISHED_NODES      backends.PublishedNodesLister
//	GET_CAPACITY                      backends.CapacityReporter
//	EXPAND_VOLUME                     backends.Expander
//	CREATE_DELETE_SNAPSHOT,
//	GET_SNAPSHOT (alpha)              backends.Snapshotter
//	LIST_SNAPSHOTS                    backends.SnapshotLister
//	CLONE_VOLUME                      backends.Cloner
//	MODIFY_VOLUME                     backends.Modifier
//	GROUP_CONTROLLER_SERVICE          backends.GroupSnapshotter
//	SNAPSHOT_METADATA_SERVICE (alpha) backends.ChangedBlockTracker
//	VolumeExpansion ONLINE, OFFLINE   backends.Expander or NodeExpander; Traits.OfflineExpand
//	GET_VOLUME_STATS                  backends.Node
//	STAGE_UNSTAGE_VOLUME              backends.Node, unless all volumes are ephemeral
//	VOLUME_MOUNT_GROUP                Traits.MountGroup
//	EXPAND_VOLUME on the node         Traits.Devices, and Expander or NodeExpander
//	GET_VOLUME_HEALTH                 backends.HealthChecker; on the node backends.Node, and what a
//	                                  NodeHealthChecker knows besides
//	LIST_VOLUME_HEALTH                backends.HealthLister
//	GET_STORAGE_HEALTH                backends.StorageHealthChecker
//	VOLUME_ACCESSIBILITY_CONSTRAINTS  Traits.TopologyKeys
//	SNAPSHOT_ACCESSIBILITY_CONSTRAINTS (alpha)  Traits.SnapshotTopology
//	SINGLE_NODE_MULTI_WRITER          one of the two modes that it stands for in Traits.Modes
//
// An inline ephemeral volume of a pod has no capability of its own: it is served
// with backends.EphemeralProvisioner and Traits.Lifecycle, which must agree, and
// NodePublishVolume makes it, NodeUnpublishVolume deletes it.
//
// With Options.NoAlpha what the spec calls alpha is neither: GET_VOLUME,
// GET_SNAPSHOT, health, SNAPSHOT_METADATA_SERVICE, the topology of snapshots,
// SINGLE_NODE_MULTI_WRITER.
//
// # Snapshots, clones and groups
//
// A volume of a content source has at least the size of it; a request for less,
// after rounding, is OUT_OF_RANGE, and one without a size gets the source's. A
// snapshot that is still being copied is ABORTED as a source. A retry finds its
// volume by name before the source is looked at, which may be gone by then. What
// exists under a name is compared field by field: ALREADY_EXISTS names the field.
//
// A member of a group snapshot is not deleted alone. The members that a CO names
// are compared with the group's; without any nothing is compared. A group is
// ready when its members are.
//
// The blocks of a snapshot are checked (order, overlap, sizes) and cut into
// messages as they come; a stream ends well only when all were sent. Its snapshots
// are not deleted meanwhile, unless it has lasted for ten minutes. With replicas
// (Options.Locker) it ends then, with ABORTED, to be gone on with at its offset.
//
// A request to modify is checked as a whole, by Traits.Parameters and the
// VolumeChecker, before the backend sees any of it.
//
// # Operations
//
// What changes something runs as an operation of package idempotency: it goes on
// when the caller has given up, and the retry joins it. Two calls for one volume
// exclude each other; the later waits for Options.Wait and is then told, by
// ABORTED, what it waited for. An unstage stops a running stage, an unpublish a
// publish, a detach an attach, and a delete a create if the backend says IDs
// beforehand (backends.VolumeIDer, SnapshotIDer, GroupSnapshotIDer). Copies share
// their source, which cannot be deleted meanwhile. Calls to publish one volume at
// several targets run side by side.
//
// [Driver.Running] is the table of what runs: who asked for it, its age, its step,
// who waits for it. idempotency/debug serves it over HTTP:
//
//	http.Handle("/debug/operations", debug.Handler(driver)) // where only operators reach it
//
// An operation that was cancelled and does not end (a process that nothing kills,
// a server that is gone) keeps its volume locked, for nobody knows what it still
// does. Its callers are told ABORTED and why; the log, csikit.operation.stuck, the
// health of the volume (DEGRADED OperationStuck) and Running name it.
//
// # Errors
//
// A backend answers kinds of errors, and only this package knows codes:
//
//	ErrInvalid                             INVALID_ARGUMENT
//	NotFoundError of the asked object      NOT_FOUND; OK for a delete
//	NotFoundError of anything else         as an error of no kind
//	ErrIncompatible                        ALREADY_EXISTS
//	ErrOutOfRange                          OUT_OF_RANGE
//	ErrNoSpace, ErrLimit                   RESOURCE_EXHAUSTED
//	ErrInUse, ErrPrecondition              FAILED_PRECONDITION
//	ErrPending, ErrStaleToken              ABORTED
//	ErrUnavailable, ErrExists, ErrNotReady UNAVAILABLE
//	ErrPermission                          PERMISSION_DENIED
//	ErrUnauthenticated                     UNAUTHENTICATED
//	ErrUnsupported                         UNIMPLEMENTED
//	ErrDataLoss                            DATA_LOSS
//	ErrFailed                              INTERNAL
//	the context's error                    DEADLINE_EXCEEDED, CANCELLED
//	no kind, a panic, a bad answer         UNAVAILABLE if the RPC changes something, else INTERNAL
//
// COs forget a volume after any code but CANCELLED, DEADLINE_EXCEEDED,
// UNAVAILABLE, ABORTED (and, outside of CreateVolume, RESOURCE_EXHAUSTED). So of
// two kinds in one error the one that keeps the CO retrying wins, and an error
// that says nothing never ends its retries. A gRPC status inside a backend's
// error speaks of the vendor's API and is not passed on.
//
// Probe answers FAILED_PRECONDITION for every error but ErrNotReady, which is
// ready=false, and while the program is missing that makes the default file
// system. A backend is asked every 5 s at most, however often Probe is called.
//
// # Telemetry
//
// Options.TracerProvider and Options.MeterProvider take what the OpenTelemetry
// SDK, or anything else that has its API, makes; this package links the API only.
// Without them nothing is added to an RPC. What there is:
//
//	span csi.v1.Node/NodeStageVolume   an RPC, a child of the span that its metadata names (W3C)
//	span operation NodeStageVolume     its work, which may outlive it, with the request_id of the log
//	span mkfs.ext4                     a host tool of the node engine; of a backend by CommandObserver
//	rpc.server.call.duration           seconds, by method and code
//	csikit.operation.duration          seconds, by operation and code
//	csikit.operation.active            operations that run, by operation
//	csikit.operation.stuck             of these, those that were cancelled and do not end, each with its volume locked
//	csikit.operation.events            calls that join, wait, get ABORTED or negate; stalls, stuck operations
//	csikit.command.duration            seconds, by tool and exit code
//
// IDs of volumes and snapshots are in spans and not in metrics. Nothing else of a
// request is in either, and no secret of it in the text of an error.
//
// # When not to use it
//
// A driver with csi.*Server values of its own can have them served by [NewServer]
// alone: the endpoint, the interceptors, redacted logs and the drain.
package csidriver
