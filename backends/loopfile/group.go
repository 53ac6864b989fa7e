package loopfile

import (
	"context"
	"fmt"

	"github.com/csikit/csikit/backends"
)

// GroupSnapshot looks a group up by ID.
func (b *Backend) GroupSnapshot(_ context.Context, req backends.GroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	p, done, err := b.enter(0)
	if err != nil {
		return nil, err
	}
	defer done()
	s, err := p.groupSet(req.ID)
	if err != nil {
		return nil, err
	}
	if err := s.read(backends.GroupNotFound(req.ID)); err != nil {
		return nil, err
	}
	b.resume(p, s)
	return b.groupOf(s), nil
}

// groupSet is the set that an ID speaks of.
func (p *pool) groupSet(id string) (*set, error) {
	name, parent, dir, volume, ok := splitSnapshotID(id)
	switch {
	case !ok || parent != groupsDir || volume != "":
		return nil, backends.GroupNotFound(id)
	case name != p.info.Name:
		return nil, p.foreign("group snapshot", id, name)
	}
	return p.newSet(parent, dir), nil
}

// groupOf is a group as csikit knows it.
func (b *Backend) groupOf(s *set) *backends.GroupSnapshot {
	g := &backends.GroupSnapshot{ID: s.id(), Name: s.meta.Name, Created: s.meta.Created, Fingerprint: s.meta.Fingerprint}
	for _, m := range s.meta.Members {
		g.Snapshots = append(g.Snapshots, *b.snapshotOf(s, m))
	}
	return g
}

// GroupSnapshotID is pure once the pool's name is known.
func (b *Backend) GroupSnapshotID(req backends.CreateGroupSnapshotRequest) (string, error) {
	name, err := b.poolName()
	return name + "." + groupsDir + "." + dirOf(req.Name), err
}

// FindGroupSnapshot looks a group up by name.
func (b *Backend) FindGroupSnapshot(_ context.Context, req backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	p, done, err := b.enter(0)
	if err != nil {
		return nil, err
	}
	defer done()
	s := p.newSet(groupsDir, dirOf(req.Name))
	if err := b.find(p, s, req.Name, backends.GroupNotFound(req.Name)); err != nil {
		return nil, err
	}
	return b.groupOf(s), nil
}

// CreateGroupSnapshot freezes all volumes, cuts all, and lets them go on: what
// was written to one of them after it was written to another is in no member
// without the other. The group is one directory, and so is there whole or not.
func (b *Backend) CreateGroupSnapshot(ctx context.Context, req backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return nil, err
	}
	defer done()
	if len(req.Parameters) > 0 {
		return nil, fmt.Errorf("%w: group snapshots have no parameters", backends.ErrInvalid)
	}
	s := p.newSet(groupsDir, dirOf(req.Name))
	c := cutting{b: b, s: s, name: req.Name, fingerprint: req.Fingerprint, volumes: sortedIDs(req.VolumeIDs)}
	if err := c.run(ctx); err != nil {
		return nil, fmt.Errorf("create group snapshot %q: %w", req.Name, err)
	}
	b.jobs.waitFor(ctx, s.id(), jobWait)
	if err := s.read(backends.GroupNotFound(req.Name)); err != nil {
		return nil, fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	return b.groupOf(s), nil
}

// DeleteGroupSnapshot deletes a group with all its members.
func (b *Backend) DeleteGroupSnapshot(ctx context.Context, req backends.DeleteGroupSnapshotRequest) error {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return err
	}
	defer done()
	s, err := p.groupSet(req.ID)
	if err != nil {
		return err
	}
	return b.deleteSet(ctx, s, backends.GroupNotFound(req.ID))
}
