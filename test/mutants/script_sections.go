package mutants

import (
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends/mem"
)

func identitySection(s *Script) {
	for range 2 {
		each(s, "info", s.identity().GetPluginInfo, &csi.GetPluginInfoRequest{})
		each(s, "plugin capabilities", s.identity().GetPluginCapabilities, &csi.GetPluginCapabilitiesRequest{})
		each(s, "probe", s.identity().Probe, &csi.ProbeRequest{})
		each(s, "capabilities", s.controller().ControllerGetCapabilities, &csi.ControllerGetCapabilitiesRequest{})
		each(s, "node capabilities", s.node().NodeGetCapabilities, &csi.NodeGetCapabilitiesRequest{})
		each(s, "node", s.node().NodeGetInfo, &csi.NodeGetInfoRequest{})
		each(s, "group capabilities", s.group().GroupControllerGetCapabilities, &csi.GroupControllerGetCapabilitiesRequest{})
	}
	for range 100 {
		each(s, "probe", s.identity().Probe, &csi.ProbeRequest{})
	}
}

// blockCapability is not supported by directories.
func blockCapability() *csi.VolumeCapability {
	c := mountCapability()
	c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	return c
}

func capabilities(c ...*csi.VolumeCapability) []*csi.VolumeCapability { return c }

func size(required, limit int64) *csi.CapacityRange {
	return &csi.CapacityRange{RequiredBytes: required, LimitBytes: limit}
}

func fromSnapshot(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
}

func fromVolume(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

func volumeSection(s *Script) {
	c := s.controller()
	mount := capabilities(mountCapability())
	create := func(label string, list ...*csi.CreateVolumeRequest) {
		each(s, "create "+label, c.CreateVolume, list...)
	}
	create("again",
		&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: mount, CapacityRange: size(64<<20, 0), Secrets: secretsForTest()},
		&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: mount, CapacityRange: size(64<<20, 0)},
		&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: mount, CapacityRange: size(128<<20, 0)},
		&csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: mount, CapacityRange: size(64<<20, 0), Parameters: map[string]string{"media": "disk"}})
	create("size",
		&csi.CreateVolumeRequest{Name: "b", VolumeCapabilities: mount, CapacityRange: size(2<<20, 1<<20)},
		&csi.CreateVolumeRequest{Name: "b", VolumeCapabilities: mount, CapacityRange: size(1<<60, 0)},
		&csi.CreateVolumeRequest{Name: "b", VolumeCapabilities: mount, CapacityRange: size(20<<20, 24<<20)},
		&csi.CreateVolumeRequest{Name: "b2", VolumeCapabilities: mount, CapacityRange: size(20<<20, 0)})
	create("capability",
		&csi.CreateVolumeRequest{Name: "c", VolumeCapabilities: capabilities(blockCapability())},
		&csi.CreateVolumeRequest{Name: "c", VolumeCapabilities: capabilities(mountCapability(), blockCapability())},
		&csi.CreateVolumeRequest{Name: "c", VolumeCapabilities: mount, MutableParameters: map[string]string{"nobody": "knows"}},
		&csi.CreateVolumeRequest{Name: "c2", VolumeCapabilities: mount, MutableParameters: map[string]string{"tier": "fast"}})
	create("name",
		&csi.CreateVolumeRequest{Name: "päth/α β", VolumeCapabilities: mount},
		&csi.CreateVolumeRequest{Name: strings.Repeat("long-", 20) + "1", VolumeCapabilities: mount},
		&csi.CreateVolumeRequest{Name: strings.Repeat("long-", 20) + "2", VolumeCapabilities: mount},
		&csi.CreateVolumeRequest{Name: "A", VolumeCapabilities: mount, CapacityRange: size(64<<20, 0)})
	create("copy",
		&csi.CreateVolumeRequest{Name: "d", VolumeCapabilities: mount, VolumeContentSource: fromSnapshot("s-none")},
		&csi.CreateVolumeRequest{Name: "d", VolumeCapabilities: mount, VolumeContentSource: fromVolume("v-none")})
	id := s.volume("e", mountCapability())
	create("clone",
		&csi.CreateVolumeRequest{Name: "f", VolumeCapabilities: mount, VolumeContentSource: fromVolume(id), CapacityRange: size(64<<20, 0)},
		&csi.CreateVolumeRequest{Name: "e", VolumeCapabilities: mount, VolumeContentSource: fromVolume(id), CapacityRange: size(64<<20, 0)})
	s.ofVolume(id)
	each(s, "delete", c.DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: id}, &csi.DeleteVolumeRequest{VolumeId: id}, &csi.DeleteVolumeRequest{VolumeId: "v-none"})
	each(s, "deleted", c.ValidateVolumeCapabilities, &csi.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: mount})
	s.volume("e", mountCapability())
	each(s, "made again", c.ValidateVolumeCapabilities, &csi.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: mount})
	each(s, "list", c.ListVolumes, &csi.ListVolumesRequest{})
	each(s, "capacity", c.GetCapacity, &csi.GetCapacityRequest{})
}

