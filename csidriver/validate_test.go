package csidriver

import (
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/csikit/csikit/backends"
)

// fullRequests are requests in which every field is set as it may be.
func fullRequests() []proto.Message {
	secrets := map[string]string{"user.name_1-a": "x", "csi.storage.k8s.io/serviceAccount.tokens": "y"}
	context := map[string]string{"pool": strings.Repeat("a", 5000)}
	size := &csi.CapacityRange{RequiredBytes: 1, LimitBytes: gi}
	mount := mountCap()
	mount.GetMount().FsType = "ext4"
	mount.GetMount().MountFlags = []string{"noatime", strings.Repeat("o", 3000)}
	mount.GetMount().VolumeMountGroup = "1000"
	path := "/" + strings.Repeat("p", 4000)
	place := &csi.Topology{Segments: map[string]string{"a": "b"}}
	return []proto.Message{
		&csi.CreateVolumeRequest{
			Name: "n\tn\n", CapacityRange: size, VolumeCapabilities: []*csi.VolumeCapability{mount}, Parameters: context, Secrets: secrets,
			AccessibilityRequirements: &csi.TopologyRequirement{Requisite: []*csi.Topology{place}, Preferred: []*csi.Topology{place}},
			MutableParameters:         context,
			VolumeContentSource:       &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: "s"}}},
		},
		&csi.DeleteVolumeRequest{VolumeId: "v", Secrets: secrets},
		&csi.ValidateVolumeCapabilitiesRequest{
			VolumeId: "v", VolumeContext: context, VolumeCapabilities: []*csi.VolumeCapability{mount}, Parameters: context,
			Secrets: secrets, MutableParameters: context,
		},
		&csi.ControllerPublishVolumeRequest{
			VolumeId: "v", NodeId: strings.Repeat("n", 256), VolumeCapability: mount, Readonly: true, Secrets: secrets, VolumeContext: context,
		},
		&csi.ControllerUnpublishVolumeRequest{VolumeId: "v", NodeId: strings.Repeat("n", 256), Secrets: secrets},
		&csi.ControllerGetVolumeHealthRequest{VolumeId: "v", Secrets: secrets},
		&csi.ControllerListVolumeHealthRequest{MaxEntries: 5, StartingToken: strings.Repeat("t", 1000), Secrets: secrets},
		&csi.NodeGetVolumeHealthRequest{VolumeId: "v", VolumePublishPath: path, StagingTargetPath: path},
		&csi.NodeGetStorageHealthRequest{Secrets: secrets},
		&csi.ListVolumesRequest{MaxEntries: 5, StartingToken: strings.Repeat("t", 1000)},
		&csi.ControllerGetVolumeRequest{VolumeId: "v"},
		&csi.GetCapacityRequest{VolumeCapabilities: []*csi.VolumeCapability{mount}, Parameters: context, AccessibleTopology: place},
		&csi.ControllerExpandVolumeRequest{VolumeId: "v", CapacityRange: size, Secrets: secrets, VolumeCapability: mount},
		&csi.ControllerModifyVolumeRequest{VolumeId: "v", Secrets: secrets, MutableParameters: context},
		&csi.CreateSnapshotRequest{
			SourceVolumeId: "v", Name: "n\tn\n", Secrets: secrets, Parameters: context,
			AccessibilityRequirements: &csi.TopologyRequirement{Requisite: []*csi.Topology{place}},
		},
		&csi.DeleteSnapshotRequest{SnapshotId: "s", Secrets: secrets},
		&csi.GetSnapshotRequest{SnapshotId: "s", Secrets: secrets},
		&csi.ListSnapshotsRequest{MaxEntries: 5, StartingToken: strings.Repeat("t", 1000), SourceVolumeId: "v", SnapshotId: "s", Secrets: secrets},
		&csi.CreateVolumeGroupSnapshotRequest{Name: "n\tn\n", SourceVolumeIds: []string{"v", "w"}, Secrets: secrets, Parameters: context},
		&csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: "g", SnapshotIds: []string{"s"}, Secrets: secrets},
		&csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: "g", SnapshotIds: []string{"s"}, Secrets: secrets},
		&csi.GetMetadataAllocatedRequest{SnapshotId: "s", StartingOffset: 1, MaxResults: 1, Secrets: secrets},
		&csi.GetMetadataDeltaRequest{BaseSnapshotId: "s", TargetSnapshotId: "t", StartingOffset: 1, MaxResults: 1, Secrets: secrets},
		&csi.NodeStageVolumeRequest{VolumeId: "v", PublishContext: context, StagingTargetPath: path, VolumeCapability: mount, Secrets: secrets, VolumeContext: context},
		&csi.NodeUnstageVolumeRequest{VolumeId: "v", StagingTargetPath: path},
		&csi.NodePublishVolumeRequest{
			VolumeId: "v", PublishContext: context, StagingTargetPath: path, TargetPath: path, VolumeCapability: mount,
			Readonly: true, Secrets: secrets, VolumeContext: context,
		},
		&csi.NodeUnpublishVolumeRequest{VolumeId: "v", TargetPath: path},
		&csi.NodeGetVolumeStatsRequest{VolumeId: "v", VolumePath: path, StagingTargetPath: path},
		&csi.NodeExpandVolumeRequest{VolumeId: "v", VolumePath: path, CapacityRange: size, StagingTargetPath: path, VolumeCapability: mount, Secrets: secrets},
	}
}

