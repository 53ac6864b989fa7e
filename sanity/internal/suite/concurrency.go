package suite

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// crowd is how many make a call at once.
const crowd = 50

// concurrencyChecks: H-05, H-06 and H-07.
func concurrencyChecks() []Check {
	const cv, node = "CREATE_DELETE_VOLUME", "CREATE_DELETE_VOLUME node"
	all := []Check{
		{ID: "H-05/one-name", Title: "50 simultaneous CreateVolume of one name make one volume", Clauses: "CV-03 CV-02 GEN-12", Needs: cv, Run: crowdOfVolumes},
		{ID: "H-05/one-snapshot", Title: "50 simultaneous CreateSnapshot of one name make one snapshot", Clauses: "CS-02 CS-11 GEN-12", Needs: cv + " CREATE_DELETE_SNAPSHOT", Run: crowdOfSnapshots},
		{ID: "H-05/one-group", Title: "Simultaneous CreateVolumeGroupSnapshot of one name make one group", Clauses: "GV-03 GV-15 GEN-12", Needs: cv + " group", Run: crowdOfGroups},
		{ID: "H-05/one-target", Title: "Simultaneous stage, publish and unpublish calls for one path are done once", Clauses: "NS-02 NP-01 NB-03 GEN-12", Needs: node, Run: crowdOfPublishes},
		{ID: "H-05/delete", Title: "50 simultaneous DeleteVolume of one volume delete it", Clauses: "DV-02 GEN-12", Needs: cv, Run: func(t *T) {
			v := t.NewVolume()
			together(t, "DV-02 GEN-12", crowd, v.DeleteRequest(), nil)
			t.Refused("DV-02", "after 50 at once", v.DeleteRequest(), codes.OK)
		}},
		{ID: "H-05/delete-snapshot", Title: "Simultaneous DeleteSnapshot of one snapshot delete it", Clauses: "DS-02 DS-06 GEN-12", Needs: cv + " CREATE_DELETE_SNAPSHOT", Run: func(t *T) {
			req := &csi.DeleteSnapshotRequest{SnapshotId: t.NewVolume().NewSnapshot().GetSnapshotId(), Secrets: t.Config().Secrets}
			together(t, "DS-02 DS-06 GEN-12", 20, req, nil)
			t.Refused("DS-02", "after 20 at once", req, codes.OK)
		}},
		{ID: "H-06/many-volumes", Title: "Different volumes are made, staged and deleted at once", Clauses: "GEN-12 CV-40", Needs: cv, Run: manyAtOnce},
	}
	return append(append(all, pairChecks()...), deadlineChecks()...)
}

// together makes one call n times at once. Each must be OK, or say that it is busy.
func together(t *T, clauses string, n int, req proto.Message, each func(proto.Message)) {
	var mu sync.Mutex
	t.Go(n, func(int) {
		resp, err := t.Send(t.Context(), proto.Clone(req))
		mu.Lock()
		defer mu.Unlock()
		switch codeOf(err) {
		case codes.OK:
			if each != nil {
				each(resp)
			}
		case codes.Aborted, codes.Unavailable:
		default:
			t.Failf(clauses, "one of %d simultaneous %s: got %s, want OK or ABORTED", n, check.Name(req), check.Describe(err))
		}
	})
}

// oneOf collects ids and says when there is more than one.
type oneOf struct{ ids []string }

func (o *oneOf) add(id string) {
	if !slices.Contains(o.ids, id) {
		o.ids = append(o.ids, id)
	}
}

func (o *oneOf) check(t *T, clauses, what string) {
	if len(o.ids) > 1 {
		t.Failf(clauses, "one name has %d %s: %q", len(o.ids), what, o.ids)
	}
}

func crowdOfVolumes(t *T) {
	t.Mode()
	before := volumeIDs(t)
	for range 3 {
		req := t.CreateRequest()
		var one oneOf
		together(t, "CV-02 CV-03 GEN-12", crowd, req, func(m proto.Message) { one.add(m.(*csi.CreateVolumeResponse).GetVolume().GetVolumeId()) })
		one.add(check.OK[*csi.CreateVolumeResponse](t, "CV-02", req).GetVolume().GetVolumeId())
		one.check(t, "CV-03 CV-02", "volumes")
		v := one.ids[len(one.ids)-1]
		newOnes(t, before, v)
		check.OK[*csi.DeleteVolumeResponse](t, "DV-01", &csi.DeleteVolumeRequest{VolumeId: v, Secrets: t.Config().Secrets})
	}
}

