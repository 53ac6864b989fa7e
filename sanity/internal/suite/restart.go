package suite

import (
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// restartChecks: H-08, the driver is killed between two steps, and in them.
func restartChecks() []Check {
	const life = "CREATE_DELETE_VOLUME node restart"
	all := []Check{
		{ID: "H-08/between", Title: "A driver that is killed between any two steps goes on where it was", Clauses: "CV-02 CP-03 NS-02 NP-01 NB-03 NU-03 CU-02 DV-02 PR-12", Needs: life, Run: betweenSteps},
		{ID: "H-08/same", Title: "A driver says the same after a restart", Clauses: "ID-06 NI-02 NI-07 CV-42 LV-02", Needs: "CREATE_DELETE_VOLUME restart", Run: sameAfterRestart},
		{ID: "H-08/data", Title: "A pod's volume works on while the driver is killed, and its data is there afterwards", Clauses: "NS-06 NP-07 NP-01", Needs: life + " host", Run: dataOverRestart},
		{ID: "H-08/socket", Title: "A driver that is started again serves at the same endpoint, though the socket is still there", Clauses: "PR-01 PR-12 PR-10", Needs: "restart", Run: func(t *T) {
			for range 3 {
				restart(t)
			}
		}},
		{ID: "H-08/snapshot", Title: "A snapshot is there after a restart, and is a source", Clauses: "CS-02 CV-20 LS-02", Needs: "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT restart", Run: snapshotOverRestart},
	}
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

// restart kills the driver, has it started again, and waits until it is ready.
func restart(t *T) {
	if err := t.Config().Restart(t.Context()); err != nil {
		t.NotRun("the driver could not be restarted: %v", err)
	}
	if err := t.Ready(); err != nil {
		t.Fatalf("PR-12 PR-01", "the driver was killed and started again, and is not ready: %v", err)
	}
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
	v.Unpublish(target)
	restart(t)
	v.FromNode()
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