// ofVolume is what is asked of one volume.
func (s *Script) ofVolume(id string) {
	c := s.controller()
	mount := capabilities(mountCapability())
	unknown := &csi.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: mount}
	unknown.ProtoReflect().SetUnknown([]byte{0xa2, 0x06, 0x01, 'x'}) // field 100
	each(s, "validate", c.ValidateVolumeCapabilities, &csi.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: mount},
		&csi.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: capabilities(blockCapability())},
		&csi.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: capabilities(mountCapability(), blockCapability())},
		&csi.ValidateVolumeCapabilitiesRequest{VolumeId: "v-none", VolumeCapabilities: mount}, unknown)
	each(s, "get", c.ControllerGetVolume, &csi.ControllerGetVolumeRequest{VolumeId: id}, &csi.ControllerGetVolumeRequest{VolumeId: "v-none"})
	each(s, "modify", c.ControllerModifyVolume,
		&csi.ControllerModifyVolumeRequest{VolumeId: id, MutableParameters: map[string]string{"tier": "fast"}},
		&csi.ControllerModifyVolumeRequest{VolumeId: id, MutableParameters: map[string]string{"tier": "fast"}},
		&csi.ControllerModifyVolumeRequest{VolumeId: id, MutableParameters: map[string]string{"nobody": "knows"}},
		&csi.ControllerModifyVolumeRequest{VolumeId: "v-none", MutableParameters: map[string]string{"tier": "fast"}})
	each(s, "expand", c.ControllerExpandVolume,
		&csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: size(128<<20, 0)},
		&csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: size(128<<20, 0)},
		&csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: size(64<<20, 0)},
		&csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: size(130<<20, 140<<20)},
		&csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: size(200<<20, 160<<20)},
		&csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: size(1<<60, 0)},
		&csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: size(150<<20, 0), VolumeCapability: blockCapability()},
		&csi.ControllerExpandVolumeRequest{VolumeId: "v-none", CapacityRange: size(128<<20, 0)})
	each(s, "grown", c.ControllerGetVolume, &csi.ControllerGetVolumeRequest{VolumeId: id})
}

