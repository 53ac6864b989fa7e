package suite

import (
	"maps"
	"math"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// sizeChecks: H-14 and H-15.
func sizeChecks() []Check {
	const cv, ex = "CREATE_DELETE_VOLUME", "CREATE_DELETE_VOLUME EXPAND_VOLUME"
	bad := func(id, title, clauses string, r *csi.CapacityRange, want ...codes.Code) Check {
		return Check{ID: "H-14/" + id, Title: title, Clauses: clauses, Needs: cv, Run: func(t *T) {
			t.Mode()
			req := t.CreateRequest()
			req.CapacityRange = r
			t.Refused(clauses, "of "+t.Text(r), req, want...)
		}}
	}
	return []Check{
		{ID: "H-14/ranges", Title: "A volume is in the range that was asked for, or the range is OUT_OF_RANGE", Clauses: "CV-08 CV-09 CV-12", Needs: cv, Run: ranges},
		{ID: "H-14/none", Title: "CreateVolume without capacity_range is a volume of the driver's size", Clauses: "CV-01 CV-44", Needs: cv, Run: func(t *T) {
			t.Mode()
			req := t.CreateRequest()
			req.CapacityRange = nil
			check.OK[*csi.CreateVolumeResponse](t, "CV-01", req)
		}},
		bad("contrary", "required_bytes above limit_bytes is OUT_OF_RANGE", "CV-12", capRange(2<<30, 1<<30), codes.OutOfRange, codes.InvalidArgument),
		bad("negative-required", "required_bytes below zero is INVALID_ARGUMENT, or OUT_OF_RANGE", "CV-10", capRange(-1, 0), codes.InvalidArgument, codes.OutOfRange),
		bad("negative-limit", "limit_bytes below zero is INVALID_ARGUMENT, or OUT_OF_RANGE", "CV-10", capRange(0, -1), codes.InvalidArgument, codes.OutOfRange),
		bad("empty", "A capacity_range of nothing is INVALID_ARGUMENT, or OUT_OF_RANGE", "CV-11", &csi.CapacityRange{}, codes.InvalidArgument, codes.OutOfRange),
		{ID: "H-14/huge", Title: "More bytes than there are is OUT_OF_RANGE", Clauses: "CV-12", Needs: cv, Run: huge},
		{ID: "H-14/capacity", Title: "GetCapacity tells what CreateVolume takes", Clauses: "GC-01 GC-03 GC-07", Needs: cv + " GET_CAPACITY", Run: capacity},
		{ID: "H-15/expand", Title: "ControllerExpandVolume makes a volume bigger, never smaller, and within the limit", Clauses: "CE-02 CE-05 CE-11", Needs: ex, Run: expand},
		{ID: "H-15/bad-range", Title: "ControllerExpandVolume to a size that cannot be is OUT_OF_RANGE", Clauses: "CE-10 CV-10", Needs: ex, Run: expandBadly},
		{ID: "H-15/online", Title: "A published volume grows where ONLINE is advertised, and is FAILED_PRECONDITION where it is not", Clauses: "ID-11 ID-13 CE-09", Needs: ex + " node", Run: expandOnline},
		{ID: "H-15/node", Title: "NodeExpandVolume follows, by target and by staging path, twice, without a range", Clauses: "CE-06 NE-02 NE-09 NE-10", Needs: "CREATE_DELETE_VOLUME node node:EXPAND_VOLUME", Run: expandNode},
		{ID: "H-15/node-range", Title: "NodeExpandVolume to more than the volume has is OUT_OF_RANGE", Clauses: "NE-08", Needs: "CREATE_DELETE_VOLUME node node:EXPAND_VOLUME", Run: expandNodeBadly},
		{ID: "H-15/told", Title: "What a volume has grown to is told everywhere", Clauses: "CE-05 CG-02 LV-02", Needs: ex + " GET_VOLUME|LIST_VOLUMES", Run: grownIsTold},
	}
}

func huge(t *T) {
	t.Mode()
	req := t.CreateRequest()
	req.CapacityRange = capRange(math.MaxInt64, 0)
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	switch code := codeOf(err); {
	case code == codes.OutOfRange || code == codes.ResourceExhausted:
	case code == codes.OK && resp.GetVolume().GetCapacityBytes() == 0:
		t.Warnf("CV-12 CV-08", "CreateVolume of 8 EiB is OK: the driver does not say how big a volume is, and takes any size for good")
	default:
		t.Failf("CV-12", "CreateVolume of 8 EiB: got %s, want OUT_OF_RANGE", check.Describe(err))
	}
}

func ranges(t *T) {
	t.Mode()
	size := t.Config().Size
	for _, r := range []*csi.CapacityRange{
		capRange(size, 0), capRange(size, size), capRange(size-1, 0), capRange(size+1, 0), capRange(size+1, size+1), capRange(0, size),
		capRange(1, 0), capRange(1, size), capRange(0, 1), capRange(size/2, size), capRange(size, 2*size), capRange(size, math.MaxInt64),
	} {
		req := t.CreateRequest()
		req.CapacityRange = r
		resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
		switch got := resp.GetVolume().GetCapacityBytes(); {
		case codeOf(err) == codes.OutOfRange || codeOf(err) == codes.ResourceExhausted:
			if r.GetRequiredBytes() == size && r.GetLimitBytes() == 0 {
				t.NotRun("the driver has no volumes of %d bytes (--size)", size)
			}
		case err != nil:
			t.Failf("CV-12", "CreateVolume of %s: got %s, want OK or OUT_OF_RANGE", t.Text(r), check.Describe(err))
		case got != 0 && got < r.GetRequiredBytes():
			t.Failf("CV-08", "CreateVolume of %s: the volume has %d bytes", t.Text(r), got)
		case r.GetLimitBytes() > 0 && got > r.GetLimitBytes():
			t.Failf("CV-09", "CreateVolume of %s: the volume has %d bytes", t.Text(r), got)
		}
		if err == nil {
			check.OK[*csi.DeleteVolumeResponse](t, "DV-01", &csi.DeleteVolumeRequest{VolumeId: resp.GetVolume().GetVolumeId(), Secrets: t.Config().Secrets})
		}
	}
}

func capacity(t *T) {
	t.Mode()
	c := check.OK[*csi.GetCapacityResponse](t, "GC-01", &csi.GetCapacityRequest{VolumeCapabilities: t.CreateRequest().GetVolumeCapabilities(), Parameters: t.Config().Parameters})
	most, least := c.GetMaximumVolumeSize().GetValue(), c.GetMinimumVolumeSize().GetValue()
	if most > 0 && least > most {
		t.Failf("GC-07", "minimum_volume_size %d is above maximum_volume_size %d", least, most)
	}
	if most > 0 && most < math.MaxInt64/4 {
		req := t.CreateRequest()
		req.CapacityRange = capRange(2*most, 0)
		t.Refused("GC-07 CV-12", "of twice maximum_volume_size", req, codes.OutOfRange, codes.ResourceExhausted)
	}
	capacityOfNothing(t)
	if c.GetAvailableCapacity() >= t.Config().Size || c.GetAvailableCapacity() == 0 {
		return
	}
	req := t.CreateRequest()
	if _, err := t.Try(req); err == nil {
		t.Warnf("GC-01", "GetCapacity says that there are %d bytes, and CreateVolume made a volume of %d", c.GetAvailableCapacity(), req.GetCapacityRange().GetRequiredBytes())
	}
}

// capacityOfNothing: there is no room for volumes that cannot be made.
func capacityOfNothing(t *T) {
	req := t.CreateRequest()
	bad := map[string]string{"csikit-no-such-parameter": "1"}
	maps.Copy(bad, t.Config().Parameters)
	req.Parameters = bad
	if _, err := t.Try(req); codeOf(err) != codes.InvalidArgument {
		return // it takes any parameters
	}
	c, err := check.Try[*csi.GetCapacityResponse](t, &csi.GetCapacityRequest{VolumeCapabilities: req.GetVolumeCapabilities(), Parameters: bad})
	if err == nil && c.GetAvailableCapacity() > 0 {
		t.Failf("GC-03", "GetCapacity says that there are %d bytes for volumes with parameters that CreateVolume refuses", c.GetAvailableCapacity())
	}
}

func expandTo(t *T, v *check.Volume, r *csi.CapacityRange) *csi.ControllerExpandVolumeResponse {
	req := expandRequest(v, 0)
	req.CapacityRange = r
	return check.OK[*csi.ControllerExpandVolumeResponse](t, "CE-01", req)
}

func expand(t *T) {
	v := t.NewVolume()
	size := sizeOf(t, v)
	if got := expandTo(t, v, capRange(size, 0)).GetCapacityBytes(); got < size {
		t.Failf("CE-05", "ControllerExpandVolume to what it has, %d bytes, says %d", size, got)
	}
	bigger := max(t.Config().ExpandSize, 2*size)
	resp := expandTo(t, v, capRange(bigger, 0))
	got := resp.GetCapacityBytes()
	if got < bigger {
		t.Failf("CE-05 CE-11", "ControllerExpandVolume to %d bytes says %d", bigger, got)
	}
	if again := expandTo(t, v, capRange(bigger, 0)).GetCapacityBytes(); again != got {
		t.Failf("CE-02", "ControllerExpandVolume to %d bytes says %d, and again %d", bigger, got, again)
	}
	if smaller := expandTo(t, v, capRange(size, 0)).GetCapacityBytes(); smaller < bigger {
		t.Failf("CE-11 CE-02", "ControllerExpandVolume to %d bytes, less than it has: says %d", size, smaller)
	}
	expandWithin(t, v, got)
}

// expandWithin: a driver that rounds up has no volume between some limits, and says so.
func expandWithin(t *T, v *check.Volume, size int64) {
	for _, room := range []int64{1, 4096, 1 << 20, size / 8, size / 2} {
		req := expandRequest(v, 0)
		req.CapacityRange = capRange(size+1, size+room)
		r, err := check.Try[*csi.ControllerExpandVolumeResponse](t, req)
		switch codeOf(err) {
		case codes.OK:
			if r.GetCapacityBytes() > size+room || r.GetCapacityBytes() <= size {
				t.Failf("CE-11 CE-10", "ControllerExpandVolume to %s says %d", t.Text(req.GetCapacityRange()), r.GetCapacityBytes())
			}
			size = max(size, r.GetCapacityBytes())
		case codes.OutOfRange, codes.ResourceExhausted:
		case codes.Aborted, codes.Unavailable, codes.FailedPrecondition:
			return // it may not grow a volume so often
		default:
			t.Failf("CE-10", "ControllerExpandVolume to %s: got %s, want OK or OUT_OF_RANGE", t.Text(req.GetCapacityRange()), check.Describe(err))
		}
	}
}

func expandBadly(t *T) {
	v := t.NewVolume()
	for _, r := range []*csi.CapacityRange{capRange(math.MaxInt64, 0), capRange(4<<30, 2<<30), capRange(-1, 0), capRange(0, -1)} {
		req := expandRequest(v, 0)
		req.CapacityRange = r
		want := []codes.Code{codes.OutOfRange}
		clauses := "CE-10"
		switch {
		case r.GetRequiredBytes() < 0 || r.GetLimitBytes() < 0:
			want, clauses = append(want, codes.InvalidArgument), "CV-10 CE-10"
		case r.GetLimitBytes() > 0:
			want = append(want, codes.InvalidArgument)
		default:
			want = append(want, codes.ResourceExhausted)
		}
		t.Refused(clauses, "to "+t.Text(r), req, want...)
	}
	if v.CapacityBytes > 1 {
		req := expandRequest(v, 0)
		req.CapacityRange = capRange(0, v.CapacityBytes/2)
		t.Refused("CE-10 CE-11", "to a limit below what it has", req, codes.OutOfRange)
	}
}

func expandOnline(t *T) {
	v := t.NewVolume()
	size := sizeOf(t, v)
	v.ToNode()
	target := v.PublishAt()
	resp, err := check.Try[*csi.ControllerExpandVolumeResponse](t, expandRequest(v, max(t.Config().ExpandSize, 2*size)))
	switch code := codeOf(err); {
	case t.Has("expansion:ONLINE") && err != nil:
		t.Failf("ID-11", "ControllerExpandVolume of a published volume, and ONLINE is advertised: got %s, want OK", check.Describe(err))
	case !t.Has("expansion:ONLINE") && t.Has("expansion:OFFLINE") && code != codes.FailedPrecondition:
		t.Failf("CE-09 ID-13", "ControllerExpandVolume of a published volume, and OFFLINE alone is advertised: got %s, want FAILED_PRECONDITION", check.Describe(err))
	case err == nil && resp.GetNodeExpansionRequired() && t.Has("node:EXPAND_VOLUME"):
		grownOnNode(t, v, target, resp.GetCapacityBytes())
	case err == nil && resp.GetNodeExpansionRequired():
		t.Failf("CE-06", "ControllerExpandVolume says that the node has to expand the volume, and the node does not advertise EXPAND_VOLUME")
	}
}

// grownOnNode has the node expand a volume in use. Where its file system cannot grow
// so, FAILED_PRECONDITION is right, and a CO does it at the next stage.
func grownOnNode(t *T, v *check.Volume, target string, size int64) bool {
	_, err := t.Try(nodeExpandRequest(v, target, size))
	switch codeOf(err) {
	case codes.OK:
		return true
	case codes.FailedPrecondition:
		t.Warnf("NE-07", "NodeExpandVolume of a volume in use: %s; right where its file system cannot grow so", check.Describe(err))
	default:
		t.Failf("NE-01 CE-06", "NodeExpandVolume: got %s, want OK", check.Describe(err))
	}
	return false
}

func expandNode(t *T) {
	v := t.NewVolume().ToNode()
	staged := ""
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		staged = v.Staging
	}
	try := func(why, path string, r *csi.CapacityRange) {
		req := nodeExpandRequest(v, path, 0)
		req.CapacityRange = r
		_, err := t.Try(req)
		if err == nil {
			return
		}
		if codeOf(err) == codes.FailedPrecondition {
			t.Warnf("NE-07", "NodeExpandVolume %s: %s; right where a file system in use cannot grow", why, check.Describe(err))
			return
		}
		if r == nil || path == staged {
			t.Warnf("NE-09 NE-10", "NodeExpandVolume %s: %s; the spec allows the call", why, check.Describe(err))
			return
		}
		t.Failf("NE-01 NE-02", "NodeExpandVolume %s: got %s, want OK", why, check.Describe(err))
	}
	if staged != "" {
		try("before NodePublishVolume, by the staging path", staged, capRange(v.CapacityBytes, 0))
	}
	target := v.PublishAt()
	try("by the target path", target, capRange(v.CapacityBytes, 0))
	try("again", target, capRange(v.CapacityBytes, 0))
	try("without capacity_range", target, nil)
	if t.Has("EXPAND_VOLUME") && t.Has("expansion:ONLINE") && v.CapacityBytes > 0 {
		grown := expandTo(t, v, capRange(max(t.Config().ExpandSize, 2*v.CapacityBytes), 0))
		try("after ControllerExpandVolume", target, capRange(grown.GetCapacityBytes(), 0))
		try("after ControllerExpandVolume, again", target, capRange(grown.GetCapacityBytes(), 0))
	}
}

