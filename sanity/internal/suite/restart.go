package suite

import (
	"os"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/mounter/mnt"
	"github.com/csikit/csikit/sanity/internal/check"
)

// restartChecks: H-08, the driver is killed between two steps, and in them.
func restartChecks() []Check {
	const life = "CREATE_DELETE_VOLUME node restart"
	all := []Check{
		{ID: "H-08/between", Title: "A driver that is killed between any two steps goes on where it was", Clauses: "CV-02 CP-03 NS-02 NP-01 NB-03 NU-03 CU-02 DV-02 PR-12", Needs: life, Run: betweenSteps},
		{ID: "H-08/same", Title: "A driver says the same after a restart", Clauses: "ID-06 NI-02 NI-07 CV-42 LV-02", Needs: "CREATE_DELETE_VOLUME restart", Run: sameAfterRestart},
		{ID: "H-08/known", Title: "A driver knows its volumes after a restart", Clauses: "LV-02 VC-06 CV-02 CP-01 DV-01", Needs: "CREATE_DELETE_VOLUME restart", Run: knownAfterRestart},
		{ID: "H-08/ids", Title: "What is made after a restart has other ids than what was made before", Clauses: "CV-40 CS-15", Needs: "CREATE_DELETE_VOLUME restart", Run: idsAfterRestart},
		{ID: "H-08/data", Title: "A pod's volume works on while the driver is killed, its data is there afterwards, and what was published and staged is undone by the next driver", Clauses: "NS-06 NP-07 NP-01 NB-02 NB-04 NU-02", Needs: life + " host", Run: dataOverRestart},
		{ID: "H-08/socket", Title: "A driver that is started again serves at the same endpoint, though the socket is still there", Clauses: "PR-01 PR-12 PR-10 ID-17", Needs: "restart", Run: func(t *T) {
			for range 3 {
				restart(t)
			}
		}},
		{ID: "H-08/snapshot", Title: "A snapshot is there after a restart, and is a source", Clauses: "CS-02 CV-20 LS-02", Needs: "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT restart", Run: snapshotOverRestart},
	}
	all = append(all, startChecks()...)
	for _, r := range append(controllerRPCs(), nodeRPCs()...) {
		clauses := idempotent[r.name]
		if clauses == "" || r.name == "NodeGetInfo" {
			continue
		}
		all = append(all, Check{ID: "H-08/in/" + r.name, Title: "A driver that is killed in " + r.name + " goes on where it was when it is asked again", Clauses: clauses + " GEN-18",
			Needs: r.needs + " restart", Run: func(t *T) { killedIn(t, r, clauses) }})
	}
	return all
}

func betweenSteps(t *T) {
	t.Mode()
	req := t.CreateRequest()
	step := func(clauses string, r proto.Message) proto.Message {
		resp := check.OK[proto.Message](t, clauses, r)
		restart(t)
		again := check.OK[proto.Message](t, clauses, r)
		settle(resp.ProtoReflect())
		settle(again.ProtoReflect())
		if stable(resp) != stable(again) {
			t.Failf(clauses, "%s says %s after a restart, and before %s", check.Name(r), t.Text(again), t.Text(resp))
		}
		return again
	}
	vol := step("CV-02", req).(*csi.CreateVolumeResponse).GetVolume()
	v := &check.Volume{Volume: vol, T: t, Request: req, Cap: req.GetVolumeCapabilities()[0]}
	if t.Has("PUBLISH_UNPUBLISH_VOLUME") {
		v.Publish = step("CP-03", v.AttachRequest()).(*csi.ControllerPublishVolumeResponse).GetPublishContext()
	}
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		step("NS-02", v.StageRequest())
	}
	p := v.PublishRequest()
	step("NP-01", p)
	step("NB-03", v.UnpublishRequest(p.GetTargetPath()))
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		step("NU-03", v.UnstageRequest())
	}
	if t.Has("PUBLISH_UNPUBLISH_VOLUME") {
		step("CU-02", &csi.ControllerUnpublishVolumeRequest{VolumeId: v.VolumeId, NodeId: t.NodeID(), Secrets: t.Config().Secrets})
	}
	step("DV-02", v.DeleteRequest())
	if _, left := volumeIDs(t)[v.VolumeId]; left {
		t.Failf("DV-02 LV-02", "the volume is deleted, and ListVolumes has it after a restart")
	}
}

