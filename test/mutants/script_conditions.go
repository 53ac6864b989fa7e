package mutants

import (
	"fmt"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// conditionSection asks for what depends on something else.
func conditionSection(s *Script) {
	c, mount := s.controller(), capabilities(mountCapability())
	both := []*csi.Topology{in("zone-9"), in("zone-1")}
	each(s, "place", c.CreateVolume, &csi.CreateVolumeRequest{Name: "a", VolumeCapabilities: mount, AccessibilityRequirements: &csi.TopologyRequirement{Requisite: both, Preferred: both}})
	id := s.volume("b", mountCapability())
	again := func(c *csi.VolumeCapability) *csi.CreateVolumeRequest {
		return &csi.CreateVolumeRequest{Name: "b", VolumeCapabilities: capabilities(c), CapacityRange: size(64<<20, 0)}
	}
	each(s, "capability", c.CreateVolume, again(blockCapability()))
	attach := func(node string) *csi.ControllerPublishVolumeRequest {
		return &csi.ControllerPublishVolumeRequest{VolumeId: id, NodeId: node, VolumeCapability: mountCapability()}
	}
	each(s, "attach", c.ControllerPublishVolume, attach(nodeID), attach("node-none"))
	each(s, "detach", c.ControllerUnpublishVolume, &csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: nodeID}, &csi.ControllerUnpublishVolumeRequest{VolumeId: "v-none", NodeId: nodeID})
	each(s, "modify", c.ControllerModifyVolume, &csi.ControllerModifyVolumeRequest{VolumeId: id})
	s.groupConditions(id)
	s.nodeConditions()
}

func (s *Script) groupConditions(volume string) {
	c, g := s.controller(), s.group()
	group, err := g.CreateVolumeGroupSnapshot(s.ctx, &csi.CreateVolumeGroupSnapshotRequest{Name: "g", SourceVolumeIds: []string{volume}})
	s.note("group", nil, err)
	for _, m := range group.GetGroupSnapshot().GetSnapshots() {
		each(s, "copy", c.CreateVolume, &csi.CreateVolumeRequest{
			Name: "c", VolumeCapabilities: capabilities(mountCapability()), VolumeContentSource: fromSnapshot(m.GetSnapshotId()), CapacityRange: size(64<<20, 0),
		})
		id := group.GetGroupSnapshot().GetGroupSnapshotId()
		each(s, "delete the group", g.DeleteVolumeGroupSnapshot, &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: id},
			&csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: id, SnapshotIds: []string{m.GetSnapshotId()}})
	}
}

func (s *Script) nodeConditions() {
	single := mountCapability()
	single.AccessMode.Mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	p := s.placed("single", single, nil, 64<<20)
	first, second := s.path("target", p)+"/first", s.path("target", p)+"/second"
	s.stage(p)
	s.publish(p, first, false)
	s.publish(p, second, false)
	s.unpublish(p, first)
	s.unstage(p)
	group := mountCapability()
	group.GetMount().VolumeMountGroup = "4321"
	q := s.placed("group", group, nil, 64<<20)
	target := s.path("target", q) + "/mount"
	for _, next := range []string{"4321", "8765"} {
		q.capability.GetMount().VolumeMountGroup = next
		s.stage(q)
		s.publish(q, target, false)
		st, err := os.Stat(target)
		if err == nil {
			s.line("mount group", fmt.Sprint(st.Mode(), " ", groupOf(st)))
		}
		s.read(target + "/f")
		s.write(target+"/f", next)
		s.unpublish(q, target)
		s.unstage(q)
	}
}
