package suite

import (
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/csikit/csikit/sanity/internal/check"
)

// idempotent are the RPCs that are made twice, and ten times, and the clauses that
// say so.
var idempotent = map[string]string{
	"CreateVolume": "CV-02 CV-42", "DeleteVolume": "DV-02", "ControllerPublishVolume": "CP-03 CP-18", "ControllerUnpublishVolume": "CU-02",
	"ValidateVolumeCapabilities": "VC-03", "CreateSnapshot": "CS-02", "DeleteSnapshot": "DS-02", "ControllerExpandVolume": "CE-02",
	"ControllerModifyVolume": "MV-02", "ControllerGetVolume": "CG-02", "GetSnapshot": "GS-01", "CreateVolumeGroupSnapshot": "GV-03",
	"DeleteVolumeGroupSnapshot": "GX-02", "GetVolumeGroupSnapshot": "GQ-01", "NodeStageVolume": "NS-02", "NodeUnstageVolume": "NU-03",
	"NodePublishVolume": "NP-01", "NodeUnpublishVolume": "NB-03", "NodeExpandVolume": "NE-02", "NodeGetInfo": "NI-02 NI-07",
}

// repeatChecks: H-03, the same call again and again is OK, and says the same.
func repeatChecks() []Check {
	var all []Check
	for _, r := range append(controllerRPCs(), nodeRPCs()...) {
		clauses := idempotent[r.name]
		if clauses == "" {
			continue
		}
		all = append(all, Check{
			ID: "H-03/" + r.name, Title: r.name + " is OK at the second and the tenth call, and says the same", Clauses: clauses, Needs: r.needs,
			Run: func(t *T) { repeat(t, clauses, r.request(t)) },
		})
	}
	return append(all, repeatMoreChecks()...)
}

func repeat(t *T, clauses string, req proto.Message) {
	first, err := t.Try(req)
	if err != nil {
		t.Fatalf(clauses, "%s: got %s, want OK", check.Name(req), check.Describe(err))
	}
	settle(first.ProtoReflect())
	for n := 2; n <= 10; n++ {
		again, err := t.Try(req)
		if err != nil {
			t.Fatalf(clauses, "%s, call no. %d: got %s, and before it was OK", check.Name(req), n, check.Describe(err))
		}
		settle(again.ProtoReflect())
		if stable(again) != stable(first) {
			t.Fatalf(clauses, "%s, call no. %d, says something else than the first:\n%s\n%s", check.Name(req), n, t.Text(again), t.Text(first))
		}
	}
}

// settle takes out of an answer what may change by itself.
func settle(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Name() == "ready_to_use" || f.Name() == "node_expansion_required" || f.Name() == "status" || f.Name() == "message":
			m.Clear(f)
		case f.IsMap():
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				settle(v.List().Get(i).Message())
			}
		case !f.IsList() && f.Message() != nil:
			settle(v.Message())
		}
		return true
	})
}

// repeatMoreChecks: what is deleted, undone and done anew.
func repeatMoreChecks() []Check {
	const cv, node = "CREATE_DELETE_VOLUME", "CREATE_DELETE_VOLUME node"
	return []Check{
		{ID: "H-03/deleted", Title: "What is deleted is gone, and can be deleted again; its name is free", Clauses: "DV-02 CV-01 DV-01", Needs: cv, Run: deletedIsGone},
		{ID: "H-03/DeleteVolume/unknown", Title: "DeleteVolume, DeleteSnapshot and DeleteVolumeGroupSnapshot of what was never there are OK", Clauses: "DV-02 DS-02 GX-02", Needs: "controller", Run: deleteUnknown},
		{ID: "H-03/secrets", Title: "Other secrets make no other call", Clauses: "NP-18 CV-02", Needs: cv + " secrets", Run: otherSecrets},
		{ID: "H-03/unique", Title: "Two volumes have two ids", Clauses: "CV-40", Needs: cv, Run: uniqueIDs},
		{ID: "H-03/unique-snapshots", Title: "Two snapshots have two ids", Clauses: "CS-15", Needs: cv + " CREATE_DELETE_SNAPSHOT", Run: func(t *T) {
			v := t.NewVolume()
			if a, b := v.NewSnapshot(), v.NewSnapshot(); a.GetSnapshotId() == b.GetSnapshotId() {
				t.Failf("CS-15", "two snapshots have the id %q", a.GetSnapshotId())
			}
		}},
		{ID: "H-03/cycle", Title: "A volume is published, unpublished and published again, several times", Clauses: "NP-01 NB-02 NS-02 NU-02 CP-03 CU-04", Needs: node, Run: cycle},
		{ID: "H-03/detach-all", Title: "ControllerUnpublishVolume without node_id unpublishes everywhere", Clauses: "CU-05 CU-04", Needs: node + " PUBLISH_UNPUBLISH_VOLUME", Run: detachAll},
		{ID: "H-03/without-context", Title: "A volume is deleted, and unstaged, with nothing but its id", Clauses: "CV-41", Needs: node, Run: func(t *T) {
			v := t.NewVolume().ToNode()
			v.Unpublish(v.PublishAt())
			v.FromNode()
			v.Delete()
		}},
		{ID: "H-03/snapshot-deleted-alone", Title: "A snapshot without a group is deleted alone, and is gone then", Clauses: "DS-07 DS-01 DS-02 LS-02", Needs: cv + " CREATE_DELETE_SNAPSHOT", Run: snapshotIsGone},
	}
}

