package loopfile

import (
	"errors"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

func pod(id string, params ...string) backends.CreateEphemeralRequest {
	r := backends.CreateEphemeralRequest{ID: id, Parameters: map[string]string{}}
	for i := 0; i+1 < len(params); i += 2 {
		r.Parameters[params[i]] = params[i+1]
	}
	return r
}

func TestEphemeral(t *testing.T) {
	testenv.Root(t)
	o := testOptions(t)
	o.EphemeralMax = 8 * mib
	b := openNode(t, o)
	v, err := b.CreateEphemeral(t.Context(), pod("csi-1", "size", "4Mi", "type", "thin"))
	if err != nil || v.Capacity != 4*mib {
		t.Fatalf("%+v, %v", v, err)
	}
	again, err := b.CreateEphemeral(t.Context(), pod("csi-1", "size", "4194304", "type", "thin"))
	if err != nil || again.ID != v.ID {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := b.CreateEphemeral(t.Context(), pod("csi-1", "size", "5Mi", "type", "thin")); !errors.Is(err, backends.ErrIncompatible) {
		t.Errorf("another size: %v", err)
	}
	if d, err := b.CreateEphemeral(t.Context(), pod("csi-2", "type", "thin")); err != nil || d.Capacity != 8*mib {
		t.Errorf("default size: %+v, %v", d, err)
	}
	for _, bad := range [][]string{{"size", "9Mi"}, {"size", "1"}, {"size", "-4Mi"}, {"size", ""}, {"size", "4MiMi"}, {"size", "9999999Ti"}, {"type", "x"}, {"pool", "/"}} {
		if _, err := b.CreateEphemeral(t.Context(), pod("csi-3", bad...)); !errors.Is(err, backends.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if got := list(t, b, 10); len(got) != 0 {
		t.Errorf("listed: %q", got)
	}
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("deleted by the controller: %v", err)
	}
	src := openIt(t, b, v.ID, nil)
	if err := b.DeleteEphemeral(t.Context(), backends.DeleteEphemeralRequest{ID: "csi-1", VolumeID: v.ID}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("deleted while open: %v", err)
	}
	closeIt(t, b, v.ID, src.State)
	// The driver died before it knew the volume's own ID.
	for range 2 {
		if err := b.DeleteEphemeral(t.Context(), backends.DeleteEphemeralRequest{ID: "csi-1"}); err != nil {
			t.Error(err)
		}
	}
	b.purges.wait()
	if left := entries(t, o.Pool, volumesDir); len(left) != 1 {
		t.Errorf("left: %q", left)
	}
	wantClean(t, o.Pool)
}

// TestEphemeralWithoutRecord: after the node's records were lost a pod's volume
// goes, unless somebody has it mounted; other volumes stay.
func TestEphemeralWithoutRecord(t *testing.T) {
	testenv.Root(t)
	o := testOptions(t)
	o.EphemeralMax = 8 * mib
	b := openNode(t, o)
	kept := create(t, b, "kept", mib, paramType, typeThin)
	ids := map[string]*backends.Volume{}
	for _, id := range []string{"lost", "recorded", "mounted"} {
		v, err := b.CreateEphemeral(t.Context(), pod(id, "size", "8Mi", "type", "thin"))
		if err != nil {
			t.Fatal(err)
		}
		ids[id] = v
	}
	mountVolume(t, b, ids["mounted"].ID, "ext4", true)
	_ = b.Close()
	b = openNode(t, o, backends.OpenVolume{ID: ids["recorded"].ID, Ephemeral: true})
	b.purges.wait()
	for id, v := range ids {
		_, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID})
		if gone := notFoundIs(err, v.ID); gone != (id == "lost") {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := b.Volume(t.Context(), backends.VolumeRequest{ID: kept.ID}); err != nil {
		t.Error(err)
	}
}

func TestAttach(t *testing.T) {
	testenv.Root(t)
	o := testOptions(t)
	o.Attach = true
	b := openNode(t, o)
	v := create(t, b, "v", mib, paramType, typeThin)
	req := backends.AttachVolumeRequest{ID: v.ID, NodeID: "node-1"}
	req.Capability.Mode = backends.SingleNodeWriter
	if _, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("opened before it was attached: %v", err)
	}
	for range 2 {
		if pc, err := b.AttachVolume(t.Context(), req); err != nil || pc[publishNode] != "node-1" {
			t.Fatalf("%v, %v", pc, err)
		}
	}
	for what, change := range map[string]func(*backends.AttachVolumeRequest){
		"read-only":          func(r *backends.AttachVolumeRequest) { r.ReadOnly = true },
		"another mode":       func(r *backends.AttachVolumeRequest) { r.Capability.Mode = backends.SingleNodeMultiWriter },
		"a raw block device": func(r *backends.AttachVolumeRequest) { r.Capability.Block = true },
	} {
		other := req
		change(&other)
		if _, err := b.AttachVolume(t.Context(), other); !errors.Is(err, backends.ErrIncompatible) {
			t.Errorf("attached, and asked for as %s: %v", what, err)
		}
	}
	other := req
	other.NodeID = "node-2"
	var nf *backends.NotFoundError
	if _, err := b.AttachVolume(t.Context(), other); !errors.As(err, &nf) || nf.Kind != backends.KindNode {
		t.Errorf("unknown node: %v", err)
	}
	if got, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID}); err != nil || len(got.Nodes) != 1 || got.Nodes[0] != "node-1" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("deleted while attached: %v", err)
	}
	src := openIt(t, b, v.ID, nil)
	detach := backends.DetachVolumeRequest{ID: v.ID, NodeID: "node-1"}
	if err := b.DetachVolume(t.Context(), detach); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("detached while open: %v", err)
	}
	closeIt(t, b, v.ID, src.State)
	_ = b.Close()
	b = openNode(t, o) // it is remembered
	for _, d := range []backends.DetachVolumeRequest{{ID: v.ID, NodeID: "node-2"}, detach, {ID: v.ID}, {ID: "x", NodeID: "node-1"}, {ID: makeID(poolOf(t, b), dirOf("x"))}} {
		if err := b.DetachVolume(t.Context(), d); err != nil {
			t.Errorf("%+v: %v", d, err)
		}
	}
	if got, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID}); err != nil || len(got.Nodes) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	remove(t, b, v.ID)
}

