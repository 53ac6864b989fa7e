package walk

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// listedSnapshot looks for the snapshot wherever the driver can show it.
func (s *snapshot) listedSnapshot(ctx context.Context) error {
	if s.can.controller[csi.ControllerServiceCapability_RPC_GET_SNAPSHOT] {
		resp, err := call(ctx, s.Walk, "GetSnapshot", "", s.controller.GetSnapshot, &csi.GetSnapshotRequest{SnapshotId: s.id(), Secrets: s.o.Secrets})
		if err != nil {
			return err
		}
		if err := s.same("GetSnapshot", resp.GetSnapshot()); err != nil {
			return err
		}
	}
	for _, filter := range []*csi.ListSnapshotsRequest{{}, {SnapshotId: s.id()}, {SourceVolumeId: s.of.id()}} {
		if err := s.inList(ctx, filter, true); err != nil {
			return err
		}
	}
	return nil
}

// inList looks for the snapshot in the pages of ListSnapshots, and at what the
// filter should have kept out.
func (s *snapshot) inList(ctx context.Context, filter *csi.ListSnapshotsRequest, want bool) error {
	if !s.can.controller[csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS] {
		return nil
	}
	what := filterText(filter)
	all, found := 0, 0
	err := pages("ListSnapshots", func(token string) (string, error) {
		resp, err := call(ctx, s.Walk, "ListSnapshots", what, s.controller.ListSnapshots, &csi.ListSnapshotsRequest{
			StartingToken: token, SnapshotId: filter.GetSnapshotId(), SourceVolumeId: filter.GetSourceVolumeId(), Secrets: s.o.Secrets,
		})
		for _, e := range resp.GetEntries() {
			all++
			if err := s.entry(filter, e.GetSnapshot(), &found); err != nil {
				return "", err
			}
		}
		return resp.GetNextToken(), err
	})
	if err != nil {
		return err
	}
	s.See("%d snapshots", all)
	if want != (found == 1) || found > 1 {
		return fmt.Errorf("ListSnapshots (%s) has snapshot %s %d times", what, s.id(), found)
	}
	return nil
}

func (s *snapshot) entry(filter *csi.ListSnapshotsRequest, got *csi.Snapshot, found *int) error {
	if id := filter.GetSnapshotId(); id != "" && got.GetSnapshotId() != id {
		return fmt.Errorf("ListSnapshots was asked for snapshot %q and answers %q", id, got.GetSnapshotId())
	}
	if id := filter.GetSourceVolumeId(); id != "" && got.GetSourceVolumeId() != id {
		return fmt.Errorf("ListSnapshots was asked for snapshots of volume %q and answers one of %q", id, got.GetSourceVolumeId())
	}
	if got.GetSnapshotId() != s.id() {
		return nil
	}
	*found++
	return s.same("ListSnapshots", got)
}

func filterText(r *csi.ListSnapshotsRequest) string {
	switch {
	case r.GetSnapshotId() != "":
		return "by snapshot_id"
	case r.GetSourceVolumeId() != "":
		return "by source_volume_id"
	}
	return "all"
}

// goneSnapshot: nobody tells of a snapshot that was deleted.
func (s *snapshot) goneSnapshot(ctx context.Context) error {
	if s.can.controller[csi.ControllerServiceCapability_RPC_GET_SNAPSHOT] {
		_, err := try(ctx, s.Walk, "GetSnapshot", "is it gone?", s.controller.GetSnapshot, &csi.GetSnapshotRequest{SnapshotId: s.id(), Secrets: s.o.Secrets})
		if status.Code(err) != codes.NotFound {
			return fmt.Errorf("GetSnapshot of a snapshot that was deleted: want NotFound, got %w", orOK(err))
		}
	}
	if err := s.inList(ctx, &csi.ListSnapshotsRequest{}, false); err != nil {
		return err
	}
	return s.inList(ctx, &csi.ListSnapshotsRequest{SnapshotId: s.id()}, false)
}
