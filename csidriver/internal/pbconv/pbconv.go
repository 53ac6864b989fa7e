// Package pbconv is the only place where the protobuf messages of CSI and the
// types of package backends meet. It converts and nothing else: requests have
// been validated before, answers are validated before they come here.
package pbconv

import (
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/csikit/csikit/backends"
)

// modes pairs the access modes of the spec with those of the contract.
var modes = map[csi.VolumeCapability_AccessMode_Mode]backends.AccessMode{
	csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER:        backends.SingleNodeWriter,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY:   backends.SingleNodeReader,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER: backends.SingleNodeSingleWriter,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:  backends.SingleNodeMultiWriter,
	csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY:    backends.MultiNodeReader,
	csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER:  backends.MultiNodeSingleWriter,
	csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER:   backends.MultiNodeMultiWriter,
}

// Mode converts an access mode; 0 when this version of the spec has no such
// mode.
func Mode(m csi.VolumeCapability_AccessMode_Mode) backends.AccessMode { return modes[m] }

// Capability converts one volume capability.
func Capability(in *csi.VolumeCapability) backends.Capability {
	c := backends.Capability{Mode: Mode(in.GetAccessMode().GetMode()), Block: in.GetBlock() != nil}
	if m := in.GetMount(); m != nil {
		c.FSType = m.GetFsType()
		c.Flags = backends.NewFlags(m.GetMountFlags()...)
		c.Group = m.GetVolumeMountGroup()
	}
	return c
}

// Capabilities converts a list of volume capabilities.
func Capabilities(in []*csi.VolumeCapability) []backends.Capability {
	if len(in) == 0 {
		return nil
	}
	out := make([]backends.Capability, len(in))
	for i, c := range in {
		out[i] = Capability(c)
	}
	return out
}

// Range converts a capacity range; nil is the zero range.
func Range(in *csi.CapacityRange) backends.CapacityRange {
	return backends.CapacityRange{Required: in.GetRequiredBytes(), Limit: in.GetLimitBytes()}
}

// Source converts a content source; nil is the zero source.
func Source(in *csi.VolumeContentSource) backends.ContentSource {
	return backends.ContentSource{
		SnapshotID: in.GetSnapshot().GetSnapshotId(),
		VolumeID:   in.GetVolume().GetVolumeId(),
	}
}

// Topology converts a topology requirement.
func Topology(in *csi.TopologyRequirement) backends.TopologyRequirement {
	return backends.TopologyRequirement{
		Requisite: segmentsList(in.GetRequisite()),
		Preferred: segmentsList(in.GetPreferred()),
	}
}

// Segments converts one topology.
func Segments(in *csi.Topology) backends.Segments {
	if in == nil {
		return nil
	}
	return backends.Segments(maps.Clone(in.GetSegments()))
}

func segmentsList(in []*csi.Topology) []backends.Segments {
	if len(in) == 0 {
		return nil
	}
	out := make([]backends.Segments, len(in))
	for i, t := range in {
		out[i] = Segments(t)
	}
	return out
}

// Volume converts a volume for an answer.
func Volume(v *backends.Volume) *csi.Volume {
	out := new(csi.Volume)
	setVolume(out, v)
	out.AccessibleTopology = accessible(v.Topology)
	return out
}

func setVolume(out *csi.Volume, v *backends.Volume) {
	out.CapacityBytes = v.Capacity
	out.VolumeId = v.ID
	out.VolumeContext = v.Context
	out.ContentSource = contentSource(v.Source)
}

// entry is what a volume of a list is made of, in one piece: a list of ten
// thousand is made of four allocations for each page and not of sixty thousand.
type entry struct {
	entry  csi.ListVolumesResponse_Entry
	volume csi.Volume
	place  csi.Topology
	places [1]*csi.Topology
}

// Entries converts a page of volumes; with published, they have the nodes where
// they are attached.
func Entries(vols []*backends.Volume, published bool) []*csi.ListVolumesResponse_Entry {
	parts := make([]entry, len(vols))
	out := make([]*csi.ListVolumesResponse_Entry, len(vols))
	var statuses []csi.ListVolumesResponse_VolumeStatus
	if published {
		statuses = make([]csi.ListVolumesResponse_VolumeStatus, len(vols))
	}
	for i, v := range vols {
		e := &parts[i]
		setVolume(&e.volume, v)
		if len(v.Topology) == 1 && len(v.Topology[0]) > 0 {
			e.place.Segments, e.places[0] = v.Topology[0], &e.place
			e.volume.AccessibleTopology = e.places[:]
		} else {
			e.volume.AccessibleTopology = accessible(v.Topology)
		}
		e.entry.Volume = &e.volume
		if published {
			statuses[i].PublishedNodeIds = v.Nodes
			e.entry.Status = &statuses[i]
		}
		out[i] = &e.entry
	}
	return out
}

func contentSource(s backends.ContentSource) *csi.VolumeContentSource {
	switch {
	case s.SnapshotID != "":
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: s.SnapshotID},
		}}
	case s.VolumeID != "":
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: s.VolumeID},
		}}
	default:
		return nil
	}
}

func accessible(list []backends.Segments) []*csi.Topology {
	if len(list) == 0 {
		return nil
	}
	out := make([]*csi.Topology, len(list))
	for i, s := range list {
		out[i] = Accessible(s)
	}
	return out
}

// Accessible converts the topology of one place for an answer; nil when there
// is none.
func Accessible(s backends.Segments) *csi.Topology {
	if len(s) == 0 {
		return nil
	}
	return &csi.Topology{Segments: s}
}

// Capacity converts the answer to GetCapacity; limits that are not known are
// left out.
func Capacity(c backends.Capacity) *csi.GetCapacityResponse {
	out := &csi.GetCapacityResponse{AvailableCapacity: c.Available}
	if c.MaxVolume > 0 {
		out.MaximumVolumeSize = wrapperspb.Int64(c.MaxVolume)
	}
	if c.MinVolume > 0 {
		out.MinimumVolumeSize = wrapperspb.Int64(c.MinVolume)
	}
	return out
}

// Confirmed repeats what was validated, field by field: what a newer CO sent
// besides, and this version does not know, is not confirmed.
func Confirmed(in *csi.ValidateVolumeCapabilitiesRequest) *csi.ValidateVolumeCapabilitiesResponse_Confirmed {
	out := &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext:     in.GetVolumeContext(),
		Parameters:        in.GetParameters(),
		MutableParameters: in.GetMutableParameters(),
	}
	for _, c := range in.GetVolumeCapabilities() {
		out.VolumeCapabilities = append(out.VolumeCapabilities, known(c))
	}
	return out
}

// known copies the fields of a capability that this version of the spec has.
func known(in *csi.VolumeCapability) *csi.VolumeCapability {
	out := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: in.GetAccessMode().GetMode()},
	}
	if m := in.GetMount(); m != nil {
		out.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{
			FsType:           m.GetFsType(),
			MountFlags:       m.GetMountFlags(),
			VolumeMountGroup: m.GetVolumeMountGroup(),
		}}
		return out
	}
	out.AccessType = &csi.VolumeCapability_Block{Block: new(csi.VolumeCapability_BlockVolume)}
	return out
}
