package check

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// TestUnreadySnapshots: nothing is made of a snapshot before it is ready to use; one
// that is ready, or that is deleted, is not asked for.
func TestUnreadySnapshots(t *testing.T) {
	var u Unready
	cut := &csi.CreateSnapshotRequest{Name: "a"}
	answer := func(id string, ready bool) *csi.CreateSnapshotResponse {
		return &csi.CreateSnapshotResponse{Snapshot: &csi.Snapshot{SnapshotId: id, ReadyToUse: ready}}
	}
	u.Note(cut, answer("s", false))
	u.Note(&csi.CreateSnapshotRequest{Name: "b"}, answer("r", true))
	u.Note(&csi.CreateVolumeGroupSnapshotRequest{Name: "g"}, &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: &csi.VolumeGroupSnapshot{Snapshots: []*csi.Snapshot{{SnapshotId: "m"}}}})
	asked := 0
	ask := func(_ context.Context, req proto.Message) {
		asked++
		if c, ok := req.(*csi.CreateSnapshotRequest); !ok || c.GetName() != "a" {
			t.Errorf("asked for %v", req)
		}
		u.Note(req, answer("s", asked == 2))
	}
	of := func(id string) *csi.CreateVolumeRequest {
		return &csi.CreateVolumeRequest{VolumeContentSource: &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id}}}}
	}
	for _, id := range []string{"r", "s", "s", "nobody"} {
		if err := u.Wait(t.Context(), of(id), ask); err != nil {
			t.Error(err)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	delta := &csi.GetMetadataDeltaRequest{BaseSnapshotId: "r", TargetSnapshotId: "m"}
	if err := u.Wait(over, delta, func(context.Context, proto.Message) {}); status.Code(err) != codes.Unavailable {
		t.Errorf("a snapshot that never gets ready: %v", err)
	}
	u.Note(&csi.DeleteSnapshotRequest{SnapshotId: "m"}, &csi.DeleteSnapshotResponse{})
	if err := u.Wait(over, delta, nil); err != nil {
		t.Errorf("a snapshot that is deleted: %v", err)
	}
}

// TestDeadDriver: one that a check has made end is a failure, is started again, and
// what the check had made is taken back; without somebody to start it the run ends.
func TestDeadDriver(t *testing.T) {
	run := func(restart bool) (map[string]Result, *plugin) {
		var dead atomic.Bool
		p := &plugin{}
		p.onProbe = func() error {
			if dead.Load() {
				return status.Error(codes.DeadlineExceeded, "dead")
			}
			return nil
		}
		return try(t, p, func(c *Config) {
			if restart {
				c.Restart = func(context.Context) error { dead.Store(false); return nil }
			}
		}, Check{ID: "X/kills", Clauses: "CV-01", Run: func(t *T) {
			t.NewVolume()
			dead.Store(true)
			t.Failf("CV-01", "no answer")
		}}, Check{ID: "X/next", Clauses: "CV-01", Run: func(t *T) { t.NewVolume() }}), p
	}
	got, p := run(true)
	if got["run/alive/X/kills"].Verdict != Fail || got["X/next"].Verdict != Pass || len(p.volumes) > 0 {
		t.Errorf("%+v\n%+v\nleft: %v", got["run/alive/X/kills"], got["X/next"], p.volumes)
	}
	got, _ = run(false)
	if got["run/alive/X/kills"].Verdict != Fail || got["X/next"].Verdict != NotRun || len(got["X/kills"].Left) == 0 {
		t.Errorf("%+v\n%+v", got["X/kills"], got["X/next"])
	}
}

// TestDoubt: a call that was UNAVAILABLE may have done something, which is taken
// back; that it had no proper arguments shows that it has not.
func TestDoubt(t *testing.T) {
	p := &plugin{}
	bad := &csi.ControllerPublishVolumeRequest{VolumeId: "v", NodeId: "\x00"}
	p.onAttach = func(n int) error {
		if n == 1 {
			return status.Error(codes.Unavailable, "in a moment")
		}
		return status.Error(codes.InvalidArgument, "no such node")
	}
	got := try(t, p, nil, Check{ID: "X/a", Clauses: "CP-01", Run: func(t *T) { t.Refused("CP-01", "of nothing", bad, codes.InvalidArgument) }})["X/a"]
	if got.Verdict != Pass {
		t.Errorf("%+v", got)
	}
	p = &plugin{onAttach: func(int) error { return nil }}
	got = try(t, p, nil, Check{ID: "X/a", Clauses: "CP-01", Run: func(t *T) { OK[*csi.ControllerPublishVolumeResponse](t, "CP-01", bad) }})["X/a"]
	if got.Verdict != Fail || len(got.Left) == 0 {
		t.Errorf("what was done cannot be undone: %+v", got)
	}
}

// TestCreatedAndNotFound: NOT_FOUND of what CreateVolume said OK of is CreateVolume's
// fault, perhaps.
func TestCreatedAndNotFound(t *testing.T) {
	p := &plugin{onAttach: func(int) error { return status.Error(codes.NotFound, "no such volume") }}
	for _, made := range []bool{true, false} {
		got := try(t, p, nil, Check{ID: "X/a", Clauses: "CP-01", Run: func(t *T) {
			req := &csi.ControllerPublishVolumeRequest{VolumeId: "v", NodeId: "n"}
			if made {
				req.VolumeId = OK[*csi.CreateVolumeResponse](t, "CV-01", t.CreateRequest()).GetVolume().GetVolumeId()
			}
			OK[*csi.ControllerPublishVolumeResponse](t, "CP-01", req)
		}})["X/a"]
		if got.Verdict != Fail || strings.Contains(fmt.Sprint(got), "CP-01 CV-01") != made {
			t.Errorf("made %t: %+v", made, got)
		}
	}
}

// TestEcho: what a driver repeats of too long a request is not its own.
func TestEcho(t *testing.T) {
	long := map[string]string{"k": strings.Repeat("x", 5000)}
	for _, echo := range []bool{true, false} {
		p := &plugin{context: map[string]string{"k": strings.Repeat("y", 5000)}}
		got := try(t, p, nil, Check{ID: "X/a", Clauses: "CV-01", Run: func(t *T) {
			req := t.CreateRequest()
			if req.Parameters = long; echo {
				p.context = long
			}
			OK[*csi.CreateVolumeResponse](t, "CV-01", req)
		}})["H-31/maps"]
		if want := map[bool]Verdict{true: Pass, false: Fail}[echo]; got.Verdict != want {
			t.Errorf("echo %t: %+v", echo, got)
		}
	}
}
