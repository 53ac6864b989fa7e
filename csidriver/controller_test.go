package csidriver

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

func (m *memory) add(n int, context map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range n {
		v := &backends.Volume{ID: fmt.Sprintf("v%06d", i), Capacity: gi, Context: context}
		m.volumes[v.ID] = v
	}
}

// listAll walks the pages, and says how many there were.
func listAll(t *testing.T, r *rig, maxEntries int32) (ids map[string]bool, pages int) {
	t.Helper()
	ids = make(map[string]bool)
	for req := (&csi.ListVolumesRequest{MaxEntries: maxEntries}); ; pages++ {
		resp, err := r.ListVolumes(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if size := proto.Size(resp); size > 4<<20 {
			t.Errorf("a page of %d bytes", size)
		}
		if n := len(resp.GetEntries()); maxEntries > 0 && n > int(maxEntries) {
			t.Errorf("%d entries, %d were allowed", n, maxEntries)
		}
		for _, e := range resp.GetEntries() {
			ids[e.GetVolume().GetVolumeId()] = true
		}
		if req.StartingToken = resp.GetNextToken(); req.StartingToken == "" {
			return ids, pages + 1
		}
	}
}

func TestListPages(t *testing.T) {
	r := startRig(t, func(s *setup) { s.backend.stale = true })
	r.backend.add(10, nil)
	for limit, want := range map[int32]int{0: 1, 1: 10, 3: 4, 9: 2, 10: 1, 11: 1} {
		if ids, pages := listAll(t, r, limit); len(ids) != 10 || pages != want {
			t.Errorf("max_entries %d: %d volumes on %d pages, want %d", limit, len(ids), pages, want)
		}
	}
	for _, token := range []string{"garbage", strings.Repeat("t", 1000)} {
		_, err := r.ListVolumes(t.Context(), &csi.ListVolumesRequest{StartingToken: token})
		wantCode(t, err, codes.Aborted)
	}
	_, err := r.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: -1})
	wantCode(t, err, codes.InvalidArgument, "max_entries is negative")
}

// TestListStaysSmall: no page comes near the 4 MiB that a client takes, neither by
// count nor by the size of entries.
func TestListStaysSmall(t *testing.T) {
	r := startRig(t, nil)
	r.backend.add(5000, map[string]string{"a": strings.Repeat("b", 4000)})
	if ids, _ := listAll(t, r, 0); len(ids) != 5000 {
		t.Errorf("%d volumes", len(ids))
	}
	_, err := r.ListVolumes(t.Context(), &csi.ListVolumesRequest{StartingToken: strings.Repeat("t", 129)})
	wantCode(t, err, codes.Aborted) // whatever the backend makes of it
}

func TestListBadAnswers(t *testing.T) {
	for say, answer := range map[string]func(backends.Page) ([]*backends.Volume, string, error){
		"a page of": func(p backends.Page) ([]*backends.Volume, string, error) {
			return make([]*backends.Volume, p.Limit+1), "", nil
		},
		"a page token of":  func(backends.Page) ([]*backends.Volume, string, error) { return nil, strings.Repeat("t", 129), nil },
		"that of the page": func(p backends.Page) ([]*backends.Volume, string, error) { return nil, p.Token, nil },
		"no volume":        func(backends.Page) ([]*backends.Volume, string, error) { return []*backends.Volume{nil}, "", nil },
		"not found": func(backends.Page) ([]*backends.Volume, string, error) {
			return nil, "", backends.VolumeNotFound("x")
		},
	} {
		r := startRig(t, func(s *setup) {
			s.backend.without = func(c *backends.ControllerFeatures, _ *backends.NodeFeatures) { c.VolumeLister = lister(answer) }
		})
		_, err := r.ListVolumes(t.Context(), &csi.ListVolumesRequest{StartingToken: sealToken("ListVolumes", "t")})
		wantCode(t, err, codes.Internal, say)
	}
}

type lister func(backends.Page) ([]*backends.Volume, string, error)

func (l lister) ListVolumes(_ context.Context, req backends.ListVolumesRequest) ([]*backends.Volume, string, error) {
	return l(req.Page)
}

