package suite

import (
	"maps"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// Short names of access modes.
const (
	snw  = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	snro = csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
	mnro = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	mnsw = csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER
	mnmw = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	snsw = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	snmw = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
)

// modes are all that the spec has, in order.
func modes() map[check.Mode]string {
	return map[check.Mode]string{snw: "SINGLE_NODE_WRITER", snro: "SINGLE_NODE_READER_ONLY", mnro: "MULTI_NODE_READER_ONLY",
		mnsw: "MULTI_NODE_SINGLE_WRITER", mnmw: "MULTI_NODE_MULTI_WRITER", snsw: "SINGLE_NODE_SINGLE_WRITER", snmw: "SINGLE_NODE_MULTI_WRITER"}
}

// modeChecks: H-17, each access mode is served everywhere or nowhere.
func modeChecks() []Check {
	const cv = "CREATE_DELETE_VOLUME"
	var all []Check
	for _, mode := range slices.Sorted(maps.Keys(modes())) {
		for _, access := range []string{"mount", "block"} {
			all = append(all, Check{ID: "H-17/" + modes()[mode] + "/" + access, Title: modes()[mode] + ", " + access + ": every RPC takes the capability, or every one refuses it",
				Clauses: "CV-14 CV-15 VC-02 VC-08 CP-07 NS-09 NP-15 CE-07 NE-05 GC-02", Needs: cv, Run: func(t *T) { oneMode(t, check.Capability(mode, access == "block")) }})
		}
	}
	return append(all,
		Check{ID: "H-17/all-of-them", Title: "ValidateVolumeCapabilities confirms what was made, and nothing unless it has all", Clauses: "VC-02 VC-07 VC-08 VC-09 GEN-25", Needs: cv, Run: confirmation},
		Check{ID: "H-17/writer-still", Title: "SINGLE_NODE_WRITER is taken where SINGLE_NODE_MULTI_WRITER is advertised", Clauses: "CC-03 NP-17", Needs: cv + " SINGLE_NODE_MULTI_WRITER|node:SINGLE_NODE_MULTI_WRITER", Run: func(t *T) {
			check.OK[*csi.CreateVolumeResponse](t, "CC-03 NP-17", withCap(t, t.Cap(snw)))
		}},
		Check{ID: "H-17/second-target/single", Title: "A second target of a SINGLE_NODE_SINGLE_WRITER volume is FAILED_PRECONDITION", Clauses: "NP-11", Needs: cv + " node node:SINGLE_NODE_MULTI_WRITER", Run: func(t *T) { secondTarget(t, snsw, "NP-11", codes.FailedPrecondition) }},
		Check{ID: "H-17/second-target/multi-writer", Title: "A second target of a SINGLE_NODE_MULTI_WRITER volume is OK", Clauses: "NP-13", Needs: cv + " node node:SINGLE_NODE_MULTI_WRITER", Run: func(t *T) { secondTarget(t, snmw, "NP-13", codes.OK) }},
		Check{ID: "H-17/second-target/multi-node", Title: "A second target of a MULTI_NODE volume is OK", Clauses: "NP-12", Needs: cv + " node", Run: func(t *T) { secondTarget(t, mnmw, "NP-12", codes.OK) }},
		Check{ID: "H-17/second-target/reader", Title: "A second target of a MULTI_NODE_READER_ONLY volume is OK", Clauses: "NP-12", Needs: cv + " node", Run: func(t *T) { secondTarget(t, mnro, "NP-12", codes.OK) }},
		Check{ID: "H-17/second-target/writer", Title: "Two pods of one node have a SINGLE_NODE_WRITER volume, as Kubernetes does it", Clauses: "NP-11", Needs: cv + " node", Run: twoPods},
		Check{ID: "H-17/second-target/other-capability", Title: "A second target with another access type is FAILED_PRECONDITION", Clauses: "NP-16", Needs: cv + " node", Run: otherCapabilityAtSecondTarget},
	)
}

// withCap is a request for a volume of a capability.
func withCap(t *T, c ...*csi.VolumeCapability) *csi.CreateVolumeRequest {
	req := t.CreateRequest()
	req.VolumeCapabilities = c
	return req
}

func oneMode(t *T, c *csi.VolumeCapability) {
	req := withCap(t, c)
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	switch codeOf(err) {
	case codes.OK:
		usable(t, &check.Volume{Volume: resp.GetVolume(), T: t, Request: req, Cap: c})
	case codes.InvalidArgument:
		refusedEverywhere(t, c)
	case codes.ResourceExhausted:
		t.NotRun("CreateVolume: %s", check.Describe(err))
	default:
		t.Failf("CV-15 GEN-09", "CreateVolume with %v: got %s, want OK or INVALID_ARGUMENT", c, check.Describe(err))
	}
}

// usable: a capability with which a volume was made works to its end.
func usable(t *T, v *check.Volume) {
	got := check.OK[*csi.ValidateVolumeCapabilitiesResponse](t, "VC-01", validateRequest(v))
	if got.GetConfirmed() == nil {
		t.Failf("VC-02 CV-14", "the volume was made with the capability, and ValidateVolumeCapabilities does not confirm it: %q", got.GetMessage())
	}
	if !t.HasNode {
		return
	}
	if t.Has("PUBLISH_UNPUBLISH_VOLUME") {
		v.Publish = check.OK[*csi.ControllerPublishVolumeResponse](t, "CP-07 CV-14", v.AttachRequest()).GetPublishContext()
	}
	if t.Has("node:STAGE_UNSTAGE_VOLUME") && !tried(t, v, "NS-09 CV-14", v.StageRequest()) {
		return
	}
	req := v.PublishRequest()
	req.Readonly = readOnlyMode(v.Cap)
	if !tried(t, v, "NP-15 CV-14", req) {
		return
	}
	v.Unpublish(req.GetTargetPath())
	v.FromNode()
}

// tried makes a call on the node. A new volume has no file system, and nothing can be
// read that only readers have: then it may be refused.
func tried(t *T, v *check.Volume, clauses string, req proto.Message) bool {
	_, err := t.Try(req)
	if err != nil && (!readOnlyMode(v.Cap) || codeOf(err) != codes.FailedPrecondition) {
		t.Fatalf(clauses, "%s: got %s, want OK", check.Name(req), check.Describe(err))
	}
	return err == nil
}

func readOnlyMode(c *csi.VolumeCapability) bool {
	m := c.GetAccessMode().GetMode()
	return m == snro || m == mnro
}

// refusedEverywhere: a capability that CreateVolume refuses is no good elsewhere.
func refusedEverywhere(t *T, c *csi.VolumeCapability) {
	v := t.NewVolume()
	val := validateRequest(v)
	val.VolumeCapabilities = []*csi.VolumeCapability{c}
	got, err := check.Try[*csi.ValidateVolumeCapabilitiesResponse](t, val)
	switch {
	case codeOf(err) == codes.InvalidArgument:
	case err != nil:
		t.Failf("VC-02", "ValidateVolumeCapabilities with a capability that CreateVolume refuses: got %s, want OK, and nothing confirmed", check.Describe(err))
	case got.GetConfirmed() != nil:
		t.Failf("VC-02", "ValidateVolumeCapabilities confirms a capability that CreateVolume refuses")
	}
	both := withCap(t, v.Cap, c)
	t.Refused("CV-14 CV-15", "with a good capability and one that is refused", both, codes.InvalidArgument)
	t.Mode()
	if t.Has("GET_CAPACITY") {
		capacityFor(t, c)
	}
	if t.Has("EXPAND_VOLUME") && got.GetConfirmed() == nil {
		e := expandRequest(v, max(v.CapacityBytes, t.Config().ExpandSize))
		e.VolumeCapability = c
		t.Refused("CE-07", "with a capability that the volume has not", e, codes.InvalidArgument)
	}
	if t.HasNode {
		refusedOnNode(t, v, c)
	}
}

func capacityFor(t *T, c *csi.VolumeCapability) {
	got, err := check.Try[*csi.GetCapacityResponse](t, &csi.GetCapacityRequest{VolumeCapabilities: []*csi.VolumeCapability{c}, Parameters: t.Config().Parameters})
	if err == nil && got.GetAvailableCapacity() > 0 {
		t.Failf("GC-02", "GetCapacity says that there are %d bytes for volumes with a capability that CreateVolume refuses", got.GetAvailableCapacity())
	}
	if err != nil && codeOf(err) != codes.InvalidArgument {
		t.Failf("GC-02", "GetCapacity for a capability that is not served: got %s, want OK, and 0", check.Describe(err))
	}
}

func refusedOnNode(t *T, v *check.Volume, c *csi.VolumeCapability) {
	refuse := []codes.Code{codes.FailedPrecondition, codes.InvalidArgument}
	if t.Has("PUBLISH_UNPUBLISH_VOLUME") {
		req := v.AttachRequest()
		req.VolumeCapability = c
		t.Refused("CP-07", "with a capability that CreateVolume refuses", req, append(refuse, codes.AlreadyExists)...)
		v.Attach()
	}
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		req := v.StageRequest()
		req.VolumeCapability = c
		t.Refused("NS-09", "with a capability that CreateVolume refuses", req, refuse...)
	}
	v.Stage()
	req := v.PublishRequest()
	req.VolumeCapability = c
	t.Refused("NP-15", "with a capability that CreateVolume refuses", req, append(refuse, codes.AlreadyExists)...)
	if t.Has("node:EXPAND_VOLUME") {
		e := nodeExpandRequest(v, v.PublishAt(), v.CapacityBytes)
		e.VolumeCapability = c
		t.Refused("NE-05", "with a capability that CreateVolume refuses", e, codes.InvalidArgument, codes.OK, codes.FailedPrecondition)
	}
}

