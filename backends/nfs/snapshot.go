package nfs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/csikit/csikit/backends"
)

// paramConsistency is the parameter of a snapshot: of what moment its content is.
const (
	paramConsistency = "consistency"
	// consistencyFiles: each file is as it was at one moment while the snapshot was
	// made, as a backup program does it. For volumes in use.
	consistencyFiles = "files"
	// consistencyVolume: the whole volume is as its server had it when the snapshot was
	// asked for. If somebody writes to it before it is copied there is no snapshot.
	consistencyVolume = "volume"
)

// snapWait is how long CreateSnapshot waits for its copy: a small one is then ready
// at once, and the CO need not ask again.
const snapWait = time.Second

// snapPlan is a CreateSnapshotRequest, read.
type snapPlan struct {
	volume handle
	handle handle
}

func (b *Backend) snapPlan(req backends.CreateSnapshotRequest) (pl snapPlan, err error) {
	if pl.volume, err = b.open(req.VolumeID, req.Secrets); err != nil {
		return pl, err
	}
	pl.handle = handle{tag: snapshotTag, share: pl.volume.share, key: keyOf(req.Name)}
	return pl, pl.handle.fits()
}

// consistency reads the parameters of a snapshot.
func consistency(params map[string]string) (still bool, err error) {
	for k, v := range params {
		if k != paramConsistency || v != consistencyFiles && v != consistencyVolume {
			return false, fmt.Errorf("%w: snapshot parameter %s=%q: want %s=%s or %s", backends.ErrInvalid, k, v,
				paramConsistency, consistencyFiles, consistencyVolume)
		}
		still = v == consistencyVolume
	}
	return still, nil
}

// SnapshotID is pure.
func (b *Backend) SnapshotID(req backends.CreateSnapshotRequest) (string, error) {
	pl, err := b.snapPlan(req)
	return pl.handle.String(), err
}

// FindSnapshot looks a snapshot up by name, on the share of its volume. One that is
// still being copied is found, and not ready.
func (b *Backend) FindSnapshot(ctx context.Context, req backends.CreateSnapshotRequest) (*backends.Snapshot, error) {
	pl, err := b.snapPlan(req)
	if err != nil {
		return nil, err
	}
	m, err := b.snapMark(ctx, pl.handle, req.Name)
	if errors.Is(err, errLeaving) {
		return nil, backends.SnapshotNotFound(req.Name) // CreateSnapshot ends the deletion
	}
	if err != nil {
		return nil, err
	}
	if m.Name != req.Name {
		return nil, fmt.Errorf("%w: %s is snapshot %q", backends.ErrIncompatible, pl.handle, m.Name)
	}
	if m.Hook && m.State == stateCopying {
		return nil, backends.SnapshotNotFound(req.Name) // CreateSnapshot calls the hook again
	}
	return b.snapshotOf(m, pl.handle), nil
}

var errLeaving = errors.New("is being deleted")

// snapMark reads the record of a snapshot, and goes on with its copy if nobody does.
func (b *Backend) snapMark(ctx context.Context, h handle, name string) (*snapMark, error) {
	out, err := onShare[snapOut](ctx, b, h.share, "", opSnapFind, snapIn{b.where(), h.key})
	switch {
	case err != nil:
		return nil, fmt.Errorf("snapshot %s: %w", name, err)
	case out.Snap == nil:
		return nil, backends.SnapshotNotFound(name)
	case out.Snap.State == stateDeleting:
		return nil, unavailable("snapshot %s: %w", name, errLeaving)
	}
	b.resume(h.share, out.Snap)
	return out.Snap, nil
}

// Snapshot looks a snapshot up by ID.
func (b *Backend) Snapshot(ctx context.Context, req backends.SnapshotRequest) (*backends.Snapshot, error) {
	h, err := b.openSnapshot(req.ID, req.Secrets)
	if err != nil {
		return nil, err
	}
	m, err := b.snapMark(ctx, h, req.ID)
	if err != nil {
		return nil, err
	}
	if m.Hook && m.State == stateCopying {
		return nil, unavailable("snapshot %s was not made yet", req.ID)
	}
	return b.snapshotOf(m, h), nil
}

func (b *Backend) openSnapshot(id string, secrets backends.Secrets) (handle, error) {
	if err := b.serves(ControllerHalf); err != nil {
		return handle{}, err
	}
	h, err := b.decode(id, snapshotTag, backends.SnapshotNotFound(id))
	if err != nil {
		return handle{}, err
	}
	h.share, err = secretOptions(h.share, secrets)
	return h, err
}

func (b *Backend) snapshotOf(m *snapMark, h handle) *backends.Snapshot {
	return &backends.Snapshot{
		ID: handle{tag: snapshotTag, share: h.share, key: m.Key}.String(), Name: m.Name, VolumeID: m.VolumeID, Size: m.Size,
		Created: m.Created, Ready: m.State == stateReady, GroupID: m.Group, Fingerprint: m.Fingerprint,
	}
}