func knownAfterRestart(t *T) {
	v, w := t.NewVolume(), t.NewVolume()
	restart(t)
	if _, found := volumeIDs(t)[v.VolumeId]; t.Has("LIST_VOLUMES") && !found {
		t.Failf("LV-02", "after a restart ListVolumes does not have %s", v.VolumeId)
	}
	if _, err := t.Try(validateRequest(v)); err != nil {
		t.Failf("VC-06 VC-01", "ValidateVolumeCapabilities of a volume, after a restart: got %s, want OK", check.Describe(err))
	}
	if got := check.OK[*csi.CreateVolumeResponse](t, "CV-02", v.Request).GetVolume(); got.GetVolumeId() != v.VolumeId {
		t.Failf("CV-02", "CreateVolume after a restart gives %s, and before %s", got.GetVolumeId(), v.VolumeId)
	}
	if t.HasNode && t.Has("PUBLISH_UNPUBLISH_VOLUME") {
		check.OK[*csi.ControllerPublishVolumeResponse](t, "CP-01", w.AttachRequest())
		w.Detach()
	}
	check.OK[*csi.DeleteVolumeResponse](t, "DV-01", w.DeleteRequest())
	if _, found := volumeIDs(t)[w.VolumeId]; found {
		t.Failf("DV-01 LV-02", "DeleteVolume after a restart was OK, and ListVolumes has the volume")
	}
}

// idsAfterRestart makes the first things of two processes: a driver that counts must
// not begin anew.
func idsAfterRestart(t *T) {
	var volumes, snapshots []string
	add := func(list *[]string, clause, what, id string) {
		if slices.Contains(*list, id) {
			t.Failf(clause, "after a restart a new %s has the id %q, which another one has", what, id)
		}
		*list = append(*list, id)
	}
	for range 2 {
		restart(t)
		for range 3 {
			add(&volumes, "CV-40", "volume", t.NewVolume().VolumeId)
		}
		if t.Has("CREATE_DELETE_SNAPSHOT") {
			v := t.NewVolume()
			add(&volumes, "CV-40", "volume", v.VolumeId)
			add(&snapshots, "CS-15", "snapshot", v.NewSnapshot().GetSnapshotId())
		}
	}
}

func sameAfterRestart(t *T) {
	v := t.NewVolume()
	before, node := capabilitiesNow(t), ""
	info := &csi.NodeGetInfoRequest{}
	if t.HasNode {
		node = stable(check.OK[*csi.NodeGetInfoResponse](t, "NI-01", info))
	}
	told := toldOf(t, v)
	restart(t)
	if now := capabilitiesNow(t); now != before {
		t.Failf("ID-06", "after a restart the driver says:\n%s\nand before:\n%s", now, before)
	}
	if t.HasNode && stable(check.OK[*csi.NodeGetInfoResponse](t, "NI-01", info)) != node {
		t.Failf("NI-02 NI-07", "NodeGetInfo says something else after a restart")
	}
	if now := toldOf(t, v); now != told {
		t.Failf("CV-42 LV-02", "after a restart the driver says of a volume: %s, and before: %s", now, told)
	}
}

func dataOverRestart(t *T) {
	v, target := use(t)
	mustStore(t, "NP-07", target, "first")
	restart(t)
	mustHold(t, "NP-07", "after the driver was killed, in the pod", target, "first")
	mustStore(t, "NP-07", target, "second")
	v.Stage()
	v.Unpublish(target) // of a driver that has not published it
	if _, err := os.Lstat(target); err == nil {
		t.Failf("NB-02 NB-04", "NodeUnpublishVolume of what was published before the driver was killed is OK, and the target is still there")
	}
	restart(t)
	v.Unstage()
	if is, err := mnt.IsMountPoint(v.Staging); v.Staging != "" && err == nil && is {
		t.Failf("NU-02", "NodeUnstageVolume of what was staged before the driver was killed is OK, and something is mounted at the staging path")
	}
	v.Detach()
	restart(t)
	mustHold(t, "NS-06", "staged and published again after restarts", v.ToNode().PublishAt(), "second")
}

func snapshotOverRestart(t *T) {
	v := t.NewVolume()
	req := t.SnapshotRequest(v.VolumeId)
	s := check.OK[*csi.CreateSnapshotResponse](t, "CS-01", req).GetSnapshot()
	restart(t)
	again := check.OK[*csi.CreateSnapshotResponse](t, "CS-02", req).GetSnapshot()
	if again.GetSnapshotId() != s.GetSnapshotId() || !proto.Equal(again.GetCreationTime(), s.GetCreationTime()) {
		t.Failf("CS-02", "CreateSnapshot says %s after a restart, and before %s", t.Text(again), t.Text(s))
	}
}

// killedIn kills the driver while the call runs, at some moments of it.
func killedIn(t *T, r rpc, clauses string) {
	for _, after := range []time.Duration{0, 2 * time.Millisecond} {
		req := r.request(t)
		done := make(chan proto.Message, 1)
		go func() {
			resp, _ := t.Send(t.Context(), req) // the driver dies of it, or before
			done <- resp
		}()
		select {
		case <-t.Context().Done():
		case <-time.After(after):
		}
		restart(t)
		var one oneOf
		if first := <-done; first != nil {
			one.add(madeBy(first))
		}
		resp, err := t.Try(req)
		if err != nil {
			t.Fatalf(clauses+" GEN-18", "%s, after the driver was killed in it: got %s, want OK", r.name, check.Describe(err))
		}
		one.add(madeBy(resp))
		one.check(t, clauses, "objects")
	}
}
