package csidriver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

// snapshotMetadata serves the SnapshotMetadata service.
type snapshotMetadata struct {
	csi.UnimplementedSnapshotMetadataServer
	*controller
}

func (m *snapshotMetadata) GetMetadataAllocated(in *csi.GetMetadataAllocatedRequest, stream csi.SnapshotMetadata_GetMetadataAllocatedServer) error {
	req := backends.ChangedBlocksRequest{
		Target:  in.GetSnapshotId(),
		Offset:  in.GetStartingOffset(),
		Secrets: pbconv.Secrets(in.GetSecrets(), nil),
	}
	return m.send(stream.Context(), in, req, func(w *blockWriter) error {
		return stream.Send(&csi.GetMetadataAllocatedResponse{
			BlockMetadataType: w.kind, VolumeCapacityBytes: w.volume, BlockMetadata: w.blocks,
		})
	})
}

func (m *snapshotMetadata) GetMetadataDelta(in *csi.GetMetadataDeltaRequest, stream csi.SnapshotMetadata_GetMetadataDeltaServer) error {
	req := backends.ChangedBlocksRequest{
		Base:    in.GetBaseSnapshotId(),
		Target:  in.GetTargetSnapshotId(),
		Offset:  in.GetStartingOffset(),
		Secrets: pbconv.Secrets(in.GetSecrets(), nil),
	}
	return m.send(stream.Context(), in, req, func(w *blockWriter) error {
		return stream.Send(&csi.GetMetadataDeltaResponse{
			BlockMetadataType: w.kind, VolumeCapacityBytes: w.volume, BlockMetadata: w.blocks,
		})
	})
}

// metadataRequest is what both requests have.
type metadataRequest interface {
	proto.Message
	GetMaxResults() int32
}

// send validates, and holds the snapshots while their blocks are sent.
func (m *snapshotMetadata) send(ctx context.Context, in metadataRequest, req backends.ChangedBlocksRequest, send func(*blockWriter) error) error {
	if err := m.validator.check(in); err != nil {
		return err
	}
	if req.Offset < 0 {
		return outOfRange("starting_offset is negative")
	}
	return m.reading(ctx, in, &req, func(ctx context.Context) error { return m.sendBlocks(ctx, in, req, send) })
}

// sendBlocks looks the snapshots up and writes what the backend finds.
func (m *snapshotMetadata) sendBlocks(ctx context.Context, in metadataRequest, req backends.ChangedBlocksRequest, send func(*blockWriter) error) error {
	if err := m.checkSnapshots(ctx, &req); err != nil {
		return err
	}
	found, err := m.can.ChangedBlockTracker.ChangedBlocks(ctx, req)
	if err != nil {
		return aboutSnapshot(err, req.Target, req.Base)
	}
	w, err := newBlockWriter(found, req.Offset, int(in.GetMaxResults()), send)
	if err != nil {
		return err
	}
	return aboutSnapshot(w.writeAll(ctx, found.Blocks), req.Target, req.Base)
}

// checkSnapshots wants both snapshots to be there, of one volume, in the order of
// time.
func (m *snapshotMetadata) checkSnapshots(ctx context.Context, req *backends.ChangedBlocksRequest) error {
	target, err := m.snapshot(ctx, req.Target, req.Secrets)
	if err != nil || req.Base == "" {
		return err
	}
	base, err := m.snapshot(ctx, req.Base, req.Secrets)
	switch {
	case err != nil:
		return err
	case base.VolumeID != target.VolumeID:
		return invalid("base_snapshot_id is of volume %q, target_snapshot_id of %q", base.VolumeID, target.VolumeID)
	case base.Created.After(target.Created):
		return invalid("base_snapshot_id is younger than target_snapshot_id")
	}
	return nil
}
