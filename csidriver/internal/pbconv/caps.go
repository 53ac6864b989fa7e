package pbconv

import "github.com/container-storage-interface/spec/lib/go/csi"

// Service wraps one service of GetPluginCapabilities.
func Service(t csi.PluginCapability_Service_Type) *csi.PluginCapability {
	return &csi.PluginCapability{Type: &csi.PluginCapability_Service_{
		Service: &csi.PluginCapability_Service{Type: t},
	}}
}

// Expansion wraps one kind of expansion of GetPluginCapabilities.
func Expansion(t csi.PluginCapability_VolumeExpansion_Type) *csi.PluginCapability {
	return &csi.PluginCapability{Type: &csi.PluginCapability_VolumeExpansion_{
		VolumeExpansion: &csi.PluginCapability_VolumeExpansion{Type: t},
	}}
}

// ControllerCapability wraps one RPC of ControllerGetCapabilities.
func ControllerCapability(t csi.ControllerServiceCapability_RPC_Type) *csi.ControllerServiceCapability {
	return &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{
		Rpc: &csi.ControllerServiceCapability_RPC{Type: t},
	}}
}

// NodeCapability wraps one RPC of NodeGetCapabilities.
func NodeCapability(t csi.NodeServiceCapability_RPC_Type) *csi.NodeServiceCapability {
	return &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{
		Rpc: &csi.NodeServiceCapability_RPC{Type: t},
	}}
}

// GroupCapability wraps one RPC of GroupControllerGetCapabilities.
func GroupCapability(t csi.GroupControllerServiceCapability_RPC_Type) *csi.GroupControllerServiceCapability {
	return &csi.GroupControllerServiceCapability{Type: &csi.GroupControllerServiceCapability_Rpc{
		Rpc: &csi.GroupControllerServiceCapability_RPC{Type: t},
	}}
}
