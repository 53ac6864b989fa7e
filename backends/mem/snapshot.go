package mem

import (
	"context"
	"fmt"

	"github.com/csikit/csikit/backends"
)

// SnapshotID is made of the name alone.
func (b *Backend) SnapshotID(req backends.CreateSnapshotRequest) (string, error) {
	return idOf(snapshotPrefix, req.Name), nil
}

// Snapshot looks a snapshot up by ID, ready or not.
func (b *Backend) Snapshot(ctx context.Context, req backends.SnapshotRequest) (*backends.Snapshot, error) {
	return ask(ctx, b, Call{"Snapshot", req.ID, req}, func(context.Context) (*backends.Snapshot, error) {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		snap, err := b.store.snapshot(req.ID)
		if err != nil {
			return nil, err
		}
		return snap.answer(), nil
	})
}

// FindSnapshot looks a snapshot up by name.
func (b *Backend) FindSnapshot(ctx context.Context, req backends.CreateSnapshotRequest) (*backends.Snapshot, error) {
	return ask(ctx, b, Call{"FindSnapshot", req.Name, req}, func(context.Context) (*backends.Snapshot, error) {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		snap := b.store.snapshots[idOf(snapshotPrefix, req.Name)]
		if snap == nil || snap.half {
			return nil, backends.SnapshotNotFound(req.Name)
		}
		return snap.answer(), nil
	})
}

// CreateSnapshot cuts a snapshot.
func (b *Backend) CreateSnapshot(ctx context.Context, req backends.CreateSnapshotRequest) (*backends.Snapshot, error) {
	c := Call{"CreateSnapshot", req.Name, req}
	return ask(ctx, b, c, func(ctx context.Context) (*backends.Snapshot, error) {
		snap, err := b.beginSnapshot(req)
		if err != nil {
			return nil, err
		}
		if err := b.midway(ctx, c); err != nil {
			return nil, err
		}
		if err := b.store.makeDir(snap.ID, backends.ContentSource{VolumeID: snap.VolumeID}); err != nil {
			return nil, fmt.Errorf("snapshot %s: %w", snap.ID, err)
		}
		return b.store.finishSnapshot(snap)
	})
}

func (b *Backend) beginSnapshot(req backends.CreateSnapshotRequest) (*snapshot, error) {
	s := b.store
	s.mu.Lock()
	defer s.mu.Unlock()
	id := idOf(snapshotPrefix, req.Name)
	if old := s.snapshots[id]; old != nil && !old.half {
		return nil, fmt.Errorf("%w: snapshot %s", backends.ErrExists, id)
	}
	v, err := s.volume(req.VolumeID)
	if err != nil {
		return nil, err
	}
	s.forgetSnapshot(id) // a half-made one of an earlier call
	place, err := b.placeSnapshot(v, req.Topology)
	if err != nil {
		return nil, err
	}
	snap := &snapshot{half: true, blocks: v.blocks.clone(), formatted: v.formatted, Snapshot: backends.Snapshot{
		ID: id, Name: req.Name, VolumeID: v.ID, Size: v.Capacity, Created: s.o.Now().UTC(),
		Ready: !s.hold, Topology: place, Fingerprint: req.Fingerprint,
	}}
	s.putSnapshot(snap)
	return snap, nil
}

// placeSnapshot keeps a snapshot beside its volume, unless it is to be
// elsewhere. s.mu is held.
func (b *Backend) placeSnapshot(v *volume, r backends.TopologyRequirement) ([]backends.Segments, error) {
	zone := zoneOf(v.Topology)
	if len(r.Preferred) == 0 && r.Permits(in(zone)) {
		r = backends.TopologyRequirement{Requisite: []backends.Segments{{TopologyKey: zone}}}
	}
	return b.place(r, v.Capacity)
}

func (s *Store) finishSnapshot(snap *snapshot) (*backends.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.snapshots[snap.ID] != snap {
		return nil, fmt.Errorf("%w: snapshot %s was deleted or begun anew while it was made", backends.ErrUnavailable, snap.ID)
	}
	snap.half = false
	return snap.answer(), nil
}

// DeleteSnapshot deletes a snapshot that is in no group.
func (b *Backend) DeleteSnapshot(ctx context.Context, req backends.DeleteSnapshotRequest) error {
	c := Call{"DeleteSnapshot", req.ID, req}
	return b.run(ctx, c, func(ctx context.Context) error {
		if err := b.store.beginDeleteSnapshot(req.ID); err != nil {
			return err
		}
		if err := b.midway(ctx, c); err != nil {
			return err
		}
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		return b.store.dropSnapshot(req.ID)
	})
}

func (s *Store) beginDeleteSnapshot(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := s.snapshots[id]
	switch {
	case snap == nil:
		return backends.SnapshotNotFound(id)
	case snap.GroupID != "":
		return fmt.Errorf("%w: snapshot %s can be deleted only with its group %s", backends.ErrInvalid, id, snap.GroupID)
	}
	snap.half = true
	return nil
}

// dropSnapshot forgets a snapshot and its files. s.mu is held.
func (s *Store) dropSnapshot(id string) error {
	if err := s.removeDir(id); err != nil {
		return fmt.Errorf("snapshot %s: %w", id, err)
	}
	s.forgetSnapshot(id)
	return nil
}

// dropHalfSnapshots removes what an earlier process left. s.mu is held.
func (s *Store) dropHalfSnapshots() error {
	for id, g := range s.groups {
		if g.half {
			if err := s.dropGroup(id); err != nil {
				return err
			}
		}
	}
	for id, snap := range s.snapshots {
		if snap.half {
			if err := s.dropSnapshot(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// snapshot is a finished snapshot, ready or not. s.mu is held.
func (s *Store) snapshot(id string) (*snapshot, error) {
	snap := s.snapshots[id]
	switch {
	case snap == nil:
		return nil, backends.SnapshotNotFound(id)
	case snap.half:
		return nil, fmt.Errorf("%w: snapshot %s is half made", backends.ErrUnavailable, id)
	}
	return snap, nil
}

// answer is the snapshot as a caller may keep it.
func (snap *snapshot) answer() *backends.Snapshot {
	out := snap.Snapshot
	out.Topology = cloneSegments(snap.Topology)
	return &out
}