func confirmation(t *T) {
	v := t.NewVolume()
	req := validateRequest(v)
	got := check.OK[*csi.ValidateVolumeCapabilitiesResponse](t, "VC-01", req)
	if got.GetConfirmed() == nil {
		t.Fatalf("VC-02", "the capability that the volume was made with is not confirmed: %q", got.GetMessage())
	}
	if n := len(got.GetConfirmed().GetVolumeCapabilities()); n == 0 {
		t.Failf("VC-07 GEN-17", "confirmed has no volume_capabilities")
	} else if !proto.Equal(got.GetConfirmed().GetVolumeCapabilities()[0], v.Cap) {
		t.Failf("VC-09", "confirmed has a capability that was not asked for: %v", got.GetConfirmed().GetVolumeCapabilities()[0])
	}
	for k := range got.GetConfirmed().GetParameters() {
		if _, asked := req.GetParameters()[k]; !asked {
			t.Failf("VC-09", "confirmed has the parameter %q, which was not asked for", k)
		}
	}
	bad := proto.Clone(req).(*csi.ValidateVolumeCapabilitiesRequest)
	bad.VolumeCapabilities = append(bad.VolumeCapabilities, t.Cap(99))
	resp, err := check.Try[*csi.ValidateVolumeCapabilitiesResponse](t, bad)
	switch {
	case codeOf(err) == codes.InvalidArgument:
	case err != nil:
		t.Failf("VC-08", "with an access mode that no spec has: got %s, want OK, and nothing confirmed", check.Describe(err))
	case resp.GetConfirmed() != nil:
		t.Failf("VC-02 VC-08 GEN-25", "a good capability and one of an access mode that no spec has are confirmed")
	case resp.GetMessage() == "":
		t.Warnf("VC-08", "nothing is confirmed, and the message does not say why")
	}
	unknownConfirmed(t, req)
}