func wantInvalid(t *testing.T, v validator, m proto.Message, say string) {
	t.Helper()
	err := v.check(m)
	if code := codeOf(t.Context(), createMethod, err); err == nil || code != codes.InvalidArgument || !strings.Contains(err.Error(), say) {
		t.Errorf("%T: error %v (%v) does not say %q", m, err, code, say)
	}
}

// TestNoFalseReject: long contexts (CO-08), long paths (CO-26), long mount flags,
// tokens among the secrets (CO-07), white space in names.
func TestNoFalseReject(t *testing.T) {
	v := newValidator()
	for _, m := range fullRequests() {
		if err := v.check(m); err != nil {
			t.Errorf("%T: %v", m, err)
		}
		if m.ProtoReflect().Descriptor().Fields().Len() != countSet(m.ProtoReflect()) {
			t.Errorf("%T: not every field is set", m)
		}
	}
}

func countSet(m protoreflect.Message) (n int) {
	m.Range(func(protoreflect.FieldDescriptor, protoreflect.Value) bool { n++; return true })
	return n
}

// TestEachField spoils each field of each request alone.
func TestEachField(t *testing.T) {
	v := newValidator()
	needed := 0
	for _, full := range fullRequests() {
		fields := full.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			fd := fields.Get(i)
			spoiled := func(change func(protoreflect.Message)) proto.Message {
				m := proto.Clone(full)
				change(m.ProtoReflect())
				return m
			}
			missing := spoiled(func(m protoreflect.Message) { m.Clear(fd) })
			if required[fd.FullName()] {
				needed++
				wantInvalid(t, v, missing, string(fd.Name())+" is required")
			} else if err := v.check(missing); err != nil {
				t.Errorf("%s is optional: %v", fd.FullName(), err)
			}
			if fd.IsMap() || fd.IsList() {
				continue
			}
			switch fd.Kind() {
			case protoreflect.StringKind:
				wantInvalid(t, v, spoiled(func(m protoreflect.Message) { m.Set(fd, protoreflect.ValueOfString("/a\x00b")) }), "character")
				if limit, long := longStrings[fd.FullName()]; !long || limit != unlimited {
					wantInvalid(t, v, spoiled(func(m protoreflect.Message) { m.Set(fd, protoreflect.ValueOfString("/"+strings.Repeat("a", 5000))) }), "bytes long")
				}
			case protoreflect.Int32Kind:
				wantInvalid(t, v, spoiled(func(m protoreflect.Message) { m.Set(fd, protoreflect.ValueOfInt32(-1)) }), "negative")
			}
		}
	}
	// The rest are below these messages, and tested with them.
	if rest := len(required) - needed; rest != 4 {
		t.Errorf("%d required fields are not of a request that is served", rest)
	}
}

func TestNestedFields(t *testing.T) {
	v := newValidator()
	with := func(change func(*csi.CreateVolumeRequest)) *csi.CreateVolumeRequest {
		r := createReq("n")
		change(r)
		return r
	}
	for say, m := range map[string]proto.Message{
		"volume_capabilities.access_mode is required":         with(func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].AccessMode = nil }),
		"volume_capabilities.access_mode.mode is required":    with(func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].AccessMode.Mode = 0 }),
		"volume_capabilities.access_type is required":         with(func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].AccessType = nil }),
		"volume_capabilities.mount.fs_type is 129 bytes long": with(func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].GetMount().FsType = strings.Repeat("e", 129) }),
		"capacity_range.required_bytes is negative":           with(func(r *csi.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = -1 }),
		"capacity_range.limit_bytes is negative":              with(func(r *csi.CreateVolumeRequest) { r.CapacityRange.LimitBytes = -1 }),
		"volume_content_source.type is required":              with(func(r *csi.CreateVolumeRequest) { r.VolumeContentSource = new(csi.VolumeContentSource) }),
		"volume_content_source.snapshot.snapshot_id is required": with(func(r *csi.CreateVolumeRequest) {
			r.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{}}
		}),
		"volume_content_source.volume.volume_id is required": with(func(r *csi.CreateVolumeRequest) {
			r.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{}}
		}),
		"secrets has a key":                                           with(func(r *csi.CreateVolumeRequest) { r.Secrets = map[string]string{"a b": ""} }),
		"name holds a control character":                              with(func(r *csi.CreateVolumeRequest) { r.Name = "a\u0085b" }),
		"volume_capabilities.mount.mount_flags holds a NUL character": with(func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].GetMount().MountFlags = []string{"a\x00"} }),
	} {
		wantInvalid(t, v, m, say)
	}
}

