package csidriver

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

func nodeHealth(t *testing.T, r *rig, id string) ([]*csi.VolumeHealth_VolumeHealthEntry, error) {
	t.Helper()
	resp, err := r.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: id})
	return resp.GetVolumeHealth().GetHealthStatuses(), err
}

func wantEntries(t *testing.T, got []*csi.VolumeHealth_VolumeHealthEntry, want ...*csi.VolumeHealth_VolumeHealthEntry) {
	t.Helper()
	if !proto.Equal(&csi.VolumeHealth{HealthStatuses: got}, &csi.VolumeHealth{HealthStatuses: want}) {
		t.Errorf("health %v, want %v", got, want)
	}
}

// TestNodeHealthOfEngine: a backend that knows nothing of health has what the kernel
// shows.
func TestNodeHealthOfEngine(t *testing.T) {
	r, ctx := startRig(t, nil), t.Context()
	_, err := nodeHealth(t, r, "v")
	wantCode(t, err, codes.NotFound)
	_, err = r.NodeStageVolume(ctx, stageReq("v", "/s"))
	wantCode(t, err, codes.OK)
	got, err := nodeHealth(t, r, "v")
	wantCode(t, err, codes.OK)
	wantEntries(t, got)
	r.engine.ill = map[string][]backends.Health{"v": {degraded("FilesystemErrors", "7")}}
	got, err = nodeHealth(t, r, "v")
	wantCode(t, err, codes.OK)
	wantEntries(t, got, entry(csi.VolumeHealthErrorType_DEGRADED, "FilesystemErrors", "7"))
	if asked, _ := r.engine.last.(mounter.HealthRequest); asked.ID != "v" {
		t.Errorf("the engine was asked %+v", r.engine.last)
	}
	r.engine.hook = func(context.Context, string) error { return backends.ErrUnavailable }
	_, err = nodeHealth(t, r, "v")
	wantCode(t, err, codes.Unavailable)
}

// TestNodeHealthOfBoth: what the engine and the backend found is one list, and what
// one of them found is told when the other fails.
func TestNodeHealthOfBoth(t *testing.T) {
	var i *ill
	r, ctx := startRig(t, withHealth(&i)), t.Context()
	i.health["v"] = []backends.Health{degraded("PoolFull", "99 %"), {Status: backends.HealthInaccessible, Reason: "FilesystemReadOnly", Message: "b"}}
	pool := entry(csi.VolumeHealthErrorType_DEGRADED, "PoolFull", "99 %")
	readOnly := func(message string) *csi.VolumeHealth_VolumeHealthEntry {
		return entry(csi.VolumeHealthErrorType_INACCESSIBLE, "FilesystemReadOnly", message)
	}
	got, err := nodeHealth(t, r, "v")
	wantCode(t, err, codes.OK) // not staged, and asked about all the same
	wantEntries(t, got, pool, readOnly("b"))
	_, err = r.NodeStageVolume(ctx, stageReq("v", "/s"))
	wantCode(t, err, codes.OK)
	r.engine.ill = map[string][]backends.Health{"v": {{Status: backends.HealthInaccessible, Reason: "FilesystemReadOnly", Message: "a"}}}
	got, err = nodeHealth(t, r, "v")
	wantCode(t, err, codes.OK)
	wantEntries(t, got, readOnly("a; b"), pool)

	i.failure = errors.New("no answer from the pool")
	got, err = nodeHealth(t, r, "v")
	wantCode(t, err, codes.OK)
	wantEntries(t, got, readOnly("a"))
	i.failure = backends.VolumeNotFound("v")
	_, err = nodeHealth(t, r, "v")
	wantCode(t, err, codes.NotFound)
	i.failure = nil
	r.engine.hook = func(context.Context, string) error { return backends.ErrUnavailable }
	got, err = nodeHealth(t, r, "v")
	wantCode(t, err, codes.OK)
	wantEntries(t, got, pool, readOnly("b"))
	i.health["v"] = nil
	_, err = nodeHealth(t, r, "v")
	wantCode(t, err, codes.Unavailable)
}

// TestHangingVolumeBesideOthers: figures and health of a volume that hangs, asked for
// by many, keep no other volume and no other RPC waiting.
func TestHangingVolumeBesideOthers(t *testing.T) {
	r, ctx := startRig(t, nil), t.Context()
	for _, id := range []string{"v", "w"} {
		_, err := r.NodeStageVolume(ctx, stageReq(id, "/s-"+id))
		wantCode(t, err, codes.OK)
	}
	const callers = 50
	hang, hanging := make(chan struct{}), make(chan struct{}, 2*callers)
	r.engine.hang = func(id string) {
		if id == "v" {
			hanging <- struct{}{}
			<-hang
		}
	}
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			_, err := r.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "v", VolumePath: "/s-v"})
			wantCode(t, err, codes.NotFound) // by now
		})
		all.Go(func() {
			_, err := nodeHealth(t, r, "v")
			wantCode(t, err, codes.NotFound)
		})
	}
	for range 2 * callers {
		<-hanging
	}
	in, cancel := context.WithTimeout(ctx, time.Minute) // for a test that fails
	defer cancel()
	_, err := r.NodeGetVolumeStats(in, &csi.NodeGetVolumeStatsRequest{VolumeId: "w", VolumePath: "/s-w"})
	wantCode(t, err, codes.OK)
	_, err = r.NodeGetVolumeHealth(in, &csi.NodeGetVolumeHealthRequest{VolumeId: "w"})
	wantCode(t, err, codes.OK)
	_, err = r.NodePublishVolume(in, publishReq("w", "/s-w", "/t-w"))
	wantCode(t, err, codes.OK)
	// Nor the volume itself: it can be taken off.
	_, err = r.NodeUnstageVolume(in, &csi.NodeUnstageVolumeRequest{VolumeId: "v", StagingTargetPath: "/s-v"})
	wantCode(t, err, codes.OK)
	_, err = r.Probe(in, &csi.ProbeRequest{})
	wantCode(t, err, codes.OK)
	close(hang)
	all.Wait()
}
