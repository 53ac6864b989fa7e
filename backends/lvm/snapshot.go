package lvm

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/csikit/csikit/backends"
)

// Snapshots are cut in one command, with the file system of the volume frozen
// meanwhile by device-mapper. Those of thin pools are independent of their volume from
// then on; those of other volumes (thick.go) keep it from being deleted, and from
// growing while it is in use.

// SnapshotID follows from the volume's class and the name.
func (b *Backend) SnapshotID(req backends.CreateSnapshotRequest) (string, error) {
	class, _, ok := splitID(req.VolumeID, kindVolume)
	if !ok {
		return "", backends.VolumeNotFound(req.VolumeID)
	}
	return makeID(class, nameOf(kindSnapshot, req.Name)), nil
}

// Snapshot looks a snapshot up by ID.
func (b *Backend) Snapshot(ctx context.Context, req backends.SnapshotRequest) (*backends.Snapshot, error) {
	_, v, err := b.ready(ctx, req.ID, kindSnapshot)
	if err != nil {
		return nil, err
	}
	return b.publicSnapshot(v), nil
}

// FindSnapshot looks a snapshot up by name, in all classes.
func (b *Backend) FindSnapshot(ctx context.Context, req backends.CreateSnapshotRequest) (*backends.Snapshot, error) {
	looks := map[string]*group{}
	for _, c := range b.order {
		g := looks[c.VG]
		if g == nil {
			var err error
			if g, err = b.look(ctx, c); err != nil {
				return nil, err
			}
			looks[c.VG] = g
		}
		v, err := g.find(c.Name, nameOf(kindSnapshot, req.Name))
		if err != nil {
			return nil, err
		}
		if v != nil && v.stateOf() == stateReady {
			return b.publicSnapshot(v), nil
		}
	}
	for _, g := range looks {
		if err := b.astray(g, kindSnapshot, req.Name); err != nil {
			return nil, err
		}
	}
	return nil, backends.SnapshotNotFound(req.Name)
}

func (b *Backend) publicSnapshot(v *volume) *backends.Snapshot {
	s := &backends.Snapshot{
		ID: v.id(), Name: v.own.Name, VolumeID: v.own.Source, Size: v.content(), Created: v.own.Created, Ready: !v.invalid,
		Topology: []backends.Segments{b.segments()}, Fingerprint: v.own.Fingerprint,
	}
	if v.own.Group != "" {
		s.Name, s.Fingerprint, s.GroupID = "", "", groupID(v.own.Group)
	}
	return s
}

// CreateSnapshot cuts a volume. One that is not thin needs space in the VG for it.
func (b *Backend) CreateSnapshot(ctx context.Context, req backends.CreateSnapshotRequest) (*backends.Snapshot, error) {
	if err := b.serves(ControllerHalf); err != nil {
		return nil, err
	}
	if err := checkName(req.Name, req.Fingerprint); err != nil {
		return nil, err
	}
	if !req.Topology.Permits(b.segments()) {
		return nil, fmt.Errorf("%w: snapshots are where their volumes are, on node %s", backends.ErrNoSpace, b.o.Node)
	}
	c, origin, err := b.ready(ctx, req.VolumeID, kindVolume)
	if err != nil {
		return nil, err
	}
	space, err := snapshotSpace(req.Parameters, origin)
	if err != nil {
		return nil, err
	}
	v, err := b.make(ctx, &plan{c: c, size: origin.size, origin: origin, space: space, m: meta{
		Class: c.Name, Kind: kindSnapshot, Name: req.Name, State: stateCreating, Fingerprint: req.Fingerprint,
		Source: req.VolumeID, Created: b.now(),
	}})
	if err != nil {
		return nil, err
	}
	return b.publicSnapshot(v), nil
}

// DeleteSnapshot removes it. Volumes that were made of it, and its own, stay whole.
func (b *Backend) DeleteSnapshot(ctx context.Context, req backends.DeleteSnapshotRequest) error {
	if err := b.serves(ControllerHalf); err != nil {
		return err
	}
	uuid := ""
	err := b.delete(ctx, req.ID, kindSnapshot, func(v *volume) error {
		if v.own.Group != "" {
			return fmt.Errorf("%w: snapshot %s is deleted with its group %s", backends.ErrPrecondition, req.ID, groupID(v.own.Group))
		}
		uuid = v.uuid
		return nil
	})
	if err == nil {
		b.orphans(ctx, uuid)
	}
	return err
}