func expandNodeBadly(t *T) {
	v := t.NewVolume().ToNode()
	target := v.PublishAt()
	if !t.Has("EXPAND_VOLUME") {
		t.NotApplicable("the node alone expands volumes, to what is asked for")
	}
	if v.CapacityBytes > 0 {
		beyondVolume(t, nodeExpandRequest(v, target, 16*v.CapacityBytes), 16*v.CapacityBytes)
	}
	r := nodeExpandRequest(v, target, 0)
	r.CapacityRange = capRange(4<<30, 2<<30)
	t.Refused("NE-08", "to required_bytes above limit_bytes", r, codes.OutOfRange, codes.InvalidArgument)
}

// beyondVolume: where the node does the growing itself it may grow to that size.
func beyondVolume(t *T, req *csi.NodeExpandVolumeRequest, want int64) {
	resp, err := check.Try[*csi.NodeExpandVolumeResponse](t, req)
	switch got := resp.GetCapacityBytes(); {
	case codeOf(err) == codes.OutOfRange || codeOf(err) == codes.FailedPrecondition:
	case err != nil || got != 0 && got < want:
		t.Failf("NE-08", "NodeExpandVolume to 16 times what the volume has, %d: got %s, and %d bytes, want OUT_OF_RANGE", want, check.Describe(err), got)
	default:
		t.Warnf("NE-08", "NodeExpandVolume to 16 times what the volume has, %d, is OK, and ControllerExpandVolume was not asked: right only if the node does the growing", want)
	}
}