// fieldSection leaves out, one by one, what is required.
func fieldSection(s *Script) {
	c, mount := s.controller(), capabilities(mountCapability())
	id := s.volume("fields", mountCapability())
	noMode, noType := mountCapability(), mountCapability()
	noMode.AccessMode, noType.AccessType = nil, nil
	each(s, "create", c.CreateVolume, &csi.CreateVolumeRequest{VolumeCapabilities: mount}, &csi.CreateVolumeRequest{Name: "x1"},
		&csi.CreateVolumeRequest{Name: "x2", VolumeCapabilities: capabilities(noMode)},
		&csi.CreateVolumeRequest{Name: "x3", VolumeCapabilities: capabilities(noType)},
		&csi.CreateVolumeRequest{Name: "x4", VolumeCapabilities: mount, CapacityRange: size(-1, 0)},
		&csi.CreateVolumeRequest{Name: "x5", VolumeCapabilities: mount, CapacityRange: size(0, 0)},
		&csi.CreateVolumeRequest{Name: "x6\x01\x7f", VolumeCapabilities: mount})
	each(s, "delete", c.DeleteVolume, &csi.DeleteVolumeRequest{})
	each(s, "attach", c.ControllerPublishVolume, &csi.ControllerPublishVolumeRequest{VolumeId: id, VolumeCapability: mountCapability()},
		&csi.ControllerPublishVolumeRequest{VolumeId: id, NodeId: nodeID})
	each(s, "detach", c.ControllerUnpublishVolume, &csi.ControllerUnpublishVolumeRequest{})
	each(s, "validate", c.ValidateVolumeCapabilities, &csi.ValidateVolumeCapabilitiesRequest{VolumeId: id})
	each(s, "expand", c.ControllerExpandVolume, &csi.ControllerExpandVolumeRequest{VolumeId: id})
	each(s, "snapshot", c.CreateSnapshot, &csi.CreateSnapshotRequest{SourceVolumeId: id}, &csi.CreateSnapshotRequest{Name: "x"})
	each(s, "list", c.ListVolumes, &csi.ListVolumesRequest{MaxEntries: -1}, &csi.ListVolumesRequest{StartingToken: "none"})
	each(s, "list snapshots", c.ListSnapshots, &csi.ListSnapshotsRequest{MaxEntries: -1}, &csi.ListSnapshotsRequest{StartingToken: "none"})
	each(s, "list health", c.ControllerListVolumeHealth, &csi.ControllerListVolumeHealthRequest{StartingToken: "none"})
	each(s, "group", s.group().CreateVolumeGroupSnapshot, &csi.CreateVolumeGroupSnapshotRequest{Name: "x"})
	each(s, "delete group", s.group().DeleteVolumeGroupSnapshot, &csi.DeleteVolumeGroupSnapshotRequest{SnapshotIds: []string{"s"}})
	n := s.node()
	each(s, "stage", n.NodeStageVolume, &csi.NodeStageVolumeRequest{StagingTargetPath: s.dir + "/x", VolumeCapability: mountCapability()},
		&csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: "some/path", VolumeCapability: mountCapability()},
		&csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: s.dir + "/x"})
	each(s, "unstage", n.NodeUnstageVolume, &csi.NodeUnstageVolumeRequest{VolumeId: id})
	each(s, "publish", n.NodePublishVolume, &csi.NodePublishVolumeRequest{VolumeId: id, StagingTargetPath: s.dir + "/x", VolumeCapability: mountCapability()},
		&csi.NodePublishVolumeRequest{VolumeId: id, StagingTargetPath: s.dir + "/x", TargetPath: "some/path", VolumeCapability: mountCapability()})
	each(s, "unpublish", n.NodeUnpublishVolume, &csi.NodeUnpublishVolumeRequest{TargetPath: s.dir + "/y"})
	each(s, "stats", n.NodeGetVolumeStats, &csi.NodeGetVolumeStatsRequest{VolumeId: id})
	each(s, "delete", c.DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: id})
}

func in(zone string) *csi.Topology {
	return &csi.Topology{Segments: map[string]string{mem.TopologyKey: zone}}
}

func topologySection(s *Script) {
	c, mount := s.controller(), capabilities(mountCapability())
	where := func(requisite, preferred []*csi.Topology) *csi.TopologyRequirement {
		return &csi.TopologyRequirement{Requisite: requisite, Preferred: preferred}
	}
	one, two := []*csi.Topology{in("zone-1")}, []*csi.Topology{in("zone-2")}
	both := []*csi.Topology{in("zone-1"), in("zone-2")}
	create := func(name string, r *csi.TopologyRequirement) *csi.CreateVolumeRequest {
		return &csi.CreateVolumeRequest{Name: name, VolumeCapabilities: mount, AccessibilityRequirements: r}
	}
	each(s, "create", c.CreateVolume, create("a", where(two, nil)), create("a", where(one, nil)), create("b", where(one, one)),
		create("c", where(both, []*csi.Topology{in("zone-2"), in("zone-1")})), create("d", where([]*csi.Topology{in("zone-9")}, nil)))
	each(s, "node", s.node().NodeGetInfo, &csi.NodeGetInfoRequest{})
	each(s, "capacity", c.GetCapacity, &csi.GetCapacityRequest{AccessibleTopology: in("zone-1")}, &csi.GetCapacityRequest{AccessibleTopology: in("zone-9")},
		&csi.GetCapacityRequest{VolumeCapabilities: capabilities(blockCapability())}, &csi.GetCapacityRequest{Parameters: map[string]string{"media": "tape"}})
	id := s.volume("e", mountCapability())
	each(s, "snapshot", c.CreateSnapshot, &csi.CreateSnapshotRequest{Name: "e", SourceVolumeId: id},
		&csi.CreateSnapshotRequest{Name: "f", SourceVolumeId: id, AccessibilityRequirements: where([]*csi.Topology{in("zone-9")}, nil)})
}

