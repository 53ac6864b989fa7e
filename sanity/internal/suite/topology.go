package suite

import (
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/sanity/internal/check"
)

// topologyChecks: H-24.
func topologyChecks() []Check {
	const cv, place = "CREATE_DELETE_VOLUME", "CREATE_DELETE_VOLUME node plugin:VOLUME_ACCESSIBILITY_CONSTRAINTS"
	return []Check{
		{ID: "H-24/node", Title: "A node has a place where places are advertised, always the same, and none where they are not", Clauses: "NI-01 NI-05 NI-06 NI-07", Needs: "node", Run: nodePlace},
		{ID: "H-24/here", Title: "A volume that is required here, or preferred here, is accessible here", Clauses: "CV-28 CV-29 CV-30", Needs: place, Run: placedHere},
		{ID: "H-24/nowhere", Title: "A volume that is required where nobody is, is RESOURCE_EXHAUSTED", Clauses: "CV-33 CV-28", Needs: place, Run: placedNowhere},
		{ID: "H-24/order", Title: "Of several preferred places, the first that can be is taken", Clauses: "CV-29 CV-30", Needs: place, Run: preferred},
		{ID: "H-24/capacity", Title: "GetCapacity takes the place into account", Clauses: "GC-04", Needs: "node GET_CAPACITY plugin:VOLUME_ACCESSIBILITY_CONSTRAINTS", Run: capacityOfPlace},
		{ID: "H-24/refused", Title: "accessibility_requirements without VOLUME_ACCESSIBILITY_CONSTRAINTS are refused", Clauses: "CV-32", Needs: cv, Run: func(t *T) {
			notWith(t)
			req := t.CreateRequest()
			req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{{Segments: map[string]string{"csikit.example.com/zone": "a"}}}}
			t.Refused("CV-32", "with accessibility_requirements", req, codes.InvalidArgument)
		}},
		{ID: "H-24/capacity-refused", Title: "accessible_topology of GetCapacity without VOLUME_ACCESSIBILITY_CONSTRAINTS is refused", Clauses: "GC-08", Needs: "GET_CAPACITY", Run: func(t *T) {
			notWith(t)
			t.Refused("GC-08", "with accessible_topology", &csi.GetCapacityRequest{AccessibleTopology: &csi.Topology{Segments: map[string]string{"csikit.example.com/zone": "a"}}}, codes.InvalidArgument)
			if _, err := check.Try[*csi.GetCapacityResponse](t, &csi.GetCapacityRequest{AccessibleTopology: &csi.Topology{}, Parameters: t.Config().Parameters}); err != nil {
				t.Warnf("GC-08", "GetCapacity with an accessible_topology of no segments: got %s; external-provisioner asks so, and no pod with a claim that waits for it is scheduled then", check.Describe(err))
			}
		}},
	}
}

func notWith(t *T) {
	if t.Has("plugin:VOLUME_ACCESSIBILITY_CONSTRAINTS") {
		t.NotApplicable("VOLUME_ACCESSIBILITY_CONSTRAINTS is advertised")
	}
	if t.Has("CREATE_DELETE_VOLUME") {
		t.Mode()
	}
}

func nodePlace(t *T) {
	first := check.OK[*csi.NodeGetInfoResponse](t, "NI-01", &csi.NodeGetInfoRequest{})
	for range 5 {
		again := check.OK[*csi.NodeGetInfoResponse](t, "NI-01", &csi.NodeGetInfoRequest{})
		if again.GetNodeId() != first.GetNodeId() || !maps.Equal(again.GetAccessibleTopology().GetSegments(), first.GetAccessibleTopology().GetSegments()) {
			t.Failf("NI-02 NI-07", "NodeGetInfo says %s, and before %s", t.Text(again), t.Text(first))
		}
	}
	if t.Has("plugin:VOLUME_ACCESSIBILITY_CONSTRAINTS") && len(first.GetAccessibleTopology().GetSegments()) == 0 {
		t.Warnf("NI-05", "VOLUME_ACCESSIBILITY_CONSTRAINTS is advertised, and the node has no accessible_topology")
	}
}

// here is the node's place, or the check ends.
func here(t *T) *csi.Topology {
	p := t.Node.GetAccessibleTopology()
	if len(p.GetSegments()) == 0 {
		t.NotApplicable("the node has no accessible_topology")
	}
	t.Mode()
	return p
}

