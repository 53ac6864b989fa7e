package csidriver

import (
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

// features is what the backend can do, after its filters, and what follows from
// it. It is made once and is the same in every process of the driver.
type features struct {
	traits     backends.Traits
	controller backends.ControllerFeatures
	node       backends.NodeFeatures
	hasControl bool // the driver has a controller half, here or elsewhere
	hasNode    bool
	noAlpha    bool
}

func newFeatures(cfg *Config, o *Options) *features {
	return &features{
		traits:     cfg.Traits,
		controller: backends.DetectController(cfg.Controller),
		node:       backends.DetectNode(cfg.Node),
		hasControl: cfg.Controller != nil,
		hasNode:    cfg.Node != nil,
		noAlpha:    o.NoAlpha,
	}
}

// expands tells whether volumes can grow at all, and nodeExpands whether the
// node has a part in it: a device is to be made bigger there, or a file system.
func (f *features) expands() bool     { return f.controller.Expander != nil || f.node.NodeExpander != nil }
func (f *features) nodeExpands() bool { return f.hasNode && f.traits.Devices && f.expands() }

// nodeExpansion tells whether the node must be asked to expand this kind of
// volume too.
func (f *features) nodeExpansion(c *csi.VolumeCapability) bool {
	if c.GetBlock() != nil {
		return f.nodeExpands() && f.node.NodeExpander != nil
	}
	return f.nodeExpands()
}

func (f *features) topology() bool         { return len(f.traits.TopologyKeys) > 0 }
func (f *features) snapshotTopology() bool { return f.traits.SnapshotTopology && !f.noAlpha }
func (f *features) groups() bool           { return f.controller.GroupSnapshotter != nil }
func (f *features) metadata() bool         { return f.controller.ChangedBlockTracker != nil && !f.noAlpha }

// plugin lists what GetPluginCapabilities answers: the sum of all processes of
// the driver, whatever this one serves.
func (f *features) plugin() []*csi.PluginCapability {
	var list []*csi.PluginCapability
	if f.hasControl {
		list = append(list, pbconv.Service(csi.PluginCapability_Service_CONTROLLER_SERVICE))
	}
	if f.topology() {
		list = append(list, pbconv.Service(csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS))
	}
	if f.groups() {
		list = append(list, pbconv.Service(csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE))
	}
	if f.metadata() {
		list = append(list, pbconv.Service(csi.PluginCapability_Service_SNAPSHOT_METADATA_SERVICE))
	}
	if f.snapshotTopology() {
		list = append(list, pbconv.Service(csi.PluginCapability_Service_SNAPSHOT_ACCESSIBILITY_CONSTRAINTS))
	}
	switch {
	case !f.expands():
	case f.traits.OfflineExpand:
		list = append(list, pbconv.Expansion(csi.PluginCapability_VolumeExpansion_OFFLINE))
	default:
		list = append(list, pbconv.Expansion(csi.PluginCapability_VolumeExpansion_ONLINE))
	}
	return list
}

// row is a capability, whether this driver has it, and the RPCs that are served
// because of it.
type row[T any] struct {
	capability T
	have       bool
	alpha      bool
	methods    []string
}

func (f *features) controllerRows() []row[csi.ControllerServiceCapability_RPC_Type] {
	c := &f.controller
	return usable(f, []row[csi.ControllerServiceCapability_RPC_Type]{
		{
			capability: csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
			have:       true,
			methods:    []string{csi.Controller_CreateVolume_FullMethodName, csi.Controller_DeleteVolume_FullMethodName},
		},
		{
			capability: csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
			have:       c.Attacher != nil,
			methods:    []string{csi.Controller_ControllerPublishVolume_FullMethodName, csi.Controller_ControllerUnpublishVolume_FullMethodName},
		},
		{
			capability: csi.ControllerServiceCapability_RPC_PUBLISH_READONLY,
			have:       f.traits.AttachReadOnly,
		},
		{
			capability: csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
			have:       c.VolumeLister != nil,
			methods:    []string{csi.Controller_ListVolumes_FullMethodName},
		},
		{
			capability: csi.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES,
			have:       c.PublishedNodesLister != nil,
		},
		{
			capability: csi.ControllerServiceCapability_RPC_GET_CAPACITY,
			have:       c.CapacityReporter != nil,
			methods:    []string{csi.Controller_GetCapacity_FullMethodName},
		},
		{
			capability: csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
			have:       c.Snapshotter != nil,
			methods:    []string{csi.Controller_CreateSnapshot_FullMethodName, csi.Controller_DeleteSnapshot_FullMethodName},
		},
		{
			capability: csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
			have:       c.SnapshotLister != nil,
			methods:    []string{csi.Controller_ListSnapshots_FullMethodName},
		},
		{
			capability: csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
			have:       c.Cloner != nil,
		},
		{
			capability: csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
			have:       c.Expander != nil,
			methods:    []string{csi.Controller_ControllerExpandVolume_FullMethodName},
		},
		{
			capability: csi.ControllerServiceCapability_RPC_GET_VOLUME,
			have:       true,
			alpha:      true,
			methods:    []string{csi.Controller_ControllerGetVolume_FullMethodName},
		},
		{
			capability: csi.ControllerServiceCapability_RPC_GET_VOLUME_HEALTH,
			have:       c.HealthChecker != nil,
			alpha:      true,
			methods:    []string{csi.Controller_ControllerGetVolumeHealth_FullMethodName},
		},
		{
			capability: csi.ControllerServiceCapability_RPC_LIST_VOLUME_HEALTH,
			have:       c.HealthLister != nil,
			alpha:      true,
			methods:    []string{csi.Controller_ControllerListVolumeHealth_FullMethodName},
		},
		{
			capability: csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
			have:       singleNodeWriters(&f.traits),
			alpha:      true,
		},
		{
			capability: csi.ControllerServiceCapability_RPC_MODIFY_VOLUME,
			have:       c.Modifier != nil,
			methods:    []string{csi.Controller_ControllerModifyVolume_FullMethodName},
		},
		{
			capability: csi.ControllerServiceCapability_RPC_GET_SNAPSHOT,
			have:       c.Snapshotter != nil,
			alpha:      true,
			methods:    []string{csi.Controller_GetSnapshot_FullMethodName},
		},
	})
}

func (f *features) groupRows() []row[csi.GroupControllerServiceCapability_RPC_Type] {
	return usable(f, []row[csi.GroupControllerServiceCapability_RPC_Type]{
		{
			capability: csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT,
			have:       f.groups(),
			methods: []string{
				csi.GroupController_GroupControllerGetCapabilities_FullMethodName,
				csi.GroupController_CreateVolumeGroupSnapshot_FullMethodName,
				csi.GroupController_DeleteVolumeGroupSnapshot_FullMethodName,
				csi.GroupController_GetVolumeGroupSnapshot_FullMethodName,
			},
		},
	})
}

func (f *features) nodeRows() []row[csi.NodeServiceCapability_RPC_Type] {
	return usable(f, []row[csi.NodeServiceCapability_RPC_Type]{
		{
			capability: csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
			have:       f.traits.Lifecycle&backends.Persistent != 0, // an ephemeral volume is not staged
			methods:    []string{csi.Node_NodeStageVolume_FullMethodName, csi.Node_NodeUnstageVolume_FullMethodName},
		},
		{
			capability: csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
			have:       true,
			methods:    []string{csi.Node_NodeGetVolumeStats_FullMethodName},
		},
		{
			capability: csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
			have:       f.nodeExpands(),
			methods:    []string{csi.Node_NodeExpandVolume_FullMethodName},
		},
		{
			capability: csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP,
			have:       f.traits.MountGroup,
		},
		{
			capability: csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH,
			have:       true, // the engine looks, whether the backend does too or not
			alpha:      true,
			methods:    []string{csi.Node_NodeGetVolumeHealth_FullMethodName},
		},
		{
			capability: csi.NodeServiceCapability_RPC_GET_STORAGE_HEALTH,
			have:       f.node.StorageHealthChecker != nil,
			alpha:      true,
			methods:    []string{csi.Node_NodeGetStorageHealth_FullMethodName},
		},
		{
			capability: csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
			have:       singleNodeWriters(&f.traits),
			alpha:      true,
		},
	})
}

// usable keeps the rows of what the driver has and may say.
func usable[T any](f *features, rows []row[T]) []row[T] {
	return slices.DeleteFunc(rows, func(r row[T]) bool { return !r.have || r.alpha && f.noAlpha })
}

func (f *features) controllerCapabilities() []*csi.ControllerServiceCapability {
	var list []*csi.ControllerServiceCapability
	for _, r := range f.controllerRows() {
		list = append(list, pbconv.ControllerCapability(r.capability))
	}
	return list
}

func (f *features) groupCapabilities() []*csi.GroupControllerServiceCapability {
	var list []*csi.GroupControllerServiceCapability
	for _, r := range f.groupRows() {
		list = append(list, pbconv.GroupCapability(r.capability))
	}
	return list
}

// names are the capabilities that a process with these services advertises, for
// its log.
func (f *features) names(s Services) []string {
	var list []string
	if s&ServeController != 0 {
		for _, r := range f.controllerRows() {
			list = append(list, r.capability.String())
		}
	}
	if s&ServeNode != 0 {
		for _, r := range f.nodeRows() {
			list = append(list, "node "+r.capability.String())
		}
	}
	return list
}

func (f *features) nodeCapabilities() []*csi.NodeServiceCapability {
	var list []*csi.NodeServiceCapability
	for _, r := range f.nodeRows() {
		list = append(list, pbconv.NodeCapability(r.capability))
	}
	return list
}

// always are the RPCs that a service answers whatever its capabilities, and
// early those that answer while the driver starts.
var (
	alwaysController = []string{
		csi.Controller_ValidateVolumeCapabilities_FullMethodName,
		csi.Controller_ControllerGetCapabilities_FullMethodName,
	}
	alwaysNode = []string{
		csi.Node_NodePublishVolume_FullMethodName,
		csi.Node_NodeUnpublishVolume_FullMethodName,
		csi.Node_NodeGetCapabilities_FullMethodName,
		csi.Node_NodeGetInfo_FullMethodName,
	}
	alwaysIdentity = []string{
		csi.Identity_GetPluginInfo_FullMethodName,
		csi.Identity_GetPluginCapabilities_FullMethodName,
		csi.Identity_Probe_FullMethodName,
	}
	metadataMethods = []string{
		csi.SnapshotMetadata_GetMetadataAllocated_FullMethodName,
		csi.SnapshotMetadata_GetMetadataDelta_FullMethodName,
	}
	early = map[string]bool{
		csi.Identity_GetPluginInfo_FullMethodName:                         true,
		csi.Identity_GetPluginCapabilities_FullMethodName:                 true,
		csi.Identity_Probe_FullMethodName:                                 true,
		csi.Controller_ControllerGetCapabilities_FullMethodName:           true,
		csi.GroupController_GroupControllerGetCapabilities_FullMethodName: true,
		csi.Node_NodeGetCapabilities_FullMethodName:                       true,
		csi.Node_NodeGetInfo_FullMethodName:                               true,
	}
)

// served lists the RPCs that this process answers.
func (f *features) served(s Services) map[string]bool {
	set := make(map[string]bool)
	add := func(methods []string) {
		for _, m := range methods {
			set[m] = true
		}
	}
	add(alwaysIdentity)
	if s&ServeController != 0 {
		add(alwaysController)
		for _, r := range f.controllerRows() {
			add(r.methods)
		}
		for _, r := range f.groupRows() {
			add(r.methods)
		}
		if f.metadata() {
			add(metadataMethods)
		}
	}
	if s&ServeNode != 0 {
		add(alwaysNode)
		for _, r := range f.nodeRows() {
			add(r.methods)
		}
	}
	return set
}
