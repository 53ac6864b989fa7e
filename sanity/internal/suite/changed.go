package suite

import (
	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// changedChecks: H-04, a name that is taken, asked for with something else.
func changedChecks() []Check {
	const cv = "CREATE_DELETE_VOLUME"
	again := func(change func(*T, *check.Volume, *csi.CreateVolumeRequest), clauses string, want ...codes.Code) func(*T) {
		return func(t *T) {
			v := t.NewVolume()
			req := proto.Clone(v.Request).(*csi.CreateVolumeRequest)
			change(t, v, req)
			t.Refused(clauses, "by the name of a volume that is there, and is different", req, want...)
		}
	}
	return []Check{
		{ID: "H-04/bigger", Title: "CreateVolume by a taken name, of more bytes than that volume has, is ALREADY_EXISTS", Clauses: "CV-34", Needs: cv, Run: again(func(t *T, v *check.Volume, r *csi.CreateVolumeRequest) {
			r.CapacityRange = capRange(2*sizeOf(t, v), 0)
		}, "CV-34", codes.AlreadyExists)},
		{ID: "H-04/smaller", Title: "CreateVolume by a taken name, of a limit below that volume's bytes, is ALREADY_EXISTS", Clauses: "CV-34", Needs: cv, Run: again(func(t *T, v *check.Volume, r *csi.CreateVolumeRequest) {
			r.CapacityRange = capRange(0, sizeOf(t, v)/2)
		}, "CV-34", codes.AlreadyExists)},
		{ID: "H-04/within", Title: "CreateVolume by a taken name, of a range that the volume is in, is that volume", Clauses: "CV-02", Needs: cv, Run: sameInRange},
		{ID: "H-04/snapshot", Title: "CreateVolume by a taken name, from a snapshot, is ALREADY_EXISTS", Clauses: "CV-38", Needs: cv + " CREATE_DELETE_SNAPSHOT", Run: again(func(t *T, v *check.Volume, r *csi.CreateVolumeRequest) {
			r.VolumeContentSource = fromSnapshot(readySnapshot(t, v).GetSnapshotId())
		}, "CV-38", codes.AlreadyExists)},
		{ID: "H-04/volume", Title: "CreateVolume by a taken name, from a volume, is ALREADY_EXISTS", Clauses: "CV-38", Needs: cv + " CLONE_VOLUME", Run: again(func(t *T, _ *check.Volume, r *csi.CreateVolumeRequest) {
			r.VolumeContentSource = fromVolume(t.NewVolume().VolumeId)
		}, "CV-38", codes.AlreadyExists)},
		{ID: "H-04/no-source", Title: "CreateVolume by the name of a restored volume, without its source, is ALREADY_EXISTS", Clauses: "CV-38", Needs: cv + " CREATE_DELETE_SNAPSHOT", Run: withoutSource},
		{ID: "H-04/topology", Title: "CreateVolume by a taken name, for a place where that volume is not, is ALREADY_EXISTS", Clauses: "CV-37", Needs: cv + " node plugin:VOLUME_ACCESSIBILITY_CONSTRAINTS", Run: otherPlace},
		{ID: "H-04/parameters", Title: "CreateVolume by a taken name, with other parameters, is ALREADY_EXISTS", Clauses: "CV-36", Needs: cv, Run: otherParameters},
		{ID: "H-04/capabilities", Title: "CreateVolume by a taken name, with capabilities that the volume has not, is ALREADY_EXISTS", Clauses: "CV-35", Needs: cv, Run: otherCapabilities},
	}
}

// sizeOf is how big a volume is; a driver need not say.
func sizeOf(t *T, v *check.Volume) int64 {
	if v.CapacityBytes <= 0 {
		t.NotApplicable("the driver does not say how big a volume is")
	}
	return v.CapacityBytes
}

func sameInRange(t *T) {
	v := t.NewVolume()
	size := sizeOf(t, v)
	req := proto.Clone(v.Request).(*csi.CreateVolumeRequest)
	for _, r := range []*csi.CapacityRange{capRange(size, 0), capRange(size, size), capRange(1, size), capRange(size/2, 2*size)} {
		req.CapacityRange = r
		if got := check.OK[*csi.CreateVolumeResponse](t, "CV-02", req); got.GetVolume().GetVolumeId() != v.VolumeId {
			t.Failf("CV-02", "capacity_range %v, which the volume of %d bytes is in, gave another volume", r, size)
		}
	}
}

func withoutSource(t *T) {
	src := t.NewVolume()
	s := readySnapshot(t, src)
	v := t.NewVolume(func(r *csi.CreateVolumeRequest) {
		r.VolumeContentSource = fromSnapshot(s.GetSnapshotId())
		r.CapacityRange = capRange(max(src.CapacityBytes, s.GetSizeBytes(), t.Config().Size), 0)
	})
	req := proto.Clone(v.Request).(*csi.CreateVolumeRequest)
	req.VolumeContentSource = nil
	t.Refused("CV-38", "by the name of a restored volume, without its source", req, codes.AlreadyExists)
}

// otherPlace: where nobody knows a second place at which volumes can be, a driver may
// look at the place before it looks at the volume.
func otherPlace(t *T) {
	mine := here(t)
	v := t.NewVolume(func(r *csi.CreateVolumeRequest) {
		r.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{mine}}
	})
	far, want := anotherPlace(t, mine), []codes.Code{codes.AlreadyExists}
	if far == nil {
		far, want = elsewhere(mine.GetSegments()), append(want, codes.ResourceExhausted)
	}
	if reachable(v.Volume, far) {
		t.NotApplicable("the volume is accessible from there, too")
	}
	req := proto.Clone(v.Request).(*csi.CreateVolumeRequest)
	req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{far}}
	t.Refused("CV-37", "by a taken name, for "+t.Text(far), req, want...)
}

// elsewhere is a place like the given one, where nobody is.
func elsewhere(segments map[string]string) *csi.Topology {
	m := map[string]string{}
	for k := range segments {
		m[k] = "csikit-nowhere"
	}
	return &csi.Topology{Segments: m}
}

// otherCapabilities: whatever is answered with OK, the volume has to have.
func otherCapabilities(t *T) {
	v := t.NewVolume()
	for mode := range modes() {
		for _, block := range []bool{false, true} {
			req := proto.Clone(v.Request).(*csi.CreateVolumeRequest)
			req.VolumeCapabilities = []*csi.VolumeCapability{check.Capability(mode, block)}
			_, err := t.Try(req)
			switch codeOf(err) {
			case codes.OK:
				val := validateRequest(v)
				val.VolumeCapabilities = req.GetVolumeCapabilities()
				if got, err := check.Try[*csi.ValidateVolumeCapabilitiesResponse](t, val); err == nil && got.GetConfirmed() == nil {
					t.Failf("CV-35", "CreateVolume by a taken name, for %v, block %t, is OK, and ValidateVolumeCapabilities does not confirm that capability", mode, block)
				}
			case codes.AlreadyExists, codes.InvalidArgument:
			default:
				t.Failf("CV-35", "CreateVolume by a taken name, for %v, block %t: got %s, want ALREADY_EXISTS", mode, block, check.Describe(err))
			}
		}
	}
}
