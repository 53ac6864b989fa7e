package csidriver

import (
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

// method is what the interceptors know of an RPC.
type method struct {
	full    string // /csi.v1.Node/NodeStageVolume
	name    string // NodeStageVolume
	changes bool   // may leave something behind
}

// reading are the RPCs of CSI that leave nothing behind. One that a later spec
// adds counts as changing until it stands here: the safe side.
var reading = map[string]bool{
	csi.Identity_GetPluginInfo_FullMethodName:                         true,
	csi.Identity_GetPluginCapabilities_FullMethodName:                 true,
	csi.Identity_Probe_FullMethodName:                                 true,
	csi.Controller_ValidateVolumeCapabilities_FullMethodName:          true,
	csi.Controller_ListVolumes_FullMethodName:                         true,
	csi.Controller_ControllerListVolumeHealth_FullMethodName:          true,
	csi.Controller_ControllerGetVolumeHealth_FullMethodName:           true,
	csi.Controller_GetCapacity_FullMethodName:                         true,
	csi.Controller_ControllerGetCapabilities_FullMethodName:           true,
	csi.Controller_ListSnapshots_FullMethodName:                       true,
	csi.Controller_GetSnapshot_FullMethodName:                         true,
	csi.Controller_ControllerGetVolume_FullMethodName:                 true,
	csi.GroupController_GroupControllerGetCapabilities_FullMethodName: true,
	csi.GroupController_GetVolumeGroupSnapshot_FullMethodName:         true,
	csi.SnapshotMetadata_GetMetadataAllocated_FullMethodName:          true,
	csi.SnapshotMetadata_GetMetadataDelta_FullMethodName:              true,
	csi.Node_NodeGetVolumeStats_FullMethodName:                        true,
	csi.Node_NodeGetVolumeHealth_FullMethodName:                       true,
	csi.Node_NodeGetStorageHealth_FullMethodName:                      true,
	csi.Node_NodeGetCapabilities_FullMethodName:                       true,
	csi.Node_NodeGetInfo_FullMethodName:                               true,
}

// changes says whether an RPC, by its full name, may leave something behind.
// Services beside CSI's (health, reflection) are taken as reading.
func changes(full string) bool {
	return strings.HasPrefix(full, "/csi.v1.") && !reading[full]
}

func newMethod(full string) *method {
	return &method{full: full, name: full[strings.LastIndexByte(full, '/')+1:], changes: changes(full)}
}

// methodsOf knows every RPC that was registered.
func methodsOf(g *grpc.Server) map[string]*method {
	methods := make(map[string]*method)
	for service, info := range g.GetServiceInfo() {
		for _, m := range info.Methods {
			full := "/" + service + "/" + m.Name
			methods[full] = newMethod(full)
		}
	}
	return methods
}

// subject is what a request is about, for logs: the name of the attribute and
// its value.
func subject(req any) (attr, id string) {
	switch r := req.(type) {
	case interface{ GetVolumeId() string }:
		return "volume", clip(r.GetVolumeId(), maxLogged)
	case interface{ GetSnapshotId() string }:
		return "snapshot", clip(r.GetSnapshotId(), maxLogged)
	case interface{ GetTargetSnapshotId() string }:
		return "snapshot", clip(r.GetTargetSnapshotId(), maxLogged)
	case interface{ GetGroupSnapshotId() string }:
		return "group_snapshot", clip(r.GetGroupSnapshotId(), maxLogged)
	case interface{ GetName() string }:
		return "name", clip(r.GetName(), maxLogged)
	}
	return "", ""
}