func TestGetCapacity(t *testing.T) {
	r, ctx := startRig(t, func(s *setup) {
		s.backend.place = backends.Segments{"a.b/zone": "one"}
		s.cfg.Traits.TopologyKeys = []string{"a.b/zone"}
		s.cfg.Traits.Parameters = []backends.Parameter{{Name: "class", Required: true, Values: []string{"ssd", "tape"}}}
		s.backend.check = func(req backends.CheckVolumeRequest) error {
			switch {
			case req.Parameters["class"] == "tape" && req.Capabilities[0].Block:
				return backends.ErrInvalid
			case len(req.Topology.Requisite) > 0 && req.Topology.Requisite[0]["a.b/zone"] == "down":
				return backends.ErrUnavailable
			}
			return nil
		}
	}), t.Context()
	in := func(key, value string) *csi.Topology {
		return &csi.Topology{Segments: map[string]string{key: value}}
	}
	for name, tc := range map[string]struct {
		req  *csi.GetCapacityRequest
		code codes.Code
		want int64
	}{
		"of all":          {&csi.GetCapacityRequest{}, codes.OK, 5 * gi},
		"of a class":      {&csi.GetCapacityRequest{Parameters: map[string]string{"class": "ssd"}}, codes.OK, 5 * gi},
		"unknown class":   {&csi.GetCapacityRequest{Parameters: map[string]string{"class": "x"}}, codes.InvalidArgument, 0},
		"no such volumes": {&csi.GetCapacityRequest{Parameters: map[string]string{"class": "tape"}, VolumeCapabilities: []*csi.VolumeCapability{blockCap()}}, codes.OK, 0},
		"of a zone":       {&csi.GetCapacityRequest{AccessibleTopology: in("a.b/zone", "one")}, codes.OK, 5 * gi},
		"foreign key":     {&csi.GetCapacityRequest{AccessibleTopology: in("c.d/zone", "one")}, codes.InvalidArgument, 0},
		"bad value":       {&csi.GetCapacityRequest{AccessibleTopology: in("a.b/zone", "o n e")}, codes.InvalidArgument, 0},
		"cannot look":     {&csi.GetCapacityRequest{AccessibleTopology: in("a.b/zone", "down"), VolumeCapabilities: []*csi.VolumeCapability{mountCap()}}, codes.Unavailable, 0},
	} {
		free, err := r.GetCapacity(ctx, tc.req)
		wantCode(t, err, tc.code)
		if free.GetAvailableCapacity() != tc.want {
			t.Errorf("%s: %v", name, free)
		}
	}
	plain := startRig(t, nil)
	_, err := plain.GetCapacity(ctx, &csi.GetCapacityRequest{AccessibleTopology: in("a.b/zone", "one")})
	wantCode(t, err, codes.InvalidArgument, "VOLUME_ACCESSIBILITY_CONSTRAINTS")
	// As external-provisioner asks a driver without topology.
	free, err := plain.GetCapacity(ctx, &csi.GetCapacityRequest{AccessibleTopology: &csi.Topology{}})
	if wantCode(t, err, codes.OK); free.GetAvailableCapacity() != 5*gi {
		t.Errorf("nowhere in particular: %v", free)
	}
}

func TestExpand(t *testing.T) {
	r, ctx := startRig(t, func(s *setup) {
		s.backend.check = func(req backends.CheckVolumeRequest) error {
			if req.Volume != nil && req.Capabilities[0].Block {
				return backends.ErrInvalid
			}
			return nil
		}
	}), t.Context()
	r.backend.add(1, nil)
	const id = "v000000"
	for _, tc := range []struct {
		name            string
		id              string
		required, limit int64
		c               *csi.VolumeCapability
		code            codes.Code
		want            int64
	}{
		{"smaller", id, 1, 0, mountCap(), codes.OK, gi},
		{"the same", id, gi, gi, nil, codes.OK, gi},
		{"rounded up", id, gi + 1, 0, nil, codes.OK, gi + 1<<20},
		{"below the limit already", id, gi, 2 * gi, nil, codes.OK, gi + 1<<20},
		{"over the limit already", id, 1, gi, nil, codes.OutOfRange, 0},
		{"more than the limit", id, 2 * gi, gi + 1<<20, nil, codes.OutOfRange, 0},
		{"more than SizeMax", id, 1<<40 + 1, 0, nil, codes.OutOfRange, 0},
		{"unknown", "x", gi, 0, nil, codes.NotFound, 0},
		{"no id", "", gi, 0, nil, codes.InvalidArgument, 0},
		{"not that volume", id, 2 * gi, 0, blockCap(), codes.InvalidArgument, 0},
	} {
		resp, err := r.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
			VolumeId: tc.id, CapacityRange: &csi.CapacityRange{RequiredBytes: tc.required, LimitBytes: tc.limit}, VolumeCapability: tc.c,
		})
		wantCode(t, err, tc.code)
		if resp.GetCapacityBytes() != tc.want {
			t.Errorf("%s: %v", tc.name, resp)
		}
	}
	_, err := r.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: id})
	wantCode(t, err, codes.InvalidArgument, "capacity_range is required")
	_, err = r.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: new(csi.CapacityRange)})
	wantCode(t, err, codes.InvalidArgument, "neither")
}