// unknownConfirmed: a field of a later spec is not confirmed.
func unknownConfirmed(t *T, req *csi.ValidateVolumeCapabilitiesRequest) {
	newer := proto.Clone(req).(*csi.ValidateVolumeCapabilitiesRequest)
	newer.VolumeCapabilities[0].ProtoReflect().SetUnknown(unknownField())
	got, err := check.Try[*csi.ValidateVolumeCapabilitiesResponse](t, newer)
	if err != nil {
		t.Failf("GEN-25", "ValidateVolumeCapabilities with a field of a later spec: got %s, want OK", check.Describe(err))
		return
	}
	for _, c := range got.GetConfirmed().GetVolumeCapabilities() {
		if len(c.ProtoReflect().GetUnknown()) > 0 {
			t.Failf("GEN-25 VC-09", "ValidateVolumeCapabilities confirms a field that it cannot know")
		}
	}
}

// unknownField is a field that no spec has: number 9001, text.
func unknownField() []byte { return []byte{0xca, 0xb2, 0x04, 0x03, 'n', 'e', 'w'} }

// volumeOf makes a volume of a mode, or ends the check.
func volumeOf(t *T, mode check.Mode) *check.Volume {
	req := withCap(t, t.Cap(mode))
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	if err != nil {
		t.NotApplicable("the driver has no volumes of %s: %s", modes()[mode], check.Describe(err))
	}
	return &check.Volume{Volume: resp.GetVolume(), T: t, Request: req, Cap: req.GetVolumeCapabilities()[0]}
}

