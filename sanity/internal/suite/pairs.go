package suite

import (
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// pair is two calls on one object that contradict each other, and how the object is
// afterwards.
type pair struct {
	id, title, clauses, needs string
	// make gives both calls, and what must be possible afterwards.
	make func(*T) (a, b proto.Message, after func())
}

// busy are the codes with which a driver may refuse what does not go now.
var busy = []codes.Code{codes.OK, codes.Aborted, codes.Unavailable, codes.FailedPrecondition, codes.NotFound, codes.AlreadyExists}

func pairChecks() []Check {
	const cv, node = "CREATE_DELETE_VOLUME", "CREATE_DELETE_VOLUME node"
	var all []Check
	for _, p := range []pair{
		{"create-delete", "CreateVolume and DeleteVolume of one volume at once", "GEN-12 CV-03 DV-02", cv, func(t *T) (proto.Message, proto.Message, func()) {
			v := t.NewVolume()
			return v.Request, v.DeleteRequest(), func() {
				id := check.OK[*csi.CreateVolumeResponse](t, "CV-01 GEN-12", v.Request).GetVolume().GetVolumeId()
				check.OK[*csi.DeleteVolumeResponse](t, "DV-01 GEN-12", &csi.DeleteVolumeRequest{VolumeId: id, Secrets: t.Config().Secrets})
			}
		}},
		{"stage-unstage", "NodeStageVolume and NodeUnstageVolume of one volume at once", "GEN-12 NS-02 NU-03", node + " node:STAGE_UNSTAGE_VOLUME", func(t *T) (proto.Message, proto.Message, func()) {
			v := t.NewVolume()
			v.Attach()
			return v.StageRequest(), v.UnstageRequest(), func() {
				v.Stage()
				v.Unpublish(v.PublishAt())
				v.FromNode()
			}
		}},
		{"publish-unpublish", "NodePublishVolume and NodeUnpublishVolume of one target at once", "GEN-12 NP-01 NB-03", node, func(t *T) (proto.Message, proto.Message, func()) {
			v := t.NewVolume().ToNode()
			req := v.PublishRequest()
			return req, v.UnpublishRequest(req.GetTargetPath()), func() {
				check.OK[*csi.NodePublishVolumeResponse](t, "NP-01 GEN-12", req)
				v.Unpublish(req.GetTargetPath())
				v.FromNode()
			}
		}},
		{"attach-detach", "ControllerPublishVolume and ControllerUnpublishVolume of one volume at once", "GEN-12 CP-03 CU-02", node + " PUBLISH_UNPUBLISH_VOLUME", func(t *T) (proto.Message, proto.Message, func()) {
			v := t.NewVolume()
			return v.AttachRequest(), &csi.ControllerUnpublishVolumeRequest{VolumeId: v.VolumeId, NodeId: t.NodeID(), Secrets: t.Config().Secrets}, func() {
				v.Attach()
				v.Detach()
			}
		}},
		{"expand-delete", "ControllerExpandVolume and DeleteVolume of one volume at once", "GEN-12 DV-02", cv + " EXPAND_VOLUME", func(t *T) (proto.Message, proto.Message, func()) {
			v := t.NewVolume()
			return expandRequest(v, t.Config().ExpandSize), v.DeleteRequest(), v.Delete
		}},
		{"snapshot-delete", "CreateSnapshot and DeleteVolume of one volume at once", "GEN-12 CS-11 CS-02 DV-02", cv + " CREATE_DELETE_SNAPSHOT", func(t *T) (proto.Message, proto.Message, func()) {
			v := t.NewVolume()
			req := t.SnapshotRequest(v.VolumeId)
			return req, v.DeleteRequest(), func() { snapshotOrNone(t, req) }
		}},
		{"snapshot-snapshot", "CreateSnapshot and DeleteSnapshot of one snapshot at once", "GEN-12 DS-06 CS-11 DS-02 CS-02", cv + " CREATE_DELETE_SNAPSHOT", func(t *T) (proto.Message, proto.Message, func()) {
			req := t.SnapshotRequest(t.NewVolume().VolumeId)
			s := check.OK[*csi.CreateSnapshotResponse](t, "CS-01", req).GetSnapshot()
			return req, &csi.DeleteSnapshotRequest{SnapshotId: s.GetSnapshotId(), Secrets: t.Config().Secrets}, func() {
				check.OK[*csi.CreateSnapshotResponse](t, "CS-01 GEN-12", req)
			}
		}},
	} {
		all = append(all, Check{ID: "H-06/" + p.id, Title: p.title + " leave something whole", Clauses: p.clauses, Needs: p.needs, Run: func(t *T) { p.run(t) }})
	}
	return all
}

func (p *pair) run(t *T) {
	rounds := 5
	for range rounds {
		a, b, after := p.make(t)
		start := time.Now()
		t.Go(4, func(i int) {
			req := a
			if i%2 == 1 {
				req = b
			}
			if _, err := t.Send(t.Context(), proto.Clone(req)); !slices.Contains(busy, codeOf(err)) {
				t.Failf(p.clauses, "%s beside %s: got %s, want OK, ABORTED, or what is so at that moment", check.Name(req), other(req, a, b), check.Describe(err))
			}
		})
		if t.Failed() {
			return
		}
		after()
		if time.Since(start) > t.Config().CallTimeout/6 {
			return // slow drivers are valid too
		}
	}
}

func other(req, a, b proto.Message) string {
	if req == a {
		return check.Name(b)
	}
	return check.Name(a)
}

// snapshotOrNone: the volume may be gone, and then there is no snapshot, or one that
// outlives it.
func snapshotOrNone(t *T, req *csi.CreateSnapshotRequest) {
	resp, err := check.Try[*csi.CreateSnapshotResponse](t, req)
	if err == nil {
		check.OK[*csi.DeleteSnapshotResponse](t, "DS-01", &csi.DeleteSnapshotRequest{SnapshotId: resp.GetSnapshot().GetSnapshotId(), Secrets: t.Config().Secrets})
	} else if code := codeOf(err); code != codes.NotFound && code != codes.FailedPrecondition && code != codes.InvalidArgument {
		t.Failf("CS-20", "CreateSnapshot of a volume that is gone: got %s, want NOT_FOUND", check.Describe(err))
	}
}

// deadlineChecks: H-07, calls whose caller does not wait for the answer.
func deadlineChecks() []Check {
	clauses := map[string]string{
		"CreateVolume": "GEN-18 GEN-19 CV-03", "CreateSnapshot": "GEN-18 GEN-19 CS-02", "ControllerExpandVolume": "GEN-18 GEN-19 CE-02",
		"ControllerPublishVolume": "GEN-18 GEN-19 CP-03", "NodeStageVolume": "GEN-18 GEN-19 NS-02", "NodePublishVolume": "GEN-18 GEN-19 NP-01",
		"NodeUnpublishVolume": "GEN-18 GEN-19 NB-03", "NodeUnstageVolume": "GEN-18 GEN-19 NU-03", "DeleteVolume": "GEN-18 GEN-19 DV-02",
		"CreateVolumeGroupSnapshot": "GEN-18 GEN-19 GV-03", "DeleteSnapshot": "GEN-18 GEN-19 DS-02",
	}
	var all []Check
	for _, r := range append(controllerRPCs(), nodeRPCs()...) {
		if c := clauses[r.name]; c != "" {
			all = append(all, Check{ID: "H-07/" + r.name, Title: r.name + " goes on where it was when its caller gave up, and asks again", Clauses: c, Needs: r.needs,
				Run: func(t *T) { giveUp(t, r, c) }})
		}
	}
	return all
}

// giveUp makes the call with deadlines that are too short, and then properly: that
// is OK, and always of the same object.
func giveUp(t *T, r rpc, clauses string) {
	before := volumeIDs(t)
	for _, after := range []time.Duration{200 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 30 * time.Millisecond} {
		req := r.request(t)
		var one oneOf
		for range 3 {
			resp, err := cut(t, req, after)
			switch codeOf(err) {
			case codes.OK:
				one.add(madeBy(resp))
			case codes.DeadlineExceeded, codes.Canceled, codes.Aborted, codes.Unavailable:
			default:
				t.Failf(clauses, "%s, given up after %v: got %s, which tells the CO that nothing is going on; want DEADLINE_EXCEEDED or ABORTED", r.name, after, check.Describe(err))
			}
		}
		resp, err := t.Try(req)
		if err != nil {
			t.Fatalf(clauses, "%s, given up after %v, and made again: got %s, want OK", r.name, after, check.Describe(err))
		}
		one.add(madeBy(resp))
		one.check(t, clauses, "objects")
		if v, ok := resp.(*csi.CreateVolumeResponse); ok {
			newOnes(t, before, v.GetVolume().GetVolumeId())
			before = volumeIDs(t)
		}
	}
}

// madeBy is the id of what a call made.
func madeBy(m proto.Message) string {
	switch r := m.(type) {
	case *csi.CreateVolumeResponse:
		return r.GetVolume().GetVolumeId()
	case *csi.CreateSnapshotResponse:
		return r.GetSnapshot().GetSnapshotId()
	case *csi.CreateVolumeGroupSnapshotResponse:
		return r.GetGroupSnapshot().GetGroupSnapshotId()
	}
	return ""
}
