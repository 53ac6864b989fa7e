package suite

import (
	"context"
	"os"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/mounter/mnt"
	"github.com/csikit/csikit/sanity/internal/check"
)

// deadlineChecks: H-07, calls whose caller does not wait for the answer.
func deadlineChecks() []Check {
	clauses := map[string]string{
		"CreateVolume": "GEN-18 GEN-19 CV-03", "CreateSnapshot": "GEN-18 GEN-19 CS-02", "ControllerExpandVolume": "GEN-18 GEN-19 CE-02",
		"ControllerPublishVolume": "GEN-18 GEN-19 CP-03", "NodeStageVolume": "GEN-18 GEN-19 NS-02", "NodePublishVolume": "GEN-18 GEN-19 NP-01",
		"NodeUnpublishVolume": "GEN-18 GEN-19 NB-03", "NodeUnstageVolume": "GEN-18 GEN-19 NU-03", "DeleteVolume": "GEN-18 GEN-19 DV-02",
		"CreateVolumeGroupSnapshot": "GEN-18 GEN-19 GV-03", "DeleteSnapshot": "GEN-18 GEN-19 DS-02",
	}
	all := []Check{{ID: "H-07/stays", Title: "What a caller got who gave up and asked again is not undone by what it gave up", Clauses: "GEN-19 GEN-18", Needs: "CREATE_DELETE_VOLUME", Run: stays}}
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
	t.Mode() // so that it makes no volume later
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

// abandon makes a call as a CO does that is ended meanwhile: it is cancelled, or its
// time is over, at several moments of it.
func abandon(t *T, req proto.Message) {
	for _, after := range []time.Duration{200 * time.Microsecond, 3 * time.Millisecond, 20 * time.Millisecond} {
		_, _ = cut(t, proto.Clone(req), after) // another check looks at what is said
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(after, cancel)
		_, _ = t.Send(ctx, proto.Clone(req)) // as above
		timer.Stop()
		cancel()
	}
}

// late is when a driver has done all that it does because of a call that was given up.
const late = 1200 * time.Millisecond

// stays: a driver that cleans up after a caller that is gone takes away what the next
// call has found.
func stays(t *T) {
	t.Mode()
	req := t.CreateRequest()
	abandon(t, req)
	vol := check.OK[*csi.CreateVolumeResponse](t, "GEN-18 CV-02", req).GetVolume()
	v := &check.Volume{Volume: vol, T: t, Request: req, Cap: req.GetVolumeCapabilities()[0]}
	snapshot := abandonedSnapshot(t)
	published := abandonedPublish(t)
	select {
	case <-t.Context().Done():
	case <-time.After(late):
	}
	if _, err := t.Try(validateRequest(v)); codeOf(err) == codes.NotFound {
		t.Failf("GEN-19 GEN-18 CV-02", "CreateVolume was given up, made again, and OK; %v later the volume is gone: %s", late, check.Describe(err))
	}
	if again := check.OK[*csi.CreateVolumeResponse](t, "GEN-19 CV-02", req).GetVolume(); again.GetVolumeId() != vol.GetVolumeId() {
		t.Failf("GEN-19 CV-02", "CreateVolume was given up, made again, and gave %s; later it gives %s", vol.GetVolumeId(), again.GetVolumeId())
	}
	snapshot()
	published()
}

// abandonedSnapshot makes a snapshot so, and gives what looks whether it is there.
func abandonedSnapshot(t *T) (look func()) {
	if !t.Has("CREATE_DELETE_SNAPSHOT") {
		return func() {}
	}
	req := t.SnapshotRequest(t.NewVolume().VolumeId)
	abandon(t, req)
	s := check.OK[*csi.CreateSnapshotResponse](t, "GEN-18 CS-02", req).GetSnapshot()
	return func() {
		again := check.OK[*csi.CreateSnapshotResponse](t, "GEN-19 CS-02", req).GetSnapshot()
		if again.GetSnapshotId() != s.GetSnapshotId() || !proto.Equal(again.GetCreationTime(), s.GetCreationTime()) {
			t.Failf("GEN-19 CS-02", "CreateSnapshot was given up, made again, and gave %s; later it gives %s", t.Text(s), t.Text(again))
		}
	}
}

// abandonedPublish brings a volume to a target so.
func abandonedPublish(t *T) (look func()) {
	if !t.HasNode {
		return func() {}
	}
	v := t.NewVolume()
	if t.Has("PUBLISH_UNPUBLISH_VOLUME") {
		abandon(t, v.AttachRequest())
	}
	v.Attach()
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		abandon(t, v.StageRequest())
	}
	v.Stage()
	req := v.PublishRequest()
	abandon(t, req)
	check.OK[*csi.NodePublishVolumeResponse](t, "GEN-18 NP-01", req)
	return func() {
		_, err := os.Lstat(req.GetTargetPath())
		is := err == nil
		if is && !t.Config().Block {
			is, err = mnt.IsMountPoint(req.GetTargetPath())
		}
		if t.Config().Host && (err != nil || !is) {
			t.Failf("GEN-19 NP-01", "NodePublishVolume was given up, made again, and OK; %v later nothing is at the target", late)
		}
	}
}