func placed(t *T, clauses string, r *csi.TopologyRequirement) *csi.Volume {
	req := t.CreateRequest()
	req.AccessibilityRequirements = r
	return check.OK[*csi.CreateVolumeResponse](t, clauses, req).GetVolume()
}

// reachable tells whether a volume can be reached from a place.
func reachable(v *csi.Volume, place *csi.Topology) bool {
	for _, p := range v.GetAccessibleTopology() {
		ok := true
		for k, want := range p.GetSegments() {
			ok = ok && place.GetSegments()[k] == want
		}
		if ok {
			return true
		}
	}
	return len(v.GetAccessibleTopology()) == 0
}

func placedHere(t *T) {
	p := here(t)
	for _, r := range []*csi.TopologyRequirement{
		{Requisite: []*csi.Topology{p}}, {Preferred: []*csi.Topology{p}}, {Requisite: []*csi.Topology{p}, Preferred: []*csi.Topology{p}},
	} {
		if v := placed(t, "CV-28", r); !reachable(v, p) {
			t.Failf("CV-28", "the volume is required at %s, and is accessible from %v", t.Text(p), v.GetAccessibleTopology())
		}
	}
}

func placedNowhere(t *T) {
	p := here(t)
	req := t.CreateRequest()
	req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{elsewhere(p.GetSegments())}}
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	switch codeOf(err) {
	case codes.ResourceExhausted:
	case codes.InvalidArgument:
		t.Warnf("CV-33", "CreateVolume for a place that nobody has: got %s; RESOURCE_EXHAUSTED makes a CO look for another place", check.Describe(err))
	case codes.OK:
		if !reachable(resp.GetVolume(), elsewhere(p.GetSegments())) {
			t.Failf("CV-28 CV-33", "CreateVolume for a place that nobody has: got OK, and a volume that is elsewhere; want RESOURCE_EXHAUSTED")
		}
	default:
		t.Failf("CV-33", "CreateVolume for a place that nobody has: got %s, want RESOURCE_EXHAUSTED", check.Describe(err))
	}
}

func preferred(t *T) {
	p := here(t)
	preferredOfTwo(t, p)
	far := elsewhere(p.GetSegments())
	placed(t, "CV-28", &csi.TopologyRequirement{Requisite: []*csi.Topology{p}}) // there is room
	for _, r := range []*csi.TopologyRequirement{
		{Requisite: []*csi.Topology{far, p}}, {Requisite: []*csi.Topology{far, p}, Preferred: []*csi.Topology{far, p}},
		{Requisite: []*csi.Topology{p, far}, Preferred: []*csi.Topology{p, far}},
	} {
		req := t.CreateRequest()
		req.AccessibilityRequirements = r
		resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
		if v := resp.GetVolume(); err != nil || !reachable(v, p) {
			t.Failf("CV-28 CV-29 CV-30", "of two places one can be: got %s, and a volume that is accessible from %v", check.Describe(err), v.GetAccessibleTopology())
		}
	}
}

// preferredOfTwo: both places can be, and the first one is the one that is wanted.
func preferredOfTwo(t *T, p *csi.Topology) {
	far := anotherPlace(t, p)
	if far == nil {
		return
	}
	for _, want := range []*csi.Topology{p, far} {
		other := far
		if want == far {
			other = p
		}
		r := &csi.TopologyRequirement{Requisite: []*csi.Topology{p, far}, Preferred: []*csi.Topology{want, other}}
		if v := placed(t, "CV-28 CV-29 CV-30", r); !reachable(v, want) {
			t.Warnf("CV-29", "a volume that is preferred at %s, and then at %s, is accessible from %v: right only if there was no room", t.Text(want), t.Text(other), v.GetAccessibleTopology())
		}
	}
}

func capacityOfPlace(t *T) {
	p := t.Node.GetAccessibleTopology()
	if len(p.GetSegments()) == 0 {
		t.NotApplicable("the node has no accessible_topology")
	}
	ask := func(place *csi.Topology) (int64, error) {
		r, err := check.Try[*csi.GetCapacityResponse](t, &csi.GetCapacityRequest{AccessibleTopology: place, Parameters: t.Config().Parameters})
		return r.GetAvailableCapacity(), err
	}
	if _, err := ask(p); err != nil {
		t.Failf("GC-04", "GetCapacity of the node's place: got %s, want OK", check.Describe(err))
	}
	if n, err := ask(elsewhere(p.GetSegments())); err == nil && n > 0 {
		t.Failf("GC-04", "GetCapacity of a place that nobody has says %d bytes", n)
	}
}
