package csidriver

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
)

// allowedCodes are those of the spec's general scheme and of the table of each
// RPC, for a backend that does not fail. UNAVAILABLE and INTERNAL are not there.
var (
	generalCodes = []codes.Code{codes.OK, codes.InvalidArgument, codes.Aborted}
	tableCodes   = map[string][]codes.Code{
		"CreateVolume":               {codes.NotFound, codes.AlreadyExists, codes.ResourceExhausted, codes.OutOfRange},
		"DeleteVolume":               {codes.FailedPrecondition},
		"ValidateVolumeCapabilities": {codes.NotFound},
		"ControllerGetVolume":        {codes.NotFound},
		"ControllerPublishVolume":    {codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.ResourceExhausted},
		"ControllerUnpublishVolume":  {codes.NotFound},
		"ControllerGetVolumeHealth":  {codes.NotFound},
		"NodeGetVolumeHealth":        {codes.NotFound},
		"ControllerExpandVolume":     {codes.NotFound, codes.FailedPrecondition, codes.OutOfRange},
		"ControllerModifyVolume":     {codes.NotFound},
		// The tables of CreateSnapshot and CreateVolumeGroupSnapshot have no row for
		// a volume that is not there; ControllerExpandVolume's has.
		"CreateSnapshot":            {codes.NotFound, codes.AlreadyExists, codes.ResourceExhausted},
		"DeleteSnapshot":            {codes.FailedPrecondition},
		"GetSnapshot":               {codes.NotFound},
		"CreateVolumeGroupSnapshot": {codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.ResourceExhausted},
		"DeleteVolumeGroupSnapshot": {codes.FailedPrecondition},
		"GetVolumeGroupSnapshot":    {codes.NotFound},
		"GetMetadataAllocated":      {codes.NotFound, codes.OutOfRange},
		"GetMetadataDelta":          {codes.NotFound, codes.OutOfRange, codes.FailedPrecondition},
		"NodeStageVolume":           {codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition},
		"NodeUnstageVolume":         {codes.NotFound},
		"NodePublishVolume":         {codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition},
		"NodeUnpublishVolume":       {codes.NotFound},
		"NodeGetVolumeStats":        {codes.NotFound},
		"NodeExpandVolume":          {codes.NotFound, codes.FailedPrecondition, codes.OutOfRange},
	}
)

// fuzzID is the ID by which package mem knows what has this name.
func fuzzID(kind, name string) string {
	sum := sha256.Sum256([]byte(name))
	return kind + hex.EncodeToString(sum[:16])
}