// CreateSnapshot begins a snapshot and, if it is small, ends it.
func (b *Backend) CreateSnapshot(ctx context.Context, req backends.CreateSnapshotRequest) (*backends.Snapshot, error) {
	pl, err := b.snapPlan(req)
	if err != nil {
		return nil, err
	}
	still, err := consistency(req.Parameters)
	if err != nil {
		return nil, err
	}
	m, err := b.beginSnapshot(ctx, pl, req, still)
	if err != nil {
		return nil, fmt.Errorf("create snapshot %q of volume %s: %w", req.Name, req.VolumeID, err)
	}
	if b.o.HookSnapshots {
		if err := b.hookSnapshot(ctx, pl.handle.share, m.Key, []*snapMark{m}); err != nil {
			return nil, fmt.Errorf("create snapshot %q: %w", req.Name, err)
		}
	} else {
		b.resume(pl.handle.share, m)
		b.jobs.wait(ctx, pl.handle.String(), snapWait)
	}
	out, err := onShare[snapOut](ctx, b, pl.handle.share, "", opSnapFind, snapIn{b.where(), m.Key})
	if err != nil {
		return nil, err
	}
	if out.Snap == nil {
		// Its copy found that there is nothing to copy, or that it was written to.
		return nil, unavailable("snapshot %q: %w", req.Name, b.jobs.lost(pl.handle.String()))
	}
	return b.snapshotOf(out.Snap, pl.handle), nil
}

func (b *Backend) beginSnapshot(ctx context.Context, pl snapPlan, req backends.CreateSnapshotRequest, still bool) (*snapMark, error) {
	in := snapBeginIn{where: b.where(), Snap: snapMark{
		Key: pl.handle.key, Name: req.Name, VolumeID: req.VolumeID, VolumeKey: pl.volume.key, Fingerprint: req.Fingerprint,
		Still: still, Hook: b.o.HookSnapshots,
	}}
	if pl.volume.legacy() {
		in.Snap.Legacy, in.Snap.SubDir, in.Snap.VolumeKey = true, pl.volume.subDir, legacyKey(pl.volume.subDir)
	}
	if b.o.HookSnapshots {
		if err := b.endDeletion(ctx, pl.handle); err != nil {
			return nil, err
		}
	}
	m, err := onShare[*snapMark](ctx, b, pl.handle.share, "", opSnapBegin, in)
	if errors.Is(err, backends.ErrExists) && b.o.HookSnapshots {
		// Begun, and the hook did not end.
		out, err := onShare[snapOut](ctx, b, pl.handle.share, "", opSnapFind, snapIn{b.where(), pl.handle.key})
		if err == nil && out.Snap == nil {
			err = unavailable("it comes and goes")
		}
		return out.Snap, err
	}
	return m, err
}

// endDeletion ends the deletion of a snapshot of the hook's that an earlier call began.
func (b *Backend) endDeletion(ctx context.Context, h handle) error {
	out, err := onShare[snapOut](ctx, b, h.share, "", opSnapFind, snapIn{b.where(), h.key})
	if err != nil || out.Snap == nil || out.Snap.State != stateDeleting {
		return err
	}
	return b.deleteSnapshots(ctx, h.share, h.key, []string{h.key})
}

// RestoreSnapshot makes a volume of a snapshot.
func (b *Backend) RestoreSnapshot(ctx context.Context, snap backends.Snapshot, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	pl, err := b.plan(req)
	if err != nil {
		return nil, err
	}
	h, err := b.openSnapshot(snap.ID, req.Secrets)
	if err != nil {
		return nil, err
	}
	if !h.share.same(pl.share) {
		return nil, fmt.Errorf("%w: snapshot %s is on share %s, and a volume of it on %s was asked for", backends.ErrInvalid, snap.ID, h.share, pl.share)
	}
	if _, err := b.snapMark(ctx, h, snap.ID); err != nil {
		return nil, err
	}
	return b.create(ctx, req, makeIn{FromSnap: h.key}, &origin{SnapshotID: snap.ID})
}

// DeleteSnapshot deletes a snapshot that is no group's member.
func (b *Backend) DeleteSnapshot(ctx context.Context, req backends.DeleteSnapshotRequest) error {
	h, err := b.openSnapshot(req.ID, req.Secrets)
	if err != nil {
		return err
	}
	out, err := onShare[snapOut](ctx, b, h.share, "", opSnapFind, snapIn{b.where(), h.key})
	switch {
	case err != nil:
		return fmt.Errorf("delete snapshot %s: %w", req.ID, err)
	case out.Snap == nil:
		return backends.SnapshotNotFound(req.ID)
	case out.Snap.Group != "":
		return fmt.Errorf("%w: snapshot %s is deleted with its group %s", backends.ErrPrecondition, req.ID, out.Snap.Group)
	}
	return b.deleteSnapshots(ctx, h.share, h.key, []string{h.key})
}

// deleteSnapshots deletes the snapshots that were made under one name of the hook's,
// or a single one.
func (b *Backend) deleteSnapshots(ctx context.Context, s Share, name string, keys []string) error {
	hook := false
	for _, key := range keys {
		if err := b.jobs.stop(ctx, handle{tag: snapshotTag, share: s, key: key}.String()); err != nil {
			return err
		}
		out, err := onShare[snapOut](ctx, b, s, "", opSnapDelete, snapDeleteIn{where: b.where(), Key: key})
		if err != nil {
			return fmt.Errorf("delete snapshot %s: %w", key, err)
		}
		hook = hook || out.Snap != nil && out.Snap.Hook
	}
	if hook {
		if err := b.hookDelete(ctx, s, name); err != nil {
			return err
		}
		for _, key := range keys {
			if _, err := onShare[snapOut](ctx, b, s, "", opSnapDelete, snapDeleteIn{where: b.where(), Key: key, Finish: true}); err != nil {
				return fmt.Errorf("delete snapshot %s: %w", key, err)
			}
		}
	}
	b.purge(s)
	return nil
}

var (
	_ backends.Snapshotter  = (*Backend)(nil)
	_ backends.SnapshotIDer = (*Backend)(nil)
	_ backends.Recoverer    = (*Backend)(nil)
)