// orphans takes away, in the background, the half-made copies of snapshots that are
// gone: nobody can go on with them, and who asks for them again is told that there is
// no such snapshot.
func (b *Backend) orphans(ctx context.Context, uuids ...string) {
	for _, c := range b.groups() {
		g, err := b.peek(ctx, c)
		if err != nil {
			b.log.Warn("half-made copies stay until the next start", "vg", c.VG, "err", err)
			continue
		}
		for _, v := range g.lvs {
			if v.ours() && b.has(v) && v.own.State == stateCreating && slices.Contains(uuids, v.own.OriginUUID) {
				b.jobs.Go(func() { b.finish(v) })
			}
		}
	}
}

// ListSnapshots lists as ListVolumes does.
func (b *Backend) ListSnapshots(ctx context.Context, req backends.ListSnapshotsRequest) ([]*backends.Snapshot, string, error) {
	if err := b.serves(ControllerHalf); err != nil {
		return nil, "", err
	}
	page, next, err := b.page(ctx, kindSnapshot, req.VolumeID, req.Page, b.peek)
	if err != nil {
		return nil, "", err
	}
	var snaps []*backends.Snapshot
	for _, v := range page {
		snaps = append(snaps, b.publicSnapshot(v))
	}
	return snaps, next, nil
}

// RestoreSnapshot makes a volume that shares the snapshot's blocks, where both are in
// one thin pool; else they are copied.
func (b *Backend) RestoreSnapshot(ctx context.Context, snap backends.Snapshot, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	return b.copy(ctx, snap.ID, kindSnapshot, req)
}

// CloneVolume makes a volume with what another has now, as RestoreSnapshot does.
func (b *Backend) CloneVolume(ctx context.Context, source backends.Volume, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	return b.copy(ctx, source.ID, kindVolume, req)
}

func (b *Backend) copy(ctx context.Context, id, kind string, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	if err := b.serves(ControllerHalf); err != nil {
		return nil, err
	}
	p, err := b.plan(req)
	if err != nil {
		return nil, err
	}
	of, origin, err := b.ready(ctx, id, kind)
	if err != nil {
		return nil, err
	}
	p.m.Source = id
	p.size = max(p.size, origin.content())
	var v *volume
	if origin.pool != "" && p.c.thin() && p.c.VG == of.VG && p.c.ThinPool == origin.pool {
		p.origin = origin
		v, err = b.make(ctx, p)
	} else {
		v, err = b.transfer(ctx, p, of, origin)
	}
	if err != nil {
		return nil, err
	}
	return b.public(v), nil
}

// settle gives a copy, which nobody has seen yet, what it has besides the blocks of
// its origin: its size, and what is known of its format. That is read after the
// cut: if mkfs was not done then, it was not when the blocks were shared either. To
// take an older word for it could have the copy formatted, with data in it.
func (b *Backend) settle(ctx context.Context, p *plan) error {
	g, err := b.look(context.WithoutCancel(ctx), p.c)
	if err != nil {
		return err
	}
	var origin *volume
	for _, v := range g.lvs {
		if v.uuid == p.origin.uuid {
			origin = v
		}
	}
	if origin == nil || !origin.ours() {
		return fmt.Errorf("%w: logical volume %s is gone after it was copied", backends.ErrUnavailable, p.origin.path())
	}
	p.m.Format = origin.own.Format
	v, err := g.find(p.c.Name, p.lv())
	if err != nil {
		return err
	}
	if v == nil {
		return fmt.Errorf("%w: logical volume %s is not there after it was made", backends.ErrUnavailable, p.path())
	}
	if p.m.Kind == kindSnapshot || v.size >= p.extents*g.extent {
		return nil
	}
	err = b.tool.change(ctx, p.c.VG, "lvextend", "--extents", strconv.FormatInt(p.extents, 10), p.path())
	b.step("create:extended")
	return err
}
