package suite

import (
	"slices"
	"sync"
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
		{"expand-snapshot", "ControllerExpandVolume and CreateSnapshot of one volume at once", "GEN-12 CE-01 CS-01 CS-11", cv + " EXPAND_VOLUME CREATE_DELETE_SNAPSHOT", func(t *T) (proto.Message, proto.Message, func()) {
			v := t.NewVolume()
			grow, snap := expandRequest(v, t.Config().ExpandSize), t.SnapshotRequest(v.VolumeId)
			return grow, snap, func() {
				for clauses, req := range map[string]proto.Message{"CE-01 GEN-12": grow, "CS-01 GEN-12": snap} { // one may be in the way of the other
					t.Refused(clauses, "after both were called at once", req, codes.OK, codes.FailedPrecondition)
				}
			}
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
	return append(all, Check{ID: "H-06/expand-expand", Title: "Of two sizes to which a volume grows at once it has the bigger one in the end", Clauses: "CE-11 CE-05 CE-02 GEN-12", Needs: cv + " EXPAND_VOLUME", Run: expandTwice})
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
			_, err := t.Send(t.Context(), proto.Clone(req))
			if codeOf(err) == codes.DeadlineExceeded {
				_, err = t.Send(t.Context(), proto.Clone(req)) // slow is no fault
			}
			if !slices.Contains(busy, codeOf(err)) {
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

// expandTwice: whatever order a driver does it in, no answer may be smaller than what
// it was asked for, and no volume smaller than an answer.
func expandTwice(t *T) {
	for range 3 {
		v := t.NewVolume()
		size := sizeOf(t, v)
		step := max(t.Config().ExpandSize-size, 2<<20)
		var mu sync.Mutex
		var most int64
		t.Go(4, func(i int) {
			to := size + step/2*int64(1+i%2)
			resp, err := check.Try[*csi.ControllerExpandVolumeResponse](t, expandRequest(v, to))
			got := resp.GetCapacityBytes()
			switch codeOf(err) {
			case codes.OK:
				if got < to {
					t.Failf("CE-11 CE-05", "ControllerExpandVolume to %d bytes, of several at once, says %d", to, got)
				}
			case codes.Aborted, codes.Unavailable, codes.ResourceExhausted, codes.FailedPrecondition:
			case codes.OutOfRange: // it may have no volumes of that size
			default:
				t.Failf("GEN-12 CE-01", "ControllerExpandVolume, of several at once: got %s, want OK or ABORTED", check.Describe(err))
			}
			mu.Lock()
			defer mu.Unlock()
			most = max(most, got)
		})
		toldOfSize(t, v, func(who, clauses string, got int64) {
			if got < most {
				t.Failf(clauses, "ControllerExpandVolume said %d bytes, of several calls at once, and %s says that the volume has %d", most, who, got)
			}
		})
		if most == 0 || t.Failed() {
			return
		}
		if again := expandTo(t, v, capRange(size+step/2, 0)).GetCapacityBytes(); again < most {
			t.Failf("CE-11 CE-02", "ControllerExpandVolume said %d bytes, of several calls at once, and another to less says %d", most, again)
		}
	}
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
