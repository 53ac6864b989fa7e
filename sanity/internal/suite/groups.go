package suite

import (
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// groupChecks: H-26, H-27 and H-28.
func groupChecks() []Check {
	const group = "CREATE_DELETE_VOLUME group"
	return []Check{
		{ID: "H-26/members", Title: "A group snapshot has a snapshot of each volume, and no other", Clauses: "GV-01 GV-06 GV-10", Needs: group, Run: groupMembers},
		{ID: "H-26/deleted", Title: "DeleteVolumeGroupSnapshot deletes the group and its snapshots", Clauses: "GX-01 GX-02", Needs: group, Run: groupDeleted},
		{ID: "H-26/partial", Title: "A group that cannot be made whole leaves nothing behind", Clauses: "GV-11 GV-12 GV-04", Needs: group + " LIST_SNAPSHOTS", Run: groupPartial},
		{ID: "H-26/source", Title: "A snapshot of a group is a source of volumes", Clauses: "GV-17", Needs: group, Run: groupSource},
		{ID: "H-26/get", Title: "GetVolumeGroupSnapshot tells what CreateVolumeGroupSnapshot told", Clauses: "GQ-01 GV-09", Needs: group, Run: func(t *T) {
			g := newGroup(t, t.NewVolume().VolumeId)
			got := proto.Clone(check.OK[*csi.GetVolumeGroupSnapshotResponse](t, "GQ-01", getGroup(t, g)).GetGroupSnapshot())
			want := proto.Clone(g)
			settle(got.ProtoReflect())
			settle(want.ProtoReflect())
			if stable(got) != stable(want) {
				t.Failf("GQ-01", "GetVolumeGroupSnapshot says %s, want %s", t.Text(got), t.Text(want))
			}
		}},
		{ID: "H-26/get-snapshot", Title: "A driver with group snapshots has GetSnapshot, so that COs need not list", Clauses: "GS-02", Needs: group, Run: func(t *T) {
			if !t.Has("GET_SNAPSHOT") && !t.Has("LIST_SNAPSHOTS") {
				t.Warnf("GS-02", "neither GET_SNAPSHOT nor LIST_SNAPSHOTS is advertised: nobody can ask about a snapshot of a group")
			}
		}},
		{ID: "H-26/in-use", Title: "DeleteVolumeGroupSnapshot beside a volume made of it is OK, or FAILED_PRECONDITION", Clauses: "GX-06", Needs: group, Run: func(t *T) {
			g := newGroup(t, t.NewVolume().VolumeId)
			req := t.CreateRequest()
			req.VolumeContentSource = fromSnapshot(members(g)[0])
			if _, err := t.Try(req); err != nil {
				t.NotApplicable("no volume can be made of the group's snapshot: %s", check.Describe(err))
			}
			t.Refused("GX-06", "beside a volume made of it", &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: g.GetGroupSnapshotId(), SnapshotIds: members(g), Secrets: t.Config().Secrets}, codes.OK, codes.FailedPrecondition)
		}},
		{ID: "H-27/allocated", Title: "GetMetadataAllocated streams all blocks, in order, from any offset, in pages", Clauses: "SM-01 SM-02 SM-05 SM-06 SM-07 SM-08 SM-09 SM-10 SM-11", Needs: "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT metadata", Run: allocated},
		{ID: "H-27/resume", Title: "A stream of metadata that was cut goes on from the offset where it was", Clauses: "SM-05 SM-02 SM-06", Needs: "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT metadata", Run: resumed},
		{ID: "H-27/delta", Title: "GetMetadataDelta of a snapshot and itself, and of two, is in order", Clauses: "SM-01 SM-05 SM-06 SM-10 SM-11 SM-15", Needs: "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT metadata", Run: delta},
		{ID: "H-28/apply", Title: "ControllerModifyVolume is OK, twice, and also with keys of Kubernetes", Clauses: "MV-01 MV-02", Needs: "CREATE_DELETE_VOLUME MODIFY_VOLUME mutable", Run: modify},
		{ID: "H-28/nothing", Title: "ControllerModifyVolume that is INVALID_ARGUMENT has applied nothing", Clauses: "MV-05 MV-06 MV-07", Needs: "CREATE_DELETE_VOLUME MODIFY_VOLUME mutable", Run: modifyNothing},
		{ID: "H-28/create", Title: "CreateVolume takes mutable_parameters, which win over parameters", Clauses: "CV-04 CV-18", Needs: "CREATE_DELETE_VOLUME MODIFY_VOLUME mutable", Run: mutableAtCreate},
		{ID: "H-28/without", Title: "CreateVolume with mutable_parameters, without MODIFY_VOLUME, is refused", Clauses: "CV-19", Needs: "CREATE_DELETE_VOLUME", Run: func(t *T) {
			if t.Has("MODIFY_VOLUME") {
				t.NotApplicable("MODIFY_VOLUME is advertised")
			}
			t.Mode()
			req := t.CreateRequest()
			req.MutableParameters = map[string]string{"csikit": "1"}
			t.Refused("CV-19", "with mutable_parameters, and MODIFY_VOLUME is not advertised", req, codes.InvalidArgument)
		}},
	}
}

func groupMembers(t *T) {
	want := []string{t.NewVolume().VolumeId, t.NewVolume().VolumeId, t.NewVolume().VolumeId}
	g := newGroup(t, want...)
	var got []string
	for _, s := range g.GetSnapshots() {
		got = append(got, s.GetSourceVolumeId())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Failf("GV-06 GV-01", "the group has snapshots of %q, want %q", got, want)
	}
}

