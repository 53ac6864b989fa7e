package backendtest

import (
	"context"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
)

// spoiled is backends/mem with methods that can be replaced. What is nil is
// mem's own.
type spoiled struct {
	*mem.Backend

	volumeID func(backends.CreateVolumeRequest) (string, error)
	check    func(context.Context, backends.CheckVolumeRequest) error
	volume   func(context.Context, backends.VolumeRequest) (*backends.Volume, error)
	find     func(context.Context, backends.CreateVolumeRequest) (*backends.Volume, error)
	create   func(context.Context, backends.CreateVolumeRequest) (*backends.Volume, error)
	remove   func(context.Context, backends.DeleteVolumeRequest) error
	expand   func(context.Context, backends.ExpandVolumeRequest) (int64, error)
	modify   func(context.Context, backends.ModifyVolumeRequest) error
	attach   func(context.Context, backends.AttachVolumeRequest) (map[string]string, error)
	detach   func(context.Context, backends.DetachVolumeRequest) error
	list     func(context.Context, backends.ListVolumesRequest) ([]*backends.Volume, string, error)

	snapshot       func(context.Context, backends.SnapshotRequest) (*backends.Snapshot, error)
	createSnapshot func(context.Context, backends.CreateSnapshotRequest) (*backends.Snapshot, error)
	removeSnapshot func(context.Context, backends.DeleteSnapshotRequest) error
	restore        func(context.Context, backends.Snapshot, backends.CreateVolumeRequest) (*backends.Volume, error)
	clone          func(context.Context, backends.Volume, backends.CreateVolumeRequest) (*backends.Volume, error)
	listSnapshots  func(context.Context, backends.ListSnapshotsRequest) ([]*backends.Snapshot, string, error)
	createGroup    func(context.Context, backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error)
	deleteGroup    func(context.Context, backends.DeleteGroupSnapshotRequest) error
	changed        func(context.Context, backends.ChangedBlocksRequest) (backends.BlockMap, error)

	capacity   func(context.Context, backends.CapacityRequest) (backends.Capacity, error)
	health     func(context.Context, backends.VolumeRequest) ([]backends.Health, error)
	listHealth func(context.Context, backends.ListVolumeHealthRequest) ([]backends.VolumeHealth, string, error)
	recovering func(context.Context) error

	open        func(context.Context, backends.OpenVolumeRequest) (*backends.Source, error)
	close       func(context.Context, backends.CloseVolumeRequest) error
	record      func(context.Context, backends.RecordFormatRequest) error
	topology    func(context.Context) (backends.Segments, error)
	recoverNode func(context.Context, []backends.OpenVolume) error
	ephemeral   func(context.Context, backends.CreateEphemeralRequest) (*backends.Volume, error)
	unephemeral func(context.Context, backends.DeleteEphemeralRequest) error
}

// either calls the replacement, if there is one.
func either[Req, Ans any](replaced, own func(context.Context, Req) (Ans, error), ctx context.Context, req Req) (Ans, error) {
	if replaced != nil {
		return replaced(ctx, req)
	}
	return own(ctx, req)
}

func run[Req any](replaced, own func(context.Context, Req) error, ctx context.Context, req Req) error {
	if replaced != nil {
		return replaced(ctx, req)
	}
	return own(ctx, req)
}

func (s *spoiled) VolumeID(req backends.CreateVolumeRequest) (string, error) {
	if s.volumeID != nil {
		return s.volumeID(req)
	}
	return s.Backend.VolumeID(req)
}

func (s *spoiled) CheckVolume(ctx context.Context, req backends.CheckVolumeRequest) error {
	return run(s.check, s.Backend.CheckVolume, ctx, req)
}

func (s *spoiled) Volume(ctx context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
	return either(s.volume, s.Backend.Volume, ctx, req)
}

func (s *spoiled) FindVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	return either(s.find, s.Backend.FindVolume, ctx, req)
}

func (s *spoiled) CreateVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	return either(s.create, s.Backend.CreateVolume, ctx, req)
}

func (s *spoiled) DeleteVolume(ctx context.Context, req backends.DeleteVolumeRequest) error {
	return run(s.remove, s.Backend.DeleteVolume, ctx, req)
}

func (s *spoiled) ExpandVolume(ctx context.Context, req backends.ExpandVolumeRequest) (int64, error) {
	return either(s.expand, s.Backend.ExpandVolume, ctx, req)
}

func (s *spoiled) ModifyVolume(ctx context.Context, req backends.ModifyVolumeRequest) error {
	return run(s.modify, s.Backend.ModifyVolume, ctx, req)
}

func (s *spoiled) AttachVolume(ctx context.Context, req backends.AttachVolumeRequest) (map[string]string, error) {
	return either(s.attach, s.Backend.AttachVolume, ctx, req)
}