// newOnes says when there are volumes that nobody was told of. Somebody else's are
// not known from a driver's, so it is said only when nobody else seems to be there.
func newOnes(t *T, before map[string]*csi.ListVolumesResponse_Entry, known ...string) {
	if !t.Has("LIST_VOLUMES") {
		return
	}
	var more []string
	now := volumeIDs(t)
	for id := range now {
		if _, old := before[id]; !old && !slices.Contains(known, id) {
			more = append(more, id)
		}
	}
	for _, id := range known {
		if now[id] == nil {
			t.Failf("LV-02", "ListVolumes does not have the volume %s", id)
		}
	}
	if len(more) > 0 {
		t.Failf("CV-03 CV-02 LV-02", "ListVolumes has volumes that no answer told of: %q (if nobody else uses the driver)", more)
	}
}

func crowdOfSnapshots(t *T) {
	req := t.SnapshotRequest(t.NewVolume().VolumeId)
	var one oneOf
	together(t, "CS-11 CS-02 GEN-12", crowd, req, func(m proto.Message) { one.add(m.(*csi.CreateSnapshotResponse).GetSnapshot().GetSnapshotId()) })
	one.add(check.OK[*csi.CreateSnapshotResponse](t, "CS-02", req).GetSnapshot().GetSnapshotId())
	one.check(t, "CS-02", "snapshots")
	if !t.Has("LIST_SNAPSHOTS") {
		return
	}
	if list := snapshotsOf(t, req.GetSourceVolumeId()); len(list) != 1 {
		t.Failf("CS-02 LS-08", "after 50 simultaneous CreateSnapshot of one name ListSnapshots has %d of the volume", len(list))
	}
}

func crowdOfGroups(t *T) {
	req := groupRequest(t, t.NewVolume().VolumeId, t.NewVolume().VolumeId)
	var one oneOf
	together(t, "GV-15 GV-03 GEN-12", 20, req, func(m proto.Message) {
		one.add(m.(*csi.CreateVolumeGroupSnapshotResponse).GetGroupSnapshot().GetGroupSnapshotId())
	})
	one.add(check.OK[*csi.CreateVolumeGroupSnapshotResponse](t, "GV-03", req).GetGroupSnapshot().GetGroupSnapshotId())
	one.check(t, "GV-03", "groups")
}

func crowdOfPublishes(t *T) {
	v := t.NewVolume()
	v.Attach()
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		together(t, "NS-02 GEN-12", 20, v.StageRequest(), nil)
	}
	v.Stage()
	req := v.PublishRequest()
	together(t, "NP-01 GEN-12", 20, req, nil)
	check.OK[*csi.NodePublishVolumeResponse](t, "NP-01", req)
	together(t, "NB-03 GEN-12", 20, v.UnpublishRequest(req.GetTargetPath()), nil)
	v.Unpublish(req.GetTargetPath())
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		together(t, "NU-03 GEN-12", 20, v.UnstageRequest(), nil)
	}
	v.FromNode()
}

func manyAtOnce(t *T) {
	t.Mode()
	var mu sync.Mutex
	seen := map[string]bool{}
	t.Go(10, func(int) {
		req := t.CreateRequest()
		resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
		if err != nil {
			if codeOf(err) != codes.ResourceExhausted {
				t.Failf("GEN-12 CV-01", "one of 10 simultaneous CreateVolume of different names: got %s, want OK", check.Describe(err))
			}
			return
		}
		mu.Lock()
		if seen[resp.GetVolume().GetVolumeId()] {
			t.Failf("CV-40", "two names have the volume %s", resp.GetVolume().GetVolumeId())
		}
		seen[resp.GetVolume().GetVolumeId()] = true
		mu.Unlock()
		if _, err := t.Try(&csi.DeleteVolumeRequest{VolumeId: resp.GetVolume().GetVolumeId(), Secrets: t.Config().Secrets}); err != nil {
			t.Failf("GEN-12 DV-01", "one of 10 simultaneous DeleteVolume: got %s, want OK", check.Describe(err))
		}
	})
}

// cut makes a call that its caller gives up after a while, and gives what came of it.
func cut(t *T, req proto.Message, after time.Duration) (proto.Message, error) {
	ctx, cancel := context.WithTimeout(t.Context(), after)
	defer cancel()
	return t.Send(ctx, req)
}
