package mutants

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends/mem"
)

// podSection is what becomes of pods that are in the way, and come again.
func podSection(s *Script) {
	n := s.node()
	p := s.placed("a", mountCapability(), nil, 64<<20)
	staging, target := s.path("staging", p), s.path("target", p)
	s.stage(p)
	s.publish(p, target, false)
	s.write(target+"/file", "data")
	s.publish(p, target, true) // refused
	s.mounts()
	f, err := os.Open(target + "/file")
	s.note("open", nil, err)
	s.unpublish(p, target)
	if err == nil {
		s.note("close", nil, f.Close())
	}
	s.read(target + "/file")
	s.unpublish(p, target)
	each(s, "unstage elsewhere", n.NodeUnstageVolume, &csi.NodeUnstageVolumeRequest{VolumeId: p.id, StagingTargetPath: staging + "-old"})
	s.mounts()
	s.unstage(p)
	if err := os.Remove(staging); err != nil {
		s.line("remove", "failed")
	}
	id, inline := "csi-"+strings.Repeat("r", 64), s.path("inline", p)
	if err := os.MkdirAll(filepath.Dir(inline), 0o750); err != nil {
		s.line("inline", "failed")
	}
	each(s, "inline", n.NodePublishVolume, &csi.NodePublishVolumeRequest{
		VolumeId: id, TargetPath: inline, Readonly: true, VolumeCapability: mountCapability(), VolumeContext: map[string]string{"csi.storage.k8s.io/ephemeral": "true"},
	})
	s.write(inline+"/file", "data")
	each(s, "inline undone", n.NodeUnpublishVolume, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: inline})
	each(s, "unstage without a path", n.NodeUnstageVolume, &csi.NodeUnstageVolumeRequest{VolumeId: p.id, StagingTargetPath: staging})
}

// diskPodSection is the same of what has file systems.
func diskPodSection(s *Script) {
	n := s.node()
	c := mountCapability()
	c.GetMount().FsType, c.GetMount().MountFlags = "ext4", []string{"noatime"}
	p := s.placed("a", c, nil, 320<<20)
	s.stage(p)
	target := s.path("target", p)
	s.publish(p, target, false)
	s.write(target+"/file", "data")
	less := proto.Clone(c).(*csi.VolumeCapability)
	less.GetMount().MountFlags = nil
	each(s, "grow with less", n.NodeExpandVolume, &csi.NodeExpandVolumeRequest{VolumeId: p.id, VolumePath: target, StagingTargetPath: s.path("staging", p), VolumeCapability: less})
	s.unpublish(p, target)
	f, err := os.Open(s.path("staging", p) + "/file")
	s.note("open", nil, err)
	s.unstage(p)
	s.stage(p)
	if err == nil {
		s.note("close", nil, f.Close())
	}
	s.unstage(p)
	p.capability = proto.Clone(less).(*csi.VolumeCapability)
	p.capability.GetMount().FsType = ""
	s.stage(p)
	s.publish(p, target, false)
	s.read(target + "/file")
	s.unpublish(p, target)
	s.unstage(p)

	raw := blockCapability()
	raw.AccessMode.Mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	p = s.placed("raw", raw, nil, 32<<20)
	s.stage(p)
	stays, goes := s.path("target", p), s.path("target", p)+"-2"
	s.publish(p, stays, false)
	s.publish(p, goes, false)
	s.unpublish(p, goes)
	each(s, "grow elsewhere", n.NodeExpandVolume, &csi.NodeExpandVolumeRequest{VolumeId: p.id, VolumePath: goes, StagingTargetPath: s.path("staging", p), VolumeCapability: raw})
	s.unpublish(p, stays)
	s.unstage(p)
}

// classSection is what sidecars ask with classes, and after a refusal.
func classSection(s *Script) {
	c, g := s.controller(), s.group()
	mount := capabilities(mountCapability())
	each(s, "capacity of a class", c.GetCapacity, &csi.GetCapacityRequest{Parameters: map[string]string{"csi.storage.k8s.io/node-stage-secret-name": "s"}})
	place := func(zone string) *csi.TopologyRequirement {
		return &csi.TopologyRequirement{Requisite: []*csi.Topology{{Segments: map[string]string{mem.TopologyKey: zone}}}}
	}
	each(s, "another place", c.CreateVolume,
		&csi.CreateVolumeRequest{Name: "z", VolumeCapabilities: mount, AccessibilityRequirements: place("nowhere")},
		&csi.CreateVolumeRequest{Name: "z", VolumeCapabilities: mount, AccessibilityRequirements: place("zone-1")})
	a, b := s.volume("a", mountCapability()), s.volume("b", mountCapability())
	each(s, "grow", c.ControllerExpandVolume,
		&csi.ControllerExpandVolumeRequest{VolumeId: a, CapacityRange: size(1<<60, 0)}, &csi.ControllerExpandVolumeRequest{VolumeId: a, CapacityRange: size(128<<20, 0)})
	more := mountCapability()
	more.AccessMode.Mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	each(s, "grow as another", c.ControllerExpandVolume, &csi.ControllerExpandVolumeRequest{VolumeId: b, CapacityRange: size(128<<20, 0), VolumeCapability: more})
	named := map[string]string{"csi.storage.k8s.io/volumesnapshot/name": "s"}
	each(s, "snapshot", c.CreateSnapshot, &csi.CreateSnapshotRequest{Name: "n", SourceVolumeId: a},
		&csi.CreateSnapshotRequest{Name: "n", SourceVolumeId: a, Parameters: named}, &csi.CreateSnapshotRequest{Name: "m", SourceVolumeId: a, Parameters: named})
	each(s, "modify", c.ControllerModifyVolume,
		&csi.ControllerModifyVolumeRequest{VolumeId: a, MutableParameters: map[string]string{"nobody": "knows"}},
		&csi.ControllerModifyVolumeRequest{VolumeId: a, MutableParameters: map[string]string{"tier": "fast"}})
	policy := map[string]string{"deletionPolicy": "Delete"}
	cut := &csi.CreateVolumeGroupSnapshotRequest{Name: "g", SourceVolumeIds: []string{a, b}}
	each(s, "group", g.CreateVolumeGroupSnapshot, cut, &csi.CreateVolumeGroupSnapshotRequest{Name: "h", SourceVolumeIds: []string{a}, Parameters: policy})
	each(s, "delete", c.DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: b})
	each(s, "group again", g.CreateVolumeGroupSnapshot, cut)
	s.otherMode()
}

// otherMode attaches a volume as one thing, stages it as another, and has it detached
// while it is published.
func (s *Script) otherMode() {
	many := mountCapability()
	many.AccessMode.Mode = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	resp, err := s.controller().CreateVolume(s.ctx, &csi.CreateVolumeRequest{Name: "modes", VolumeCapabilities: capabilities(mountCapability(), many)})
	s.note("create", nil, err)
	p := place{resp.GetVolume().GetVolumeId(), mountCapability(), resp.GetVolume().GetVolumeContext()}
	each(s, "attach", s.controller().ControllerPublishVolume, &csi.ControllerPublishVolumeRequest{VolumeId: p.id, NodeId: nodeID, VolumeCapability: many})
	s.stage(p)
	s.publish(p, s.path("target", p), false)
	each(s, "detach", s.controller().ControllerUnpublishVolume, &csi.ControllerUnpublishVolumeRequest{VolumeId: p.id, NodeId: nodeID})
	s.unpublish(p, s.path("target", p))
	s.unstage(p)
}