func groupDeleted(t *T) {
	v := t.NewVolume()
	g := newGroup(t, v.VolumeId)
	check.OK[*csi.DeleteVolumeGroupSnapshotResponse](t, "GX-01", &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: g.GetGroupSnapshotId(), SnapshotIds: members(g), Secrets: t.Config().Secrets})
	t.Refused("GX-01 GQ-02", "after DeleteVolumeGroupSnapshot", getGroup(t, g), codes.NotFound)
	if t.Has("LIST_SNAPSHOTS") {
		if left := snapshotsOf(t, v.VolumeId); len(left) > 0 {
			t.Failf("GX-01", "the group is deleted, and ListSnapshots has %d of its snapshots", len(left))
		}
	}
	if t.Has("GET_SNAPSHOT") {
		t.Refused("GX-01", "of a member, after DeleteVolumeGroupSnapshot", &csi.GetSnapshotRequest{SnapshotId: members(g)[0], Secrets: t.Config().Secrets}, codes.NotFound)
	}
}

// groupPartial: whichever of the volumes it is that cannot be cut, none is.
func groupPartial(t *T) {
	a, b := t.NewVolume().VolumeId, t.NewVolume().VolumeId
	for _, sources := range [][]string{{noVolume, a, b}, {a, noVolume, b}, {a, b, noVolume}} {
		req := groupRequest(t, sources...)
		if _, err := t.Try(req); err == nil {
			t.Fatalf("GV-11", "CreateVolumeGroupSnapshot of two volumes that are there and one that is not: got OK, want an error")
		}
		for _, v := range []string{a, b} {
			if left := snapshotsOf(t, v); len(left) > 0 {
				t.Failf("GV-12", "CreateVolumeGroupSnapshot has failed, and there are %d snapshots of a volume that is there", len(left))
			}
		}
		req.SourceVolumeIds = []string{a, b}
		resp, err := check.Try[*csi.CreateVolumeGroupSnapshotResponse](t, req)
		if codeOf(err) == codes.ResourceExhausted {
			t.NotRun("CreateVolumeGroupSnapshot: the driver has no room: %v", err)
		}
		if err != nil {
			t.Failf("GV-12 GV-11", "CreateVolumeGroupSnapshot has failed, and by its name no other group can be made: %s", check.Describe(err))
			return
		}
		g := resp.GetGroupSnapshot()
		check.OK[*csi.DeleteVolumeGroupSnapshotResponse](t, "GX-01", &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: g.GetGroupSnapshotId(), SnapshotIds: members(g), Secrets: t.Config().Secrets})
	}
}

func groupSource(t *T) {
	v := t.NewVolume()
	g := newGroup(t, v.VolumeId)
	req := t.CreateRequest()
	req.VolumeContentSource = fromSnapshot(members(g)[0])
	req.CapacityRange = capRange(max(v.CapacityBytes, t.Config().Size), 0)
	if _, err := t.Try(req); err != nil {
		t.Warnf("GV-17", "no volume can be made of a group's snapshot: %s", check.Describe(err))
	}
}

func modify(t *T) {
	v := t.NewVolume()
	req := modifyRequest(v)
	check.OK[*csi.ControllerModifyVolumeResponse](t, "MV-01", req)
	check.OK[*csi.ControllerModifyVolumeResponse](t, "MV-02", req)
	more := proto.Clone(req).(*csi.ControllerModifyVolumeRequest)
	for k, val := range map[string]string{"pvc/name": "data", "pvc/namespace": "default", "pv/name": "pvc-1"} {
		more.MutableParameters["csi.storage.k8s.io/"+k] = val
	}
	if _, err := t.Try(more); err != nil {
		t.Warnf("MV-01", "ControllerModifyVolume with the keys that external-resizer adds (--extra-modify-metadata): %s", check.Describe(err))
	}
}

func modifyNothing(t *T) {
	v := t.NewVolume()
	before := toldOf(t, v)
	req := modifyRequest(v)
	bad := proto.Clone(req).(*csi.ControllerModifyVolumeRequest)
	bad.MutableParameters["csikit-no-such-key"] = "1"
	t.Refused("MV-06", "with good keys and one that nobody knows", bad, codes.InvalidArgument)
	if now := toldOf(t, v); now != before {
		t.Failf("MV-07", "ControllerModifyVolume was INVALID_ARGUMENT, and the volume has changed: %s, before %s", now, before)
	}
}

// toldOf is what the driver tells of a volume.
func toldOf(t *T, v *check.Volume) string {
	if t.Has("GET_VOLUME") {
		return t.Text(check.OK[*csi.ControllerGetVolumeResponse](t, "CG-01", &csi.ControllerGetVolumeRequest{VolumeId: v.VolumeId}).GetVolume())
	}
	if e := volumeIDs(t)[v.VolumeId]; e != nil {
		return t.Text(e.GetVolume())
	}
	return ""
}

func mutableAtCreate(t *T) {
	t.Mode()
	req := t.CreateRequest()
	req.MutableParameters = t.Config().MutableParameters
	a := check.OK[*csi.CreateVolumeResponse](t, "CV-18", req).GetVolume()
	if again := check.OK[*csi.CreateVolumeResponse](t, "CV-02", req).GetVolume(); again.GetVolumeId() != a.GetVolumeId() {
		t.Failf("CV-02", "CreateVolume with mutable_parameters, again, made another volume")
	}
}
