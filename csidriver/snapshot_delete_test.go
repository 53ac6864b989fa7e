package csidriver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/backends"
)

func deleteSnapshot(id string) *csi.DeleteSnapshotRequest {
	return &csi.DeleteSnapshotRequest{SnapshotId: id}
}

func TestDeleteSnapshot(t *testing.T) {
	for name, tc := range map[string]struct {
		failure error
		want    codes.Code
	}{
		"unknown":                     {backends.SnapshotNotFound("x"), codes.OK},
		"unknown, wrapped":            {fmt.Errorf("rm: %w", backends.SnapshotNotFound("x")), codes.OK},
		"something else is not there": {backends.SnapshotNotFound("pool"), codes.Unavailable},
		"a volume is not there":       {backends.VolumeNotFound("x"), codes.Unavailable},
		"not found, in doubt":         {errors.Join(backends.SnapshotNotFound("x"), backends.ErrUnavailable), codes.Unavailable},
		"in use":                      {backends.ErrInUse, codes.FailedPrecondition},
		"no kind":                     {errors.New("exit status 5"), codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := startData(t, func(s *setup, _ *data) {
				s.backend.hook = hookOn("DeleteSnapshot", func(context.Context) error { return tc.failure })
			})
			_, err := r.DeleteSnapshot(t.Context(), deleteSnapshot("x"))
			wantCode(t, err, tc.want)
		})
	}
}

func TestDeleteSnapshotTwice(t *testing.T) {
	r, d := startData(t, nil)
	addVolumes(t, r, "v")
	_, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
	wantCode(t, err, codes.OK)
	for range 2 {
		_, err = r.DeleteSnapshot(t.Context(), deleteSnapshot("sid-s"))
		wantCode(t, err, codes.OK)
	}
	if len(d.snapshots) != 0 {
		t.Errorf("left: %v", d.snapshots)
	}
	_, err = r.DeleteSnapshot(t.Context(), deleteSnapshot(""))
	wantCode(t, err, codes.InvalidArgument, "snapshot_id is required")
}

// TestDeleteSnapshotHalfMade: what cannot be looked up has to go too; what nobody
// can say anything about stays.
func TestDeleteSnapshotHalfMade(t *testing.T) {
	for want, failure := range map[codes.Code]error{
		codes.OK:               fmt.Errorf("half-made: %w", backends.ErrUnavailable),
		codes.PermissionDenied: backends.ErrPermission,
	} {
		r, d := startData(t, func(s *setup, _ *data) {
			s.backend.hook = hookOn("Snapshot", func(context.Context) error { return failure })
		})
		d.change("x", func(s *backends.Snapshot) { s.ID = "x" })
		_, err := r.DeleteSnapshot(t.Context(), deleteSnapshot("x"))
		wantCode(t, err, want)
		if left := len(d.snapshots) > 0; left == (want == codes.OK) {
			t.Errorf("%v: left %v", failure, d.snapshots)
		}
	}
}

// TestDeleteSnapshotNegatesCreate: the backend says the ID beforehand.
func TestDeleteSnapshotNegatesCreate(t *testing.T) {
	begun := make(chan struct{})
	r, _ := startData(t, func(s *setup, _ *data) {
		s.backend.hook = hookOn("CreateSnapshot", func(ctx context.Context) error {
			close(begun)
			<-ctx.Done()
			return errors.New("signal: killed")
		})
	})
	addVolumes(t, r, "v")
	created := make(chan error, 1)
	go func() {
		_, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-v"))
		created <- err
	}()
	<-begun
	_, err := r.DeleteSnapshot(t.Context(), deleteSnapshot("sid-s"))
	wantCode(t, err, codes.OK)
	wantCode(t, <-created, codes.Aborted)
}

func (d *data) addSnapshots(n int, volume string) {
	for i := range n {
		id := fmt.Sprintf("s%06d", i)
		if i%2 == 1 {
			id += volume
		}
		d.change(id, func(s *backends.Snapshot) {
			s.ID, s.VolumeID, s.Created = id, volume, testStart
			if i%2 == 0 {
				s.VolumeID = "other"
			}
		})
	}
}

// listSnapshots walks the pages.
func listSnapshots(t *testing.T, r *rig, req *csi.ListSnapshotsRequest) (ids []string, pages int) {
	t.Helper()
	for pages = 1; ; pages++ {
		resp, err := r.ListSnapshots(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if n := int(req.GetMaxEntries()); n > 0 && len(resp.GetEntries()) > n {
			t.Errorf("%d entries, %d were allowed", len(resp.GetEntries()), n)
		}
		for _, e := range resp.GetEntries() {
			ids = append(ids, e.GetSnapshot().GetSnapshotId())
		}
		if req.StartingToken = resp.GetNextToken(); req.StartingToken == "" {
			return ids, pages
		}
	}
}

func TestListSnapshots(t *testing.T) {
	r, d := startData(t, nil)
	d.addSnapshots(10, "v")
	for limit, want := range map[int32]int{0: 1, 1: 10, 3: 4, 9: 2, 10: 1, 11: 1} {
		if ids, pages := listSnapshots(t, r, &csi.ListSnapshotsRequest{MaxEntries: limit}); len(ids) != 10 || pages != want {
			t.Errorf("max_entries %d: %d snapshots on %d pages, want %d", limit, len(ids), pages, want)
		}
	}
	for name, tc := range map[string]struct {
		req  *csi.ListSnapshotsRequest
		want int
	}{
		"of a volume":            {&csi.ListSnapshotsRequest{SourceVolumeId: "v", MaxEntries: 3}, 5},
		"of no volume":           {&csi.ListSnapshotsRequest{SourceVolumeId: "nothing"}, 0},
		"by ID":                  {&csi.ListSnapshotsRequest{SnapshotId: "s000001v"}, 1},
		"by an unknown ID":       {&csi.ListSnapshotsRequest{SnapshotId: "nothing"}, 0},
		"by ID, of a volume":     {&csi.ListSnapshotsRequest{SnapshotId: "s000001v", SourceVolumeId: "v"}, 1},
		"by ID, of another":      {&csi.ListSnapshotsRequest{SnapshotId: "s000001v", SourceVolumeId: "w"}, 0},
		"by ID, however limited": {&csi.ListSnapshotsRequest{SnapshotId: "s000001v", MaxEntries: 1}, 1},
	} {
		if ids, _ := listSnapshots(t, r, tc.req); len(ids) != tc.want {
			t.Errorf("%s: %q", name, ids)
		}
	}
	for _, token := range []string{"garbage", strings.Repeat("t", 1000)} {
		_, err := r.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{StartingToken: token})
		wantCode(t, err, codes.Aborted)
	}
	_, err := r.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{StartingToken: "s000000", SnapshotId: "s000000"})
	wantCode(t, err, codes.Aborted)
	_, err = r.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{MaxEntries: -1})
	wantCode(t, err, codes.InvalidArgument, "max_entries is negative")
	d.hook = hookOn("Snapshot", func(context.Context) error {
		return errors.Join(backends.SnapshotNotFound("x"), backends.ErrUnavailable)
	})
	_, err = r.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{SnapshotId: "x"})
	wantCode(t, err, codes.Unavailable)
	d.change("bad", func(s *backends.Snapshot) { s.ID = "bad" })
	_, err = r.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{})
	wantCode(t, err, codes.Internal, "names no volume")
	d.hook = hookOn("ListSnapshots", func(context.Context) error { return backends.SnapshotNotFound("x") })
	_, err = r.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{})
	wantCode(t, err, codes.Internal)
}