// TestAttachOld: what an older release attached says not how; the next call does.
func TestAttachOld(t *testing.T) {
	testenv.Root(t)
	o := testOptions(t)
	o.Attach = true
	b := openNode(t, o)
	v := create(t, b, "v", mib, paramType, typeThin)
	req := backends.AttachVolumeRequest{ID: v.ID, NodeID: "node-1"}
	for _, mode := range []backends.AccessMode{0, backends.SingleNodeWriter, backends.SingleNodeWriter} {
		req.Capability.Mode = mode
		if _, err := b.AttachVolume(t.Context(), req); err != nil {
			t.Fatalf("%v: %v", mode, err)
		}
	}
	req.Capability.Mode = backends.SingleNodeMultiWriter
	if _, err := b.AttachVolume(t.Context(), req); !errors.Is(err, backends.ErrIncompatible) {
		t.Errorf("in another way than the last call said: %v", err)
	}
	if err := b.DetachVolume(t.Context(), backends.DetachVolumeRequest{ID: v.ID, NodeID: "node-1"}); err != nil {
		t.Error(err)
	}
	remove(t, b, v.ID)
}

// TestFilters: what Options do not ask for is not advertised.
func TestFilters(t *testing.T) {
	o := testOptions(t)
	for _, on := range []bool{false, true} {
		o.Attach, o.EphemeralMax = on, 0
		if on {
			o.EphemeralMax = 1 << 30
		}
		b := &Backend{o: o}
		c, n := backends.DetectController(b), backends.DetectNode(b)
		if (c.Attacher != nil) != on || (c.PublishedNodesLister != nil) != on || (n.EphemeralProvisioner != nil) != on {
			t.Errorf("%v: %+v %+v", on, c, n)
		}
		if (b.Traits().Lifecycle&backends.Ephemeral != 0) != on {
			t.Errorf("%v: %+v", on, b.Traits())
		}
		if c.Snapshotter == nil || c.Cloner == nil || c.GroupSnapshotter == nil || c.ChangedBlockTracker == nil || c.HealthLister == nil {
			t.Error("a data service is missing")
		}
	}
}