func TestExpandOffline(t *testing.T) {
	r, ctx := startRig(t, func(s *setup) { s.cfg.Traits.OfflineExpand = true }), t.Context()
	r.backend.add(1, nil)
	r.engine.paths["/s"] = "v000000"
	req := &csi.ControllerExpandVolumeRequest{VolumeId: "v000000", CapacityRange: &csi.CapacityRange{RequiredBytes: 2 * gi}}
	_, err := r.ControllerExpandVolume(ctx, req)
	wantCode(t, err, codes.FailedPrecondition, "/s")
	req.CapacityRange.RequiredBytes = gi // has it already
	_, err = r.ControllerExpandVolume(ctx, req)
	wantCode(t, err, codes.OK)
}

func TestExpandBadAnswer(t *testing.T) {
	for _, size := range []int64{-1, 0, gi - 1, 2*gi - 1, 3 * gi} {
		r := startRig(t, func(s *setup) {
			s.backend.without = func(c *backends.ControllerFeatures, _ *backends.NodeFeatures) { c.Expander = expander(size) }
		})
		r.backend.add(1, nil)
		_, err := r.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
			VolumeId: "v000000", CapacityRange: &csi.CapacityRange{RequiredBytes: 2 * gi, LimitBytes: 2 * gi},
		})
		wantCode(t, err, codes.Unavailable, "was expanded to")
	}
}

type expander int64

func (e expander) ExpandVolume(context.Context, backends.ExpandVolumeRequest) (int64, error) {
	return int64(e), nil
}

// TestNodeExpansionRequired is true exactly when the node has something to do.
func TestNodeExpansionRequired(t *testing.T) {
	grown := features{controller: backends.ControllerFeatures{Expander: expander(1)}, hasNode: true}
	grown.traits.Devices = true
	byNode := grown
	byNode.node.NodeExpander = anything{}
	share, alone := grown, grown
	share.traits.Devices = false
	alone.hasNode = false
	for name, tc := range map[string]struct {
		f            features
		mount, block bool
	}{
		"a device":                       {grown, true, false},
		"a device the node makes bigger": {byNode, true, true},
		"a share":                        {share, false, false},
		"no node half":                   {alone, false, false},
	} {
		if m, b, none := tc.f.nodeExpansion(mountCap()), tc.f.nodeExpansion(blockCap()), tc.f.nodeExpansion(nil); m != tc.mount || b != tc.block || none != tc.mount {
			t.Errorf("%s: mount %v, block %v, not said %v", name, m, b, none)
		}
	}
}