// seeds are requests that find what is in a fuzzRig.
func seeds() []proto.Message {
	v, w, e := fuzzID("v-", "v"), fuzzID("v-", "w"), "csi-e"
	s, s2, g := fuzzID("s-", "s"), fuzzID("s-", "s2"), fuzzID("g-", "g")
	member := fuzzID("s-", g+"\x00"+v)
	zone := &csi.Topology{Segments: map[string]string{"topology.mem.csikit.dev/zone": "zone-2"}}
	secrets := map[string]string{"key": "x"}
	tokens := map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": "x", "csi.storage.k8s.io/ephemeral": "true"}
	mount, size := mountCap(), &csi.CapacityRange{RequiredBytes: 2 * gi, LimitBytes: 3 * gi}
	mount.GetMount().FsType, mount.GetMount().MountFlags = "ext4", []string{"x"}
	made := &csi.CreateVolumeRequest{
		Name: "x", CapacityRange: size, VolumeCapabilities: []*csi.VolumeCapability{mount, blockCap()}, Secrets: secrets,
		Parameters: map[string]string{"tier": "fast", "csi.storage.k8s.io/pvc/name": "p"}, MutableParameters: map[string]string{"tier": "standard"},
		AccessibilityRequirements: &csi.TopologyRequirement{Requisite: []*csi.Topology{zone}, Preferred: []*csi.Topology{zone}},
	}
	snap := &csi.CreateSnapshotRequest{Name: "x", SourceVolumeId: v, Secrets: secrets, Parameters: map[string]string{"a": "b"}, AccessibilityRequirements: made.AccessibilityRequirements}
	return append(fuzzBase(), made, snap,
		restoreReq("r", snapshotSource(s)), restoreReq("c", volumeSource(w)),
		&csi.DeleteVolumeRequest{VolumeId: fuzzID("v-", "x"), Secrets: secrets}, &csi.DeleteVolumeRequest{VolumeId: v},
		&csi.ControllerPublishVolumeRequest{VolumeId: fuzzID("v-", "x"), NodeId: otherNode, VolumeCapability: mount, Readonly: true, Secrets: secrets, VolumeContext: tokens},
		&csi.ControllerUnpublishVolumeRequest{VolumeId: v, NodeId: fuzzNode, Secrets: secrets}, &csi.ControllerUnpublishVolumeRequest{VolumeId: w},
		&csi.ValidateVolumeCapabilitiesRequest{VolumeId: v, VolumeCapabilities: []*csi.VolumeCapability{mount}, Secrets: secrets, Parameters: made.Parameters, MutableParameters: made.MutableParameters},
		&csi.ListVolumesRequest{MaxEntries: 1}, &csi.ListVolumesRequest{StartingToken: sealToken("ListVolumes", w)},
		&csi.ListSnapshotsRequest{MaxEntries: 1, SourceVolumeId: w}, &csi.ListSnapshotsRequest{SnapshotId: s, Secrets: secrets},
		&csi.ListSnapshotsRequest{StartingToken: sealToken("ListSnapshots of "+w, s), SourceVolumeId: w},
		&csi.GetSnapshotRequest{SnapshotId: s, Secrets: secrets},
		&csi.GetCapacityRequest{VolumeCapabilities: []*csi.VolumeCapability{mount}, Parameters: map[string]string{"media": "ssd"}, AccessibleTopology: zone},
		&csi.ControllerGetVolumeRequest{VolumeId: v},
		&csi.ControllerGetVolumeHealthRequest{VolumeId: v, Secrets: secrets}, &csi.ControllerListVolumeHealthRequest{MaxEntries: 1, Secrets: secrets},
		&csi.ControllerExpandVolumeRequest{VolumeId: v, CapacityRange: size, VolumeCapability: mount, Secrets: secrets},
		&csi.ControllerModifyVolumeRequest{VolumeId: v, MutableParameters: map[string]string{"cache": "read"}, Secrets: secrets},
		&csi.DeleteSnapshotRequest{SnapshotId: s2, Secrets: secrets}, deleteSnapshot(member),
		&csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: g, SnapshotIds: []string{member}}, &csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: g, Secrets: secrets}, deleteGroup(g),
		&csi.GetMetadataAllocatedRequest{SnapshotId: s, MaxResults: 1, StartingOffset: 5 << 12, Secrets: secrets},
		&csi.GetMetadataAllocatedRequest{SnapshotId: s, StartingOffset: -1},
		&csi.GetMetadataDeltaRequest{BaseSnapshotId: s, TargetSnapshotId: s2, Secrets: secrets},
		&csi.NodeStageVolumeRequest{VolumeId: w, StagingTargetPath: "/w", VolumeCapability: blockCap(), Secrets: secrets, VolumeContext: tokens},
		&csi.NodeUnstageVolumeRequest{VolumeId: v, StagingTargetPath: "/s"},
		&csi.NodePublishVolumeRequest{VolumeId: v, StagingTargetPath: "/s", TargetPath: "/t2", VolumeCapability: mount, Readonly: true, Secrets: secrets},
		&csi.NodePublishVolumeRequest{VolumeId: "csi-f", TargetPath: "/f", VolumeCapability: mount, VolumeContext: tokens, Secrets: secrets},
		&csi.NodeUnpublishVolumeRequest{VolumeId: v, TargetPath: "/t"}, &csi.NodeUnpublishVolumeRequest{VolumeId: e, TargetPath: "/e"},
		&csi.NodeGetVolumeStatsRequest{VolumeId: v, VolumePath: "/t", StagingTargetPath: "/s"}, &csi.NodeGetVolumeStatsRequest{VolumeId: e, VolumePath: "/e"},
		&csi.NodeExpandVolumeRequest{VolumeId: v, VolumePath: "/t", CapacityRange: &csi.CapacityRange{RequiredBytes: gi}, VolumeCapability: mount, Secrets: secrets},
		&csi.NodeGetVolumeHealthRequest{VolumeId: v, VolumePublishPath: "/t"}, &csi.NodeGetVolumeHealthRequest{VolumeId: e, StagingTargetPath: "/e"},
		&csi.NodeGetStorageHealthRequest{Secrets: secrets},
	)
}