// secondTarget is the table of second publishes: a SHOULD.
func secondTarget(t *T, mode check.Mode, clause string, want codes.Code) {
	v := volumeOf(t, mode)
	v.Attach()
	if t.Has("node:STAGE_UNSTAGE_VOLUME") && !tried(t, v, "NS-01", v.StageRequest()) {
		t.NotApplicable("a new volume is empty, and has nothing to be read")
	}
	ro := func(r *csi.NodePublishVolumeRequest) { r.Readonly = readOnlyMode(v.Cap) }
	v.PublishAt(ro)
	req := v.PublishRequest()
	ro(req)
	if _, err := t.Try(req); codeOf(err) != want {
		t.Failf(clause, "NodePublishVolume of a %s volume at a second target: got %s, want %s", modes()[mode], check.Describe(err), check.CodeName(want))
	}
}

func twoPods(t *T) {
	v := volumeOf(t, snw).ToNode()
	v.PublishAt()
	_, err := t.Try(v.PublishRequest())
	switch codeOf(err) {
	case codes.OK:
	case codes.FailedPrecondition:
		if t.Has("node:SINGLE_NODE_MULTI_WRITER") {
			return // then Kubernetes says SINGLE_NODE_MULTI_WRITER where it means that
		}
		t.Warnf("NP-11", "a second target of a SINGLE_NODE_WRITER volume is FAILED_PRECONDITION: right by the spec's table, and two pods of one node cannot share a ReadWriteOnce volume in Kubernetes, unless SINGLE_NODE_MULTI_WRITER is advertised")
	default:
		t.Failf("NP-11", "NodePublishVolume of a SINGLE_NODE_WRITER volume at a second target: got %s, want FAILED_PRECONDITION or OK", check.Describe(err))
	}
}

func otherCapabilityAtSecondTarget(t *T) {
	v := twoTypes(t)
	v.ToNode()
	v.PublishAt()
	req := v.PublishRequest()
	req.VolumeCapability = check.Capability(v.Cap.GetAccessMode().GetMode(), !t.Config().Block)
	_, err := t.Try(req)
	switch codeOf(err) {
	case codes.FailedPrecondition, codes.AlreadyExists, codes.InvalidArgument:
	case codes.OK:
		t.Warnf("NP-16", "a mounted volume is published raw too, or the other way round")
	default:
		t.Failf("NP-16", "NodePublishVolume at a second target, with another access type: got %s, want FAILED_PRECONDITION", check.Describe(err))
	}
}
