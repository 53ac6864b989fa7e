package mem

import (
	"context"
	"fmt"

	"github.com/csikit/csikit/backends"
)

// GroupSnapshotID is made of the name alone.
func (b *Backend) GroupSnapshotID(req backends.CreateGroupSnapshotRequest) (string, error) {
	return idOf(groupPrefix, req.Name), nil
}

// GroupSnapshot looks a group up by ID.
func (b *Backend) GroupSnapshot(ctx context.Context, req backends.GroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	return ask(ctx, b, Call{"GroupSnapshot", req.ID, req}, func(context.Context) (*backends.GroupSnapshot, error) {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		g := b.store.groups[req.ID]
		switch {
		case g == nil:
			return nil, backends.GroupNotFound(req.ID)
		case g.half:
			return nil, fmt.Errorf("%w: group snapshot %s is half made", backends.ErrUnavailable, req.ID)
		}
		return b.store.answerGroup(g), nil
	})
}

// FindGroupSnapshot looks a group up by name.
func (b *Backend) FindGroupSnapshot(ctx context.Context, req backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	return ask(ctx, b, Call{"FindGroupSnapshot", req.Name, req}, func(context.Context) (*backends.GroupSnapshot, error) {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		g := b.store.groups[idOf(groupPrefix, req.Name)]
		if g == nil || g.half {
			return nil, backends.GroupNotFound(req.Name)
		}
		return b.store.answerGroup(g), nil
	})
}

// CreateGroupSnapshot cuts all members at one moment.
func (b *Backend) CreateGroupSnapshot(ctx context.Context, req backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	c := Call{"CreateGroupSnapshot", req.Name, req}
	return ask(ctx, b, c, func(ctx context.Context) (*backends.GroupSnapshot, error) {
		g, err := b.beginGroup(req)
		if err != nil {
			return nil, err
		}
		if err := b.midway(ctx, c); err != nil {
			return nil, err
		}
		return b.store.finishGroup(g)
	})
}

// beginGroup cuts every member, or none.
func (b *Backend) beginGroup(req backends.CreateGroupSnapshotRequest) (*group, error) {
	s := b.store
	s.mu.Lock()
	defer s.mu.Unlock()
	id := idOf(groupPrefix, req.Name)
	if old := s.groups[id]; old != nil && !old.half {
		return nil, fmt.Errorf("%w: group snapshot %s", backends.ErrExists, id)
	}
	if err := s.dropGroup(id); err != nil { // a half-made one of an earlier call
		return nil, err
	}
	g := &group{half: true, GroupSnapshot: backends.GroupSnapshot{
		ID: id, Name: req.Name, Created: s.o.Now().UTC(), Fingerprint: req.Fingerprint,
	}}
	need := make(map[string]int64)
	for _, volumeID := range req.VolumeIDs {
		v, err := s.volume(volumeID)
		if err != nil {
			return nil, err
		}
		zone := zoneOf(v.Topology)
		if need[zone] += v.Capacity; need[zone] > s.free(zone) {
			return nil, fmt.Errorf("%w: %d bytes in %s", backends.ErrNoSpace, need[zone], zone)
		}
	}
	for _, volumeID := range req.VolumeIDs {
		s.cutMember(g, s.volumes[volumeID])
	}
	s.groups[id] = g
	return g, nil
}

// cutMember adds a snapshot to a group that is being made. s.mu is held.
func (s *Store) cutMember(g *group, v *volume) {
	id := idOf(snapshotPrefix, g.ID+"\x00"+v.ID)
	s.putSnapshot(&snapshot{half: true, blocks: v.blocks.clone(), formatted: v.formatted, Snapshot: backends.Snapshot{
		ID: id, VolumeID: v.ID, Size: v.Capacity, Created: g.Created, Ready: !s.hold, GroupID: g.ID,
		Topology: cloneSegments(v.Topology),
	}})
	g.members = append(g.members, id)
}

// finishGroup copies the files of all members and lets them be seen.
func (s *Store) finishGroup(g *group) (*backends.GroupSnapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.groups[g.ID] != g {
		return nil, fmt.Errorf("%w: group snapshot %s was deleted or begun anew while it was made", backends.ErrUnavailable, g.ID)
	}
	for _, id := range g.members {
		if err := s.makeDir(id, backends.ContentSource{VolumeID: s.snapshots[id].VolumeID}); err != nil {
			return nil, fmt.Errorf("group snapshot %s: %w", g.ID, err)
		}
	}
	for _, id := range g.members {
		s.snapshots[id].half = false
	}
	g.half = false
	return s.answerGroup(g), nil
}

// DeleteGroupSnapshot deletes a group with all its members.
func (b *Backend) DeleteGroupSnapshot(ctx context.Context, req backends.DeleteGroupSnapshotRequest) error {
	c := Call{"DeleteGroupSnapshot", req.ID, req}
	return b.run(ctx, c, func(ctx context.Context) error {
		if err := b.store.beginDeleteGroup(req.ID); err != nil {
			return err
		}
		if err := b.midway(ctx, c); err != nil {
			return err
		}
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		return b.store.dropGroup(req.ID)
	})
}

func (s *Store) beginDeleteGroup(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[id]
	if g == nil {
		return backends.GroupNotFound(id)
	}
	g.half = true
	for _, member := range g.members {
		if snap := s.snapshots[member]; snap != nil {
			snap.half = true
		}
	}
	return nil
}

// dropGroup forgets a group, if there is one, and its members. s.mu is held.
func (s *Store) dropGroup(id string) error {
	g := s.groups[id]
	if g == nil {
		return nil
	}
	for _, member := range g.members {
		if err := s.dropSnapshot(member); err != nil {
			return err
		}
	}
	delete(s.groups, id)
	return nil
}

// answerGroup is the group with its members. s.mu is held.
func (s *Store) answerGroup(g *group) *backends.GroupSnapshot {
	out := g.GroupSnapshot
	out.Snapshots = nil
	for _, id := range g.members {
		out.Snapshots = append(out.Snapshots, *s.snapshots[id].answer())
	}
	return &out
}