// shorten cuts what is longer than a limit needs: mutants of long texts are slow.
func shorten(m proto.Message) proto.Message {
	short := proto.Clone(m)
	_ = protorange.Range(short.ProtoReflect(), func(v protopath.Values) error { // its only errors are those of this function
		if last := v.Index(-1); last.Step.Kind() == protopath.FieldAccessStep && last.Step.FieldDescriptor().Kind() == protoreflect.StringKind &&
			!last.Step.FieldDescriptor().IsList() && len(last.Value.String()) > maxString {
			v.Index(-2).Value.Message().Set(last.Step.FieldDescriptor(), protoreflect.ValueOfString(last.Value.String()[:maxString]))
		}
		return nil
	})
	return short
}

// FuzzRequests sends whatever decodes to every RPC, over package mem: nothing
// panics, no code is outside of the spec's tables, no response breaks a rule, and
// no secret is in an answer, an error or the log.
func FuzzRequests(f *testing.F) {
	r := newFuzzRig(f)
	indexes := make(map[string]uint8)
	for which, method := range r.methods {
		indexes[method.name] = uint8(which)
		f.Add(uint8(which), []byte{})
	}
	for _, m := range append(fullRequests(), seeds()...) {
		data, err := proto.Marshal(shorten(m))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(indexes[rpcOf(m)], data)
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		if r.objects > 50 {
			r = newFuzzRig(t)
		}
		method := r.methods[int(which)%len(r.methods)]
		decoded, err := r.once(method, data)
		if err != nil {
			t.Errorf("%s: %v", method.name, err)
		}
		if !decoded {
			t.Skip("no message of this RPC")
		}
	})
}

// once makes one call and says what is wrong with anything that comes of it.
func (r *fuzzRig) once(method directMethod, data []byte) (decoded bool, wrong error) {
	r.plant = plantSecrets
	r.answers = func(_ directMethod, req, resp proto.Message) {
		wrong = cmp.Or(wrong, wrongIn(resp.ProtoReflect()), wrongAnswer(req, resp))
		out, err := proto.Marshal(resp)
		if _, repeats := resp.(*csi.ValidateVolumeCapabilitiesResponse); err != nil || leaks(out) && !repeats {
			wrong = cmp.Or(wrong, fmt.Errorf("a response with a secret, or one that cannot be sent: %w", err))
		}
	}
	decoded, err := r.call(context.Background(), method, data)
	r.log.take(func(text []byte, bad string) {
		if bad != "" || leaks(text) {
			wrong = cmp.Or(wrong, fmt.Errorf("logged %q: %s", bad, text))
		}
	})
	if decoded {
		wrong = cmp.Or(wrong, wrongStatus(method.name, status.Convert(err)))
	}
	r.after(method.name, data, err)
	return decoded, wrong
}

func wrongStatus(rpc string, st *status.Status) error {
	switch msg := st.Message(); {
	case !slices.Contains(generalCodes, st.Code()) && !slices.Contains(tableCodes[rpc], st.Code()):
		return fmt.Errorf("a code that it has not: %w", st.Err())
	case st.Code() == codes.OK:
		return nil
	case msg == "" || len(msg) > maxMessageText+maxClipped || !utf8.ValidString(msg) || len(st.Details()) > 0:
		return fmt.Errorf("no message, too long a one, or details: %w", st.Err())
	case leaks([]byte(msg)):
		return fmt.Errorf("a message with a secret: %w", st.Err())
	}
	return nil
}