func TestNames(t *testing.T) {
	v := newValidator()
	for _, name := range []string{
		"a", strings.Repeat("n", 128), strings.Repeat("é", 64), strings.Repeat("漢", 42), strings.Repeat("😀", 32),
		"a/b", "..", "-a", "a b", "a\nb", "a\rb", `"quoted"`, "\ufffd", "e\u0301",
	} {
		if err := v.check(createReq(name)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", strings.Repeat("n", 129), "\x00", "\x08", "\x0b", "\x0c", "\x0e", "\x1f", "\x7f", "\u0080", "\u009f"} {
		if err := v.check(createReq(name)); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

func TestPaths(t *testing.T) {
	for in, want := range map[string]string{
		"/a": "/a", "/a/": "/a", "//a//b": "/a/b", "/a/./b": "/a/b", "/a/..b": "/a/..b",
		"a": "", "": "", "/": "", "/./": "", "/a/../b": "", "/..": "", "./a": "",
	} {
		got, err := absPath("target_path", in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q became %q, %v", in, got, err)
		}
	}
}

func TestCapabilityMatrix(t *testing.T) {
	traits := memoryTraits()
	fs := func(name string) *csi.VolumeCapability {
		c := mountCap()
		c.GetMount().FsType = name
		return c
	}
	flags := mountCap()
	flags.GetMount().MountFlags = slices.Repeat([]string{strings.Repeat("f", 1024)}, 5)
	group := mountCap()
	group.GetMount().VolumeMountGroup = "5"
	noBlock, noMount, share, noSuccessor := traits, traits, traits, traits
	noBlock.Block = false
	noMount.Filesystem = false
	share.Devices, share.Block = false, false
	noSuccessor.Modes = []backends.AccessMode{backends.MultiNodeMultiWriter}
	grouped := traits
	grouped.MountGroup = true
	onlySuccessor := traits
	onlySuccessor.Modes = []backends.AccessMode{backends.SingleNodeMultiWriter}
	for name, tc := range map[string]struct {
		traits *backends.Traits
		c      *csi.VolumeCapability
		ok     bool
	}{
		"mount":                              {&traits, mountCap(), true},
		"block":                              {&traits, blockCap(), true},
		"block where there is none":          {&noBlock, blockCap(), false},
		"mount where there is none":          {&noMount, mountCap(), false},
		"declared mode":                      {&traits, capMode(csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY), true},
		"undeclared mode":                    {&traits, capMode(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER), false},
		"unknown mode":                       {&traits, capMode(99), false},
		"SINGLE_NODE_WRITER by a successor":  {&onlySuccessor, mountCap(), true},
		"SINGLE_NODE_WRITER without any":     {&noSuccessor, mountCap(), false},
		"declared file system":               {&traits, fs("xfs"), true},
		"undeclared file system":             {&traits, fs("btrfs"), false},
		"a default fs_type of the CO, share": {&share, fs("ext4"), true},
		"too many mount flags":               {&traits, flags, false},
		"mount group":                        {&traits, group, false},
		"mount group where there is one":     {&grouped, group, true},
	} {
		if err := checkCapability(tc.traits, tc.c); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCapabilityCodes: the spec gives one condition three answers.
func TestCapabilityCodes(t *testing.T) {
	r, ctx := startRig(t, nil), t.Context()
	made, err := r.CreateVolume(ctx, createReq("v"))
	wantCode(t, err, codes.OK)
	id := made.GetVolume().GetVolumeId()
	bad := capMode(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER)
	create := createReq("w")
	create.VolumeCapabilities = append(create.VolumeCapabilities, bad)
	_, err = r.CreateVolume(ctx, create)
	wantCode(t, err, codes.InvalidArgument, "volume_capabilities[1]", "MULTI_NODE_MULTI_WRITER")
	_, err = r.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: &csi.CapacityRange{RequiredBytes: gi}, VolumeCapability: bad})
	wantCode(t, err, codes.InvalidArgument)
	_, err = r.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: id, VolumePath: "/p", VolumeCapability: bad})
	wantCode(t, err, codes.InvalidArgument)
	_, err = r.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: "/p", VolumeCapability: bad})
	wantCode(t, err, codes.FailedPrecondition)
	_, err = r.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{VolumeId: id, StagingTargetPath: "/p", TargetPath: "/t", VolumeCapability: bad})
	wantCode(t, err, codes.FailedPrecondition)
	free, err := r.GetCapacity(ctx, &csi.GetCapacityRequest{VolumeCapabilities: []*csi.VolumeCapability{bad}})
	wantCode(t, err, codes.OK)
	if free.GetAvailableCapacity() != 0 {
		t.Errorf("capacity %v", free)
	}
	said, err := r.ValidateVolumeCapabilities(ctx, &csi.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: []*csi.VolumeCapability{mountCap(), bad}})
	wantCode(t, err, codes.OK)
	if said.GetConfirmed() != nil || !strings.Contains(said.GetMessage(), "MULTI_NODE_MULTI_WRITER") {
		t.Errorf("validated %v", said)
	}
}