func attachSection(s *Script) {
	c := s.controller()
	id := s.volume("a", mountCapability())
	attach := func(id, node string, readonly bool, cap *csi.VolumeCapability) *csi.ControllerPublishVolumeRequest {
		return &csi.ControllerPublishVolumeRequest{VolumeId: id, NodeId: node, Readonly: readonly, VolumeCapability: cap, Secrets: secretsForTest()}
	}
	other := mountCapability()
	other.AccessMode.Mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	each(s, "attach", c.ControllerPublishVolume, attach(id, nodeID, false, mountCapability()), attach(id, nodeID, false, mountCapability()),
		attach(id, nodeID, true, mountCapability()), attach(id, nodeID, false, other), attach("v-none", nodeID, false, mountCapability()),
		attach(s.volume("b", mountCapability()), "node-none", false, mountCapability()), attach(id, nodeID, false, blockCapability()))
	each(s, "list", c.ListVolumes, &csi.ListVolumesRequest{})
	each(s, "get", c.ControllerGetVolume, &csi.ControllerGetVolumeRequest{VolumeId: id})
	each(s, "expand", c.ControllerExpandVolume, &csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: size(128<<20, 0)})
	each(s, "delete", c.DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: id})
	detach := func(id, node string) *csi.ControllerUnpublishVolumeRequest {
		return &csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: node}
	}
	each(s, "detach", c.ControllerUnpublishVolume, detach(id, nodeID), detach(id, nodeID))
	each(s, "detached", c.ControllerGetVolume, &csi.ControllerGetVolumeRequest{VolumeId: id})
	each(s, "attach again", c.ControllerPublishVolume, attach(id, nodeID, false, mountCapability()))
	each(s, "detach all", c.ControllerUnpublishVolume, detach(id, ""))
	each(s, "detached", c.ControllerGetVolume, &csi.ControllerGetVolumeRequest{VolumeId: id})
	each(s, "delete", c.DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: id})
	for i := range 41 { // one more than the node has room for
		resp, err := c.CreateVolume(s.ctx, &csi.CreateVolumeRequest{Name: strings.Repeat("n", i+2), VolumeCapabilities: capabilities(mountCapability())})
		if err == nil {
			_, err = c.ControllerPublishVolume(s.ctx, attach(resp.GetVolume().GetVolumeId(), nodeID, false, mountCapability()))
		}
		s.note("fill", nil, err)
	}
}

func listSection(s *Script) {
	c := s.controller()
	var ids []string
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		ids = append(ids, s.volume(name, mountCapability()))
	}
	each(s, "list", c.ListVolumes, &csi.ListVolumesRequest{})
	page, err := c.ListVolumes(s.ctx, &csi.ListVolumesRequest{MaxEntries: 2})
	s.note("first", page, err)
	if len(page.GetEntries()) > 0 {
		each(s, "delete", c.DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: page.GetEntries()[0].GetVolume().GetVolumeId()})
	}
	for range 4 {
		if page, err = c.ListVolumes(s.ctx, &csi.ListVolumesRequest{MaxEntries: 2, StartingToken: page.GetNextToken()}); err != nil || page.GetNextToken() == "" {
			break
		}
		s.note("next", page, err)
	}
	each(s, "whole", c.ListVolumes, &csi.ListVolumesRequest{})
	for _, id := range ids {
		each(s, "delete", c.DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: id})
	}
	each(s, "empty", c.ListVolumes, &csi.ListVolumesRequest{})
}

func healthSection(s *Script) {
	c := s.controller()
	id := s.volume("a", mountCapability())
	s.volume("b", mountCapability())
	each(s, "health", c.ControllerGetVolumeHealth, &csi.ControllerGetVolumeHealthRequest{VolumeId: id}, &csi.ControllerGetVolumeHealthRequest{VolumeId: "v-none"})
	each(s, "list", c.ControllerListVolumeHealth, &csi.ControllerListVolumeHealthRequest{}, &csi.ControllerListVolumeHealthRequest{MaxEntries: 1})
	each(s, "storage", s.node().NodeGetStorageHealth, &csi.NodeGetStorageHealthRequest{})
	each(s, "node", s.node().NodeGetVolumeHealth, &csi.NodeGetVolumeHealthRequest{VolumeId: "v-none"})
}
