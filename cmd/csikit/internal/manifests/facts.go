package manifests

import (
	"context"
	"fmt"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Keys of GetPluginInfo.manifest that csidriver writes.
const (
	csiDriverPrefix  = "kubernetes.csidriver/"
	deploymentPrefix = "kubernetes.deployment/"
)

// Facts are what a driver says of itself.
type Facts struct {
	Name, Version string

	manifest   map[string]string
	service    map[csi.PluginCapability_Service_Type]bool
	expansion  map[csi.PluginCapability_VolumeExpansion_Type]bool
	controller map[csi.ControllerServiceCapability_RPC_Type]bool
	group      map[csi.GroupControllerServiceCapability_RPC_Type]bool
	node       bool // it has a Node service
	nodeExpand bool
}

// Ask asks a driver. node is its connection where the Node service answers
// elsewhere, else the same.
func Ask(ctx context.Context, controller, node grpc.ClientConnInterface) (*Facts, error) {
	info, err := csi.NewIdentityClient(controller).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
	if err != nil {
		return nil, fmt.Errorf("GetPluginInfo: %w", err)
	}
	f := &Facts{
		Name: info.GetName(), Version: info.GetVendorVersion(), manifest: info.GetManifest(),
		service: map[csi.PluginCapability_Service_Type]bool{}, expansion: map[csi.PluginCapability_VolumeExpansion_Type]bool{},
		controller: map[csi.ControllerServiceCapability_RPC_Type]bool{}, group: map[csi.GroupControllerServiceCapability_RPC_Type]bool{},
	}
	for _, ask := range []func() error{
		func() error { return f.askPlugin(ctx, controller) },
		func() error { return f.askController(ctx, controller) },
		func() error { return f.askGroup(ctx, controller) },
		func() error { return f.askNode(ctx, node) },
	} {
		if err := ask(); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *Facts) askPlugin(ctx context.Context, conn grpc.ClientConnInterface) error {
	resp, err := csi.NewIdentityClient(conn).GetPluginCapabilities(ctx, &csi.GetPluginCapabilitiesRequest{})
	if err != nil {
		return fmt.Errorf("GetPluginCapabilities: %w", err)
	}
	for _, c := range resp.GetCapabilities() {
		if c.GetService() != nil {
			f.service[c.GetService().GetType()] = true
		}
		if c.GetVolumeExpansion() != nil {
			f.expansion[c.GetVolumeExpansion().GetType()] = true
		}
	}
	return nil
}

func (f *Facts) askController(ctx context.Context, conn grpc.ClientConnInterface) error {
	if !f.hasController() {
		return nil
	}
	resp, err := csi.NewControllerClient(conn).ControllerGetCapabilities(ctx, &csi.ControllerGetCapabilitiesRequest{})
	if err != nil {
		return fmt.Errorf("ControllerGetCapabilities: %w", err)
	}
	for _, c := range resp.GetCapabilities() {
		f.controller[c.GetRpc().GetType()] = true
	}
	return nil
}

func (f *Facts) askGroup(ctx context.Context, conn grpc.ClientConnInterface) error {
	if !f.service[csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE] {
		return nil
	}
	resp, err := csi.NewGroupControllerClient(conn).GroupControllerGetCapabilities(ctx, &csi.GroupControllerGetCapabilitiesRequest{})
	if err != nil {
		return fmt.Errorf("GroupControllerGetCapabilities: %w", err)
	}
	for _, c := range resp.GetCapabilities() {
		f.group[c.GetRpc().GetType()] = true
	}
	return nil
}

func (f *Facts) askNode(ctx context.Context, conn grpc.ClientConnInterface) error {
	resp, err := csi.NewNodeClient(conn).NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	if status.Code(err) == codes.Unimplemented {
		return nil // no Node service there
	}
	if err != nil {
		return fmt.Errorf("NodeGetCapabilities: %w", err)
	}
	f.node = true
	for _, c := range resp.GetCapabilities() {
		f.nodeExpand = f.nodeExpand || c.GetRpc().GetType() == csi.NodeServiceCapability_RPC_EXPAND_VOLUME
	}
	return nil
}

func (f *Facts) hasController() bool {
	return f.service[csi.PluginCapability_Service_CONTROLLER_SERVICE]
}

func (f *Facts) provisions() bool {
	return f.controller[csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME]
}

func (f *Facts) attaches() bool {
	return f.controller[csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME]
}

func (f *Facts) expands() bool {
	// external-resizer wants a Controller service also where it has nothing to ask it.
	return f.hasController() && (f.controller[csi.ControllerServiceCapability_RPC_EXPAND_VOLUME] || f.nodeExpand)
}

func (f *Facts) modifies() bool {
	return f.controller[csi.ControllerServiceCapability_RPC_MODIFY_VOLUME]
}

func (f *Facts) snapshots() bool {
	return f.controller[csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT]
}

func (f *Facts) groups() bool {
	return f.group[csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT]
}

func (f *Facts) metadata() bool {
	return f.service[csi.PluginCapability_Service_SNAPSHOT_METADATA_SERVICE]
}

func (f *Facts) topology() bool {
	return f.service[csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS]
}

// csiDriver is a field of the CSIDriver object: what the driver says, else a value
// that follows from its capabilities.
func (f *Facts) csiDriver(name, otherwise string) string {
	if v, ok := f.manifest[csiDriverPrefix+name]; ok {
		return v
	}
	return otherwise
}

func (f *Facts) csiDriverBool(name string, otherwise bool) bool {
	v, ok := f.manifest[csiDriverPrefix+name]
	if !ok {
		return otherwise
	}
	return v == "true"
}

// capacity tells whether the scheduler is told how much space there is. Without
// topology it is not: external-provisioner v6.3 then takes the object that it has made
// for another (an empty map, which comes back as none), deletes it at once, and makes it
// again every minute; a pod that waits for its volume finds a node by luck.
func (f *Facts) capacity() bool {
	has := f.controller[csi.ControllerServiceCapability_RPC_GET_CAPACITY]
	return has && f.topology() && f.csiDriverBool("storageCapacity", true)
}

// deployment is what the driver says of how it is to be deployed.
func (f *Facts) deployment(name string) bool { return f.manifest[deploymentPrefix+name] == "true" }

// byFSType is the policy by which kubelet gives files to a pod's fsGroup where the
// PersistentVolume names a file system.
const byFSType = "ReadWriteOnceWithFSType"

func (f *Facts) fsGroupPolicy() string { return f.csiDriver("fsGroupPolicy", byFSType) }

// fsTypes are the file systems that the driver makes, the default one first; none
// where its volumes are no devices, or it does not say.
func (f *Facts) fsTypes() []string { return f.list("fsTypes") }

// list is what the driver says with commas.
func (f *Facts) list(name string) []string {
	return strings.FieldsFunc(f.manifest[deploymentPrefix+name], func(r rune) bool { return r == ',' })
}

func (f *Facts) nodeLocal() bool            { return f.deployment("nodeLocal") }
func (f *Facts) hostNetwork() bool          { return f.deployment("hostNetwork") }
func (f *Facts) privilegedController() bool { return f.deployment("privilegedController") }

// hostPaths are directories that nodes need.
func (f *Facts) hostPaths() []string {
	list := f.list("hostPaths")
	for i := range list {
		list[i] = clean(list[i])
	}
	return list
}

// base is the driver's name in names of objects: csi.example.com is csi-example-com.
func (f *Facts) base() string { return strings.ToLower(strings.ReplaceAll(f.Name, ".", "-")) }

// online tells whether a volume in use can grow.
func (f *Facts) online() bool {
	return len(f.expansion) == 0 && f.nodeExpand || f.expansion[csi.PluginCapability_VolumeExpansion_ONLINE]
}