func (s *spoiled) DetachVolume(ctx context.Context, req backends.DetachVolumeRequest) error {
	return run(s.detach, s.Backend.DetachVolume, ctx, req)
}

func (s *spoiled) ListVolumes(ctx context.Context, req backends.ListVolumesRequest) ([]*backends.Volume, string, error) {
	if s.list != nil {
		return s.list(ctx, req)
	}
	return s.Backend.ListVolumes(ctx, req)
}

func (s *spoiled) Snapshot(ctx context.Context, req backends.SnapshotRequest) (*backends.Snapshot, error) {
	return either(s.snapshot, s.Backend.Snapshot, ctx, req)
}

func (s *spoiled) CreateSnapshot(ctx context.Context, req backends.CreateSnapshotRequest) (*backends.Snapshot, error) {
	return either(s.createSnapshot, s.Backend.CreateSnapshot, ctx, req)
}

func (s *spoiled) DeleteSnapshot(ctx context.Context, req backends.DeleteSnapshotRequest) error {
	return run(s.removeSnapshot, s.Backend.DeleteSnapshot, ctx, req)
}

func (s *spoiled) RestoreSnapshot(ctx context.Context, snap backends.Snapshot, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	if s.restore != nil {
		return s.restore(ctx, snap, req)
	}
	return s.Backend.RestoreSnapshot(ctx, snap, req)
}

func (s *spoiled) CloneVolume(ctx context.Context, v backends.Volume, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	if s.clone != nil {
		return s.clone(ctx, v, req)
	}
	return s.Backend.CloneVolume(ctx, v, req)
}

func (s *spoiled) ListSnapshots(ctx context.Context, req backends.ListSnapshotsRequest) ([]*backends.Snapshot, string, error) {
	if s.listSnapshots != nil {
		return s.listSnapshots(ctx, req)
	}
	return s.Backend.ListSnapshots(ctx, req)
}

func (s *spoiled) CreateGroupSnapshot(ctx context.Context, req backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	return either(s.createGroup, s.Backend.CreateGroupSnapshot, ctx, req)
}

func (s *spoiled) DeleteGroupSnapshot(ctx context.Context, req backends.DeleteGroupSnapshotRequest) error {
	return run(s.deleteGroup, s.Backend.DeleteGroupSnapshot, ctx, req)
}

func (s *spoiled) ChangedBlocks(ctx context.Context, req backends.ChangedBlocksRequest) (backends.BlockMap, error) {
	return either(s.changed, s.Backend.ChangedBlocks, ctx, req)
}

func (s *spoiled) Capacity(ctx context.Context, req backends.CapacityRequest) (backends.Capacity, error) {
	return either(s.capacity, s.Backend.Capacity, ctx, req)
}

func (s *spoiled) VolumeHealth(ctx context.Context, req backends.VolumeRequest) ([]backends.Health, error) {
	return either(s.health, s.Backend.VolumeHealth, ctx, req)
}

func (s *spoiled) ListVolumeHealth(ctx context.Context, req backends.ListVolumeHealthRequest) ([]backends.VolumeHealth, string, error) {
	if s.listHealth != nil {
		return s.listHealth(ctx, req)
	}
	return s.Backend.ListVolumeHealth(ctx, req)
}

func (s *spoiled) RecoverController(ctx context.Context) error {
	if s.recovering != nil {
		return s.recovering(ctx)
	}
	return s.Backend.RecoverController(ctx)
}

func (s *spoiled) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	return either(s.open, s.Backend.OpenVolume, ctx, req)
}

func (s *spoiled) CloseVolume(ctx context.Context, req backends.CloseVolumeRequest) error {
	return run(s.close, s.Backend.CloseVolume, ctx, req)
}

func (s *spoiled) RecordFormat(ctx context.Context, req backends.RecordFormatRequest) error {
	return run(s.record, s.Backend.RecordFormat, ctx, req)
}

func (s *spoiled) NodeTopology(ctx context.Context) (backends.Segments, error) {
	if s.topology != nil {
		return s.topology(ctx)
	}
	return s.Backend.NodeTopology(ctx)
}

func (s *spoiled) RecoverNode(ctx context.Context, open []backends.OpenVolume) error {
	return run(s.recoverNode, s.Backend.RecoverNode, ctx, open)
}

func (s *spoiled) CreateEphemeral(ctx context.Context, req backends.CreateEphemeralRequest) (*backends.Volume, error) {
	return either(s.ephemeral, s.Backend.CreateEphemeral, ctx, req)
}

func (s *spoiled) DeleteEphemeral(ctx context.Context, req backends.DeleteEphemeralRequest) error {
	return run(s.unephemeral, s.Backend.DeleteEphemeral, ctx, req)
}