func TestResolveSize(t *testing.T) {
	const mi = 1 << 20
	traits := backends.Traits{SizeMin: 4 * mi, SizeMax: 64 * mi, SizeStep: 4 * mi, SizeDefault: 16 * mi}
	share := backends.Traits{}
	odd := backends.Traits{SizeMin: 5, SizeStep: 4}
	most := int64(1<<63 - 1)
	for _, tc := range []struct {
		traits          *backends.Traits
		required, limit int64
		want            int64 // -1: OUT_OF_RANGE
	}{
		{&traits, 0, 0, 16 * mi},
		{&traits, 1, 0, 4 * mi},
		{&traits, 8 * mi, 0, 8 * mi},
		{&traits, 8*mi + 1, 0, 12 * mi},
		{&traits, 8*mi + 1, 12*mi - 1, -1},
		{&traits, 8*mi + 1, 12 * mi, 12 * mi},
		{&traits, 8 * mi, 8 * mi, 8 * mi},
		{&traits, 9 * mi, 8 * mi, -1},
		{&traits, 0, 32 * mi, 16 * mi},
		{&traits, 0, 11 * mi, 8 * mi},
		{&traits, 0, 3 * mi, -1},
		{&traits, 1, 1, -1},
		{&traits, 64 * mi, 0, 64 * mi},
		{&traits, 64*mi + 1, 0, -1},
		{&traits, most, 0, -1},
		{&traits, most, most, -1},
		{&odd, 0, 0, 8},
		{&odd, most, 0, -1},
		{&share, 0, 0, 0},
		{&share, 7, 0, 7},
		{&share, 0, 7, 0},
		{&share, most, 0, most},
	} {
		got, err := resolveSize(tc.traits, backends.CapacityRange{Required: tc.required, Limit: tc.limit})
		if err != nil {
			wantCode(t, toRPC(t.Context(), createMethod, err), codes.OutOfRange)
			got = -1
		}
		if got != tc.want {
			t.Errorf("[%d, %d] gives %d, want %d", tc.required, tc.limit, got, tc.want)
		}
		if err == nil && got != 0 && !inRange(got, backends.CapacityRange{Required: tc.required, Limit: tc.limit}) {
			t.Errorf("%d is outside of [%d, %d]", got, tc.required, tc.limit)
		}
	}
}

func TestReachable(t *testing.T) {
	zone := func(r, z string) backends.Segments { return backends.Segments{"region": r, "zone": z} }
	need := func(list ...backends.Segments) backends.TopologyRequirement {
		return backends.TopologyRequirement{Requisite: list}
	}
	for name, tc := range map[string]struct {
		places []backends.Segments
		need   backends.TopologyRequirement
		want   bool
	}{
		"everywhere":             {nil, need(zone("R1", "Z1")), true},
		"no requirement":         {[]backends.Segments{zone("R1", "Z1")}, need(), true},
		"preferred alone":        {[]backends.Segments{zone("R1", "Z1")}, backends.TopologyRequirement{Preferred: []backends.Segments{zone("R1", "Z2")}}, true},
		"one of two":             {[]backends.Segments{zone("R1", "Z2")}, need(zone("R1", "Z1"), zone("R1", "Z2")), true},
		"none":                   {[]backends.Segments{zone("R1", "Z3")}, need(zone("R1", "Z1"), zone("R1", "Z2")), false},
		"the region holds zones": {[]backends.Segments{{"region": "R1"}}, need(zone("R1", "Z1")), true},
		"a zone of the region":   {[]backends.Segments{zone("R1", "Z1")}, need(backends.Segments{"region": "R1"}), true},
		"another region":         {[]backends.Segments{{"region": "R2"}}, need(zone("R1", "Z1")), false},
		"nothing in common":      {[]backends.Segments{{"rack": "1"}}, need(zone("R1", "Z1")), false},
	} {
		if got := reachable(tc.places, tc.need); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