func TestValidateVolume(t *testing.T) {
	r, ctx := startRig(t, func(s *setup) {
		s.cfg.Traits.Parameters = []backends.Parameter{{Name: "class", Required: true}}
		s.backend.check = func(req backends.CheckVolumeRequest) error {
			if req.Volume != nil && req.Capabilities[0].Block {
				return fmt.Errorf("%w: was formatted", backends.ErrInvalid)
			}
			return nil
		}
	}), t.Context()
	create := createReq("v")
	create.Parameters = map[string]string{"class": "ssd"}
	_, err := r.CreateVolume(ctx, create)
	wantCode(t, err, codes.OK)
	for name, tc := range map[string]struct {
		change func(*csi.ValidateVolumeCapabilitiesRequest)
		say    string // "": confirmed
	}{
		"as it is":      {func(*csi.ValidateVolumeCapabilitiesRequest) {}, ""},
		"same class":    {func(q *csi.ValidateVolumeCapabilitiesRequest) { q.Parameters = create.GetParameters() }, ""},
		"another class": {func(q *csi.ValidateVolumeCapabilitiesRequest) { q.Parameters = map[string]string{"class": "x"} }, "other parameters"},
		"unknown":       {func(q *csi.ValidateVolumeCapabilitiesRequest) { q.Parameters = map[string]string{"color": "x"} }, "not known"},
		"keys of the CO": {func(q *csi.ValidateVolumeCapabilitiesRequest) {
			q.VolumeContext = map[string]string{"pool": "a", "storage.kubernetes.io/csiProvisionerIdentity": "x"}
		}, ""},
		"other context": {func(q *csi.ValidateVolumeCapabilitiesRequest) { q.VolumeContext = map[string]string{"pool": "b"} }, "volume_context"},
		"not as a block": {func(q *csi.ValidateVolumeCapabilitiesRequest) {
			q.VolumeCapabilities = []*csi.VolumeCapability{blockCap()}
		}, "was formatted"},
		"mutable": {func(q *csi.ValidateVolumeCapabilitiesRequest) { q.MutableParameters = map[string]string{"a": "b"} }, "MODIFY_VOLUME"},
	} {
		req := &csi.ValidateVolumeCapabilitiesRequest{VolumeId: "id-v", VolumeCapabilities: []*csi.VolumeCapability{mountCap()}}
		tc.change(req)
		said, err := r.ValidateVolumeCapabilities(ctx, req)
		wantCode(t, err, codes.OK)
		confirmed := said.GetConfirmed()
		switch {
		case (confirmed != nil) != (tc.say == "") || !strings.Contains(said.GetMessage(), tc.say) || len(said.GetMessage()) > 128:
			t.Errorf("%s: %v", name, said)
		case confirmed != nil && (len(confirmed.GetVolumeCapabilities()) != 1 || len(confirmed.GetParameters()) != len(req.GetParameters())):
			t.Errorf("%s: confirmed %v", name, confirmed)
		}
	}
	_, err = r.ValidateVolumeCapabilities(ctx, &csi.ValidateVolumeCapabilitiesRequest{VolumeId: "x", VolumeCapabilities: []*csi.VolumeCapability{mountCap()}})
	wantCode(t, err, codes.NotFound)
	// Unknown fields of a newer CO are not confirmed.
	newer := mountCap()
	newer.ProtoReflect().SetUnknown([]byte{0xf8, 0x07, 0x01})
	said, err := r.ValidateVolumeCapabilities(ctx, &csi.ValidateVolumeCapabilitiesRequest{VolumeId: "id-v", VolumeCapabilities: []*csi.VolumeCapability{newer}})
	wantCode(t, err, codes.OK)
	if got := said.GetConfirmed().GetVolumeCapabilities()[0]; len(got.ProtoReflect().GetUnknown()) > 0 {
		t.Error("an unknown field is confirmed")
	}
}

func TestGetVolume(t *testing.T) {
	r, ctx := startRig(t, nil), t.Context()
	r.backend.add(1, map[string]string{"a": "b"})
	r.backend.volumes["y"] = &backends.Volume{ID: "z"}
	got, err := r.ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: "v000000"})
	wantCode(t, err, codes.OK)
	if got.GetStatus() == nil || got.GetVolume().GetVolumeContext()["a"] != "b" {
		t.Errorf("got %v", got)
	}
	_, err = r.ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: "x"})
	wantCode(t, err, codes.NotFound)
	_, err = r.ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: "y"})
	wantCode(t, err, codes.Internal, `it gave "z"`)
}

func TestGetVolumeAnotherIsMissing(t *testing.T) {
	r := startRig(t, func(s *setup) {
		s.backend.hook = func(_ context.Context, method string) error {
			if method == "Volume" {
				return backends.VolumeNotFound("another")
			}
			return nil
		}
	})
	_, err := r.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: "x"})
	wantCode(t, err, codes.Internal, "another")
}
