package csidriver

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
	"github.com/csikit/csikit/idempotency"
)

func (c *controller) CreateSnapshot(ctx context.Context, in *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	req, err := c.snapshotRequest(in)
	if err != nil {
		return nil, err
	}
	a, keys := asked{message: in}, []idempotency.Key{snapshotNameKey(req.Name), sharedIDKey(req.VolumeID)}
	if c.can.SnapshotIDer != nil {
		if a.id, err = c.can.SnapshotIDer.SnapshotID(snapshotCopy(req)); err != nil {
			return nil, err
		}
		keys = append(keys, snapshotKey(a.id))
	}
	op := operation("CreateSnapshot", req.Name, a, keys...)
	snap, err := do(ctx, c.Driver, op, func(ctx context.Context) (*backends.Snapshot, error) {
		return c.createSnapshot(ctx, req, a.id)
	})
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: c.answerSnapshot(snap)}, nil
}

func (c *controller) snapshotRequest(in *csi.CreateSnapshotRequest) (*backends.CreateSnapshotRequest, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	if in.GetAccessibilityRequirements() != nil && !c.features.snapshotTopology() {
		return nil, invalid("accessibility_requirements: this driver has no SNAPSHOT_ACCESSIBILITY_CONSTRAINTS")
	}
	req := pbconv.CreateSnapshot(in)
	req.Fingerprint = fingerprint(req.Parameters)
	return &req, checkRequirement(&c.traits, req.Topology)
}

// createSnapshot looks the name up first, as createVolume does; id is what a
// SnapshotIDer says, or "".
func (c *controller) createSnapshot(ctx context.Context, req *backends.CreateSnapshotRequest, id string) (*backends.Snapshot, error) {
	snap, err := c.findSnapshot(ctx, req, id)
	if snap != nil || err != nil {
		return snap, err
	}
	if _, err := c.volumeToUse(ctx, req.VolumeID, req.Secrets); err != nil {
		return nil, fmt.Errorf("source_volume_id: %w", err)
	}
	snap, err = c.can.Snapshotter.CreateSnapshot(ctx, snapshotCopy(req))
	if errors.Is(err, backends.ErrExists) {
		return c.findSnapshotAgain(ctx, req, id, err)
	}
	if err != nil {
		return nil, aboutSnapshot(err)
	}
	if err := checkCut(&c.traits, snap, req); err != nil {
		return nil, err
	}
	return snap, nil
}

// findSnapshot gives the snapshot of that name if it is what is asked for, nil if
// the name is free.
func (c *controller) findSnapshot(ctx context.Context, req *backends.CreateSnapshotRequest, id string) (*backends.Snapshot, error) {
	snap, err := c.can.Snapshotter.FindSnapshot(ctx, snapshotCopy(req))
	if gone(err, backends.KindSnapshot, namesOf(req.Name, id)...) {
		return nil, nil
	}
	if err != nil {
		return nil, unseen(aboutSnapshot(err), silent)
	}
	if err := checkSnapshot(&c.traits, snap); err != nil {
		return nil, err
	}
	if field, detail := snapshotDiffers(snap, req); field != "" {
		return nil, incompatible("snapshot", req.Name, field, detail)
	}
	return snap, nil
}

// findSnapshotAgain finds what another replica has made meanwhile.
func (c *controller) findSnapshotAgain(ctx context.Context, req *backends.CreateSnapshotRequest, id string, cause error) (*backends.Snapshot, error) {
	snap, err := c.findSnapshot(ctx, req, id)
	if err == nil && snap == nil {
		return nil, fmt.Errorf("snapshot %q is being made by somebody else: %w", req.Name, cause)
	}
	return snap, err
}

// namesOf are what a backend may call what it does not find: the name, or the ID
// that is known beforehand.
func namesOf(name, id string) []string {
	if id == "" {
		return []string{name}
	}
	return []string{name, id}
}

func snapshotCopy(req *backends.CreateSnapshotRequest) backends.CreateSnapshotRequest {
	r := *req
	r.Parameters = maps.Clone(req.Parameters)
	return r
}

func (c *controller) GetSnapshot(ctx context.Context, in *csi.GetSnapshotRequest) (*csi.GetSnapshotResponse, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	snap, err := c.snapshot(ctx, in.GetSnapshotId(), pbconv.Secrets(in.GetSecrets(), nil))
	if err != nil {
		return nil, err
	}
	return &csi.GetSnapshotResponse{Snapshot: c.answerSnapshot(snap)}, nil
}

// snapshot looks a snapshot up; only a not-found of this very ID is NOT_FOUND.
func (c *controller) snapshot(ctx context.Context, id string, secrets backends.Secrets) (*backends.Snapshot, error) {
	snap, err := c.can.Snapshotter.Snapshot(ctx, backends.SnapshotRequest{ID: id, Secrets: secrets})
	if err != nil {
		return nil, aboutSnapshot(err, id)
	}
	if err := checkSnapshot(&c.traits, snap); err != nil {
		return nil, err
	}
	if snap.ID != id {
		return nil, badAnswer("asked for snapshot %q, it gave %q", id, snap.ID)
	}
	return snap, nil
}

// answerSnapshot leaves out the alpha field when it must.
func (c *controller) answerSnapshot(snap *backends.Snapshot) *csi.Snapshot {
	out := pbconv.Snapshot(snap)
	if !c.features.snapshotTopology() {
		out.AccessibleTopology = nil
	}
	return out
}

func (c *controller) DeleteSnapshot(ctx context.Context, in *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	id := in.GetSnapshotId()
	op := operation("DeleteSnapshot", id, asked{message: in, id: id}, snapshotKey(id), readKey(id))
	req := backends.DeleteSnapshotRequest{ID: id, Secrets: pbconv.Secrets(in.GetSecrets(), nil)}
	if err := run(ctx, c.Driver, op, func(ctx context.Context) error { return c.deleteSnapshot(ctx, req) }); err != nil {
		return nil, err
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

func (c *controller) deleteSnapshot(ctx context.Context, req backends.DeleteSnapshotRequest) error {
	if err := c.deletedAlone(ctx, req); err != nil {
		return err
	}
	err := c.can.Snapshotter.DeleteSnapshot(ctx, req)
	if gone(err, backends.KindSnapshot, req.ID) {
		return nil
	}
	return aboutSnapshot(err, req.ID)
}

// deletedAlone refuses a member of a group. A snapshot that cannot be looked up
// may be half-made, and has to be deleted too: the backend knows.
func (c *controller) deletedAlone(ctx context.Context, req backends.DeleteSnapshotRequest) error {
	snap, err := c.snapshot(ctx, req.ID, req.Secrets)
	switch {
	case errors.Is(err, backends.ErrUnavailable), gone(err, backends.KindSnapshot, req.ID):
		return nil
	case err != nil:
		return err
	case snap.GroupID != "":
		return invalid("snapshot %q is a member of group snapshot %q, with which it is deleted", snap.ID, snap.GroupID)
	}
	return nil
}