func grownIsTold(t *T) {
	v := t.NewVolume()
	want := expandTo(t, v, capRange(max(t.Config().ExpandSize, 2*sizeOf(t, v)), 0)).GetCapacityBytes()
	toldOfSize(t, v, func(who, clauses string, got int64) {
		if got != want {
			t.Failf(clauses, "%s says that the volume has %d bytes, and ControllerExpandVolume said %d", who, got, want)
		}
	})
}

// toldOfSize hands on how big a volume is said to be, by whoever says it.
func toldOfSize(t *T, v *check.Volume, told func(who, clauses string, got int64)) {
	say := func(who, clauses string, got int64) {
		if got != 0 {
			told(who, clauses, got)
		}
	}
	if t.Has("GET_VOLUME") {
		say("ControllerGetVolume", "CG-02 CE-05", check.OK[*csi.ControllerGetVolumeResponse](t, "CG-01", &csi.ControllerGetVolumeRequest{VolumeId: v.VolumeId}).GetVolume().GetCapacityBytes())
	}
	if e := volumeIDs(t)[v.VolumeId]; e != nil {
		say("ListVolumes", "LV-02 CE-05", e.GetVolume().GetCapacityBytes())
	}
	req := proto.Clone(v.Request).(*csi.CreateVolumeRequest)
	req.CapacityRange = capRange(1, 0)
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	if err == nil {
		say("CreateVolume", "CV-02 CE-05", resp.GetVolume().GetCapacityBytes())
	}
}