// after keeps the rig as it was, or nearly.
func (r *fuzzRig) after(rpc string, data []byte, err error) {
	switch {
	case err != nil:
	case strings.HasPrefix(rpc, "Create"), rpc == "NodePublishVolume", rpc == "NodeStageVolume":
		r.objects++
	case strings.HasPrefix(rpc, "Delete"), strings.Contains(rpc, "Unpublish"), strings.Contains(rpc, "Unstage"):
		if slices.ContainsFunc(r.ids, func(id []byte) bool { return bytes.Contains(data, id) }) {
			r.base()
		}
	}
}

// TestSeeds: each RPC has a seed that it answers OK, and nothing is wrong.
func TestSeeds(t *testing.T) {
	r, ok := newFuzzRig(t), make(map[string]bool)
	for _, m := range append(seeds(), &csi.GetPluginInfoRequest{}, &csi.GetPluginCapabilitiesRequest{}, &csi.ProbeRequest{}, &csi.NodeGetInfoRequest{},
		&csi.ControllerGetCapabilitiesRequest{}, &csi.GroupControllerGetCapabilitiesRequest{}, &csi.NodeGetCapabilitiesRequest{}) {
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		name := rpcOf(m)
		if _, err := r.once(r.byName[name], data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_, err = r.call(t.Context(), r.byName[name], data)
		ok[name] = ok[name] || err == nil
		r.base()
	}
	for _, m := range r.methods {
		if !ok[m.name] {
			t.Errorf("%s was never OK", m.name)
		}
	}
}

// TestFuzzNotices what it is there to find.
func TestFuzzNotices(t *testing.T) {
	data, err := proto.Marshal(&csi.ControllerGetVolumeRequest{VolumeId: fuzzID("v-", "v")})
	if err != nil {
		t.Fatal(err)
	}
	for say, fault := range map[string]mem.Fault{
		"":                            {Method: "Probe"},
		"logged \"panic in a handler": {Method: "Volume", Panic: "x"},
		"a code that it has not":      {Method: "Volume", Err: backends.ErrNoSpace},
	} {
		r := newFuzzRig(t)
		r.backend.Inject(fault)
		_, wrong := r.once(r.byName["ControllerGetVolume"], data)
		if (wrong == nil) != (say == "") || wrong != nil && !strings.Contains(wrong.Error(), say) {
			t.Errorf("%q: %v", say, wrong)
		}
	}
	if wrongStatus("Probe", status.New(codes.InvalidArgument, "x "+canary)) == nil || wrongStatus("Probe", status.New(codes.Aborted, "")) == nil {
		t.Error("a bad message is not noticed")
	}
	for _, bad := range []proto.Message{
		&csi.CreateVolumeResponse{}, &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: strings.Repeat("v", 129)}},
		&csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: "v", CapacityBytes: -1}},
		&csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: "v", VolumeContext: map[string]string{"a": strings.Repeat("v", 4096)}}},
		&csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{Total: 1}}},
	} {
		if wrongIn(bad.ProtoReflect()) == nil {
			t.Errorf("%v is fine", bad)
		}
	}
	for _, bad := range []struct{ req, resp proto.Message }{
		{&csi.CreateVolumeRequest{CapacityRange: &csi.CapacityRange{LimitBytes: 5}}, &csi.CreateVolumeResponse{Volume: &csi.Volume{CapacityBytes: 6}}},
		{&csi.CreateVolumeRequest{VolumeContentSource: snapshotSource("s")}, &csi.CreateVolumeResponse{}},
		{&csi.ListVolumesRequest{MaxEntries: 1}, &csi.ListVolumesResponse{Entries: make([]*csi.ListVolumesResponse_Entry, 2)}},
		{&csi.ValidateVolumeCapabilitiesRequest{}, &csi.ValidateVolumeCapabilitiesResponse{}},
	} {
		if wrongAnswer(bad.req, bad.resp) == nil {
			t.Errorf("%v is fine for %v", bad.resp, bad.req)
		}
	}
}
