package crash

import (
	"context"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// snapshot makes one and, as external-snapshotter does, asks until it is ready.
func (e *env) snapshot(name string, of *volume) func(context.Context) error {
	return func(ctx context.Context) error {
		for {
			resp, err := e.controller().CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: of.id()})
			if err != nil {
				return err
			}
			if resp.GetSnapshot().GetReadyToUse() {
				return e.note(name, resp.GetSnapshot().GetSnapshotId())
			}
			if err := pause(ctx); err != nil {
				return err
			}
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(10 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

func (e *env) deleteSnapshot(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := e.controller().DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: e.id(name)})
		return err
	}
}

// group snapshots volumes at one moment, until all members are ready.
func (e *env) group(name string, of ...*volume) func(context.Context) error {
	return func(ctx context.Context) error {
		var ids []string
		for _, v := range of {
			ids = append(ids, v.id())
		}
		for {
			resp, err := csi.NewGroupControllerClient(e.Conn()).CreateVolumeGroupSnapshot(ctx,
				&csi.CreateVolumeGroupSnapshotRequest{Name: name, SourceVolumeIds: ids})
			if err != nil {
				return err
			}
			g := resp.GetGroupSnapshot()
			if len(g.GetSnapshots()) != len(of) {
				return status.Errorf(codes.Internal, "%d members", len(g.GetSnapshots()))
			}
			if g.GetReadyToUse() {
				return e.noteGroup(name, g, of)
			}
			if err := pause(ctx); err != nil {
				return err
			}
		}
	}
}

func (e *env) noteGroup(name string, g *csi.VolumeGroupSnapshot, of []*volume) error {
	for _, v := range of {
		for _, m := range g.GetSnapshots() {
			if m.GetSourceVolumeId() != v.id() {
				continue
			}
			if err := e.note(name+" "+v.name, m.GetSnapshotId()); err != nil {
				return err
			}
		}
	}
	return e.note(name, g.GetGroupSnapshotId())
}

func (e *env) deleteGroup(name string, of ...*volume) func(context.Context) error {
	return func(ctx context.Context) error {
		var ids []string
		for _, v := range of {
			ids = append(ids, e.id(name+" "+v.name))
		}
		_, err := csi.NewGroupControllerClient(e.Conn()).DeleteVolumeGroupSnapshot(ctx,
			&csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: e.id(name), SnapshotIds: ids})
		return err
	}
}

// restored is a volume of a snapshot.
func (e *env) restored(name, snapshot string) *volume {
	v := e.volume(name, "ext4")
	v.from = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: e.id(snapshot)}}}
	return v
}

// cloned is a volume of another one.
func (e *env) cloned(name string, of *volume) *volume {
	v := e.volume(name, of.fsType)
	v.from = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: of.id()}}}
	return v
}

// holds restores a snapshot and looks whether it has what was written to a volume.
func (e *env) holds(snapshot string, of *volume) error {
	v := e.restored("look-at-"+of.name, snapshot)
	if err := e.steps(step{"restore", v.create}); err != nil {
		return err
	}
	if err := v.has(of.name); err != nil {
		return fmt.Errorf("snapshot %s: %w", snapshot, err)
	}
	return e.steps(step{"delete", v.remove})
}