func deletedIsGone(t *T) {
	v := t.NewVolume()
	v.Delete()
	t.Refused("DV-02", "again", v.DeleteRequest(), codes.OK)
	if _, found := volumeIDs(t)[v.VolumeId]; found {
		t.Failf("DV-01 LV-02", "%s is deleted, and ListVolumes has it", v.VolumeId)
	}
	_, err := t.Try(validateRequest(v))
	if err == nil {
		t.Failf("DV-01 VC-06", "%s is deleted, and ValidateVolumeCapabilities knows it", v.VolumeId)
	}
	check.OK[*csi.CreateVolumeResponse](t, "CV-01", v.Request)
}

func snapshotIsGone(t *T) {
	v := t.NewVolume()
	s := v.NewSnapshot()
	if s.GetGroupSnapshotId() != "" {
		t.NotApplicable("each snapshot is of a group")
	}
	id := s.GetSnapshotId()
	req := &csi.DeleteSnapshotRequest{SnapshotId: id, Secrets: t.Config().Secrets}
	check.OK[*csi.DeleteSnapshotResponse](t, "DS-07 DS-01", req)
	t.Refused("DS-02", "again", req, codes.OK)
	if t.Has("GET_SNAPSHOT") {
		t.Refused("DS-01 GS-03", "after DeleteSnapshot", &csi.GetSnapshotRequest{SnapshotId: id, Secrets: t.Config().Secrets}, codes.NotFound)
	}
	if t.Has("LIST_SNAPSHOTS") && len(snapshotsOf(t, v.VolumeId)) > 0 {
		t.Failf("DS-01 LS-02", "%s is deleted, and ListSnapshots has it", id)
	}
	restore := t.CreateRequest()
	restore.VolumeContentSource = fromSnapshot(id)
	t.Refused("DS-01 CV-23", "from a snapshot that was deleted", restore, codes.NotFound)
}

func deleteUnknown(t *T) {
	secrets := t.Config().Secrets
	if t.Has("CREATE_DELETE_VOLUME") {
		t.Refused("DV-02", "of a volume that was never there", &csi.DeleteVolumeRequest{VolumeId: noVolume, Secrets: secrets}, codes.OK)
	}
	if t.Has("CREATE_DELETE_SNAPSHOT") {
		t.Refused("DS-02", "of a snapshot that was never there", &csi.DeleteSnapshotRequest{SnapshotId: noSnapshot, Secrets: secrets}, codes.OK)
	}
	if t.Has("group") {
		t.Refused("GX-02", "of a group that was never there", &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: noGroup, SnapshotIds: []string{noSnapshot}, Secrets: secrets}, codes.OK)
	}
}

func otherSecrets(t *T) {
	v := t.NewVolume()
	secrets := map[string]string{"csikit-other": "csikit-other-value"}
	maps.Copy(secrets, t.Config().Secrets)
	req := proto.Clone(v.Request).(*csi.CreateVolumeRequest)
	req.Secrets = secrets
	if got := check.OK[*csi.CreateVolumeResponse](t, "CV-02", req); got.GetVolume().GetVolumeId() != v.VolumeId {
		t.Failf("CV-02", "CreateVolume with one secret more made another volume")
	}
	if !t.HasNode {
		return
	}
	p := v.ToNode().PublishRequest()
	check.OK[*csi.NodePublishVolumeResponse](t, "NP-07", p)
	p = proto.Clone(p).(*csi.NodePublishVolumeRequest)
	p.Secrets = secrets
	check.OK[*csi.NodePublishVolumeResponse](t, "NP-18", p)
}

func uniqueIDs(t *T) {
	seen := map[string]bool{}
	for range 5 {
		v := t.NewVolume()
		if seen[v.VolumeId] {
			t.Failf("CV-40", "two volumes have the id %q", v.VolumeId)
		}
		seen[v.VolumeId] = true
	}
}

func cycle(t *T) {
	v := t.NewVolume()
	for range 3 {
		v.ToNode()
		a := v.PublishAt()
		v.Unpublish(a)
		v.FromNode()
	}
}

func detachAll(t *T) {
	v := t.NewVolume()
	v.Attach()
	check.OK[*csi.ControllerUnpublishVolumeResponse](t, "CU-05", &csi.ControllerUnpublishVolumeRequest{VolumeId: v.VolumeId, Secrets: t.Config().Secrets})
	if nodes := publishedNodes(t, v); len(nodes) > 0 {
		t.Failf("CU-05", "after ControllerUnpublishVolume without node_id the volume is still published to %q", nodes)
	}
	v.Attach()
}

// publishedNodes are those that the driver says, if it does.
func publishedNodes(t *T, v *check.Volume) []string {
	if !t.Has("LIST_VOLUMES_PUBLISHED_NODES") {
		return nil
	}
	if e := volumeIDs(t)[v.VolumeId]; e != nil {
		return e.GetStatus().GetPublishedNodeIds()
	}
	return nil
}

// volumeIDs are all that ListVolumes has, by id; nothing if it is not served.
func volumeIDs(t *T) map[string]*csi.ListVolumesResponse_Entry {
	all := map[string]*csi.ListVolumesResponse_Entry{}
	if !t.Has("LIST_VOLUMES") {
		return all
	}
	token := ""
	for range 100000 {
		resp, err := check.Try[*csi.ListVolumesResponse](t, &csi.ListVolumesRequest{StartingToken: token})
		if codeOf(err) == codes.Aborted && token != "" {
			token, all = "", map[string]*csi.ListVolumesResponse_Entry{} // the walk was cut; a CO begins anew
			continue
		}
		if err != nil {
			t.Fatalf("LV-01", "ListVolumes: %s", check.Describe(err))
		}
		for _, e := range resp.GetEntries() {
			all[e.GetVolume().GetVolumeId()] = e
		}
		if token = resp.GetNextToken(); token == "" {
			break
		}
	}
	return all
}
