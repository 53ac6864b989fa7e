package mem

import (
	"context"
	"fmt"

	"github.com/csikit/csikit/backends"
)

// VolumeID is made of the name alone.
func (b *Backend) VolumeID(req backends.CreateVolumeRequest) (string, error) {
	return idOf(volumePrefix, req.Name), nil
}

// Volume looks a volume up by ID.
func (b *Backend) Volume(ctx context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
	return ask(ctx, b, Call{"Volume", req.ID, req}, func(context.Context) (*backends.Volume, error) {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		v, err := b.store.volume(req.ID)
		if err != nil {
			return nil, err
		}
		return v.answer(), nil
	})
}

// FindVolume looks a finished volume up by name.
func (b *Backend) FindVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	return ask(ctx, b, Call{"FindVolume", req.Name, req}, func(context.Context) (*backends.Volume, error) {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		v := b.store.volumes[idOf(volumePrefix, req.Name)]
		if v == nil || v.half {
			return nil, backends.VolumeNotFound(req.Name)
		}
		return v.answer(), nil
	})
}

// CreateVolume makes an empty volume.
func (b *Backend) CreateVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	c := Call{"CreateVolume", req.Name, req}
	return ask(ctx, b, c, func(ctx context.Context) (*backends.Volume, error) {
		return b.make(ctx, c, req, origin{})
	})
}

// RestoreSnapshot makes a volume with what is in a snapshot.
func (b *Backend) RestoreSnapshot(ctx context.Context, snap backends.Snapshot, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	c := Call{"RestoreSnapshot", req.Name, req}
	return ask(ctx, b, c, func(ctx context.Context) (*backends.Volume, error) {
		return b.make(ctx, c, req, origin{source: backends.ContentSource{SnapshotID: snap.ID}})
	})
}

// CloneVolume makes a volume with what is in another.
func (b *Backend) CloneVolume(ctx context.Context, source backends.Volume, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	c := Call{"CloneVolume", req.Name, req}
	return ask(ctx, b, c, func(ctx context.Context) (*backends.Volume, error) {
		return b.make(ctx, c, req, origin{source: backends.ContentSource{VolumeID: source.ID}})
	})
}

// origin is what a volume is made of: nothing, or a copy.
type origin struct {
	source backends.ContentSource
	size   int64
	blocks blocks
	formatted
}

// make makes a volume in two steps, so that one that was cut short is seen as
// what it is.
func (b *Backend) make(ctx context.Context, c Call, req backends.CreateVolumeRequest, from origin) (*backends.Volume, error) {
	v, err := b.beginVolume(req, from)
	if err != nil {
		return nil, err
	}
	if err := b.midway(ctx, c); err != nil {
		return nil, err
	}
	if err := b.store.makeDir(v.ID, from.source); err != nil {
		return nil, fmt.Errorf("volume %s: %w", v.ID, err)
	}
	return b.store.finishVolume(v)
}

// beginVolume enters the volume as one that is being made, and takes its space.
func (b *Backend) beginVolume(req backends.CreateVolumeRequest, from origin) (*volume, error) {
	mutable, err := b.mutable(req.Parameters, req.Mutable)
	if err != nil {
		return nil, err
	}
	s := b.store
	s.mu.Lock()
	defer s.mu.Unlock()
	id := idOf(volumePrefix, req.Name)
	if v := s.volumes[id]; v != nil && !v.half {
		return nil, fmt.Errorf("%w: volume %s", backends.ErrExists, id)
	}
	if err := s.look(&from); err != nil {
		return nil, err
	}
	size, err := sizeFor(req, from)
	if err != nil {
		return nil, err
	}
	s.dropVolume(id) // a half-made one of an earlier call
	place, err := b.place(req.Topology, size)
	if err != nil {
		return nil, err
	}
	v := newVolume(backends.Volume{
		ID: id, Name: req.Name, Capacity: size, Source: from.source, Topology: place,
		Context:     map[string]string{domain + "/volume": id},
		Fingerprint: req.Fingerprint, Mutable: mutable,
	})
	if from.source != (backends.ContentSource{}) {
		v.blocks, v.formatted = from.blocks.clone(), from.formatted
	}
	s.putVolume(v)
	return v, nil
}

// look fills in what the source has. s.mu is held.
func (s *Store) look(from *origin) error {
	switch {
	case from.source.SnapshotID != "":
		snap, err := s.snapshot(from.source.SnapshotID)
		if err != nil {
			return err
		}
		if !snap.Ready {
			return fmt.Errorf("%w: snapshot %s is being copied", backends.ErrUnavailable, snap.ID)
		}
		from.size, from.blocks, from.formatted = snap.Size, snap.blocks, snap.formatted
	case from.source.VolumeID != "":
		v, err := s.volume(from.source.VolumeID)
		if err != nil {
			return err
		}
		from.size, from.blocks, from.formatted = v.Capacity, v.blocks, v.formatted
	}
	return nil
}

// sizeFor is the size of a new volume: what is asked for, and what its content
// needs.
func sizeFor(req backends.CreateVolumeRequest, from origin) (int64, error) {
	size := roundUp(max(req.Size, blockSize))
	if from.size > size {
		return 0, fmt.Errorf("%w: %d bytes, and the source has %d", backends.ErrOutOfRange, size, from.size)
	}
	return size, checkSize(size, req.Range.Limit)
}

func checkSize(size, limit int64) error {
	switch {
	case size <= 0 || size > sizeMax:
		return fmt.Errorf("%w: %d bytes, volumes have at most %d", backends.ErrOutOfRange, size, int64(sizeMax))
	case limit > 0 && size > limit:
		return fmt.Errorf("%w: %d bytes is above the limit of %d", backends.ErrOutOfRange, size, limit)
	}
	return nil
}

func roundUp(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// finishVolume makes v a volume that can be found, unless it was deleted or
// begun anew meanwhile.
func (s *Store) finishVolume(v *volume) (*backends.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.volumes[v.ID] != v {
		return nil, fmt.Errorf("%w: volume %s was deleted or begun anew while it was made", backends.ErrUnavailable, v.ID)
	}
	v.half = false
	return v.answer(), nil
}

// DeleteVolume deletes a volume that nobody uses, or what is left of one.
func (b *Backend) DeleteVolume(ctx context.Context, req backends.DeleteVolumeRequest) error {
	c := Call{"DeleteVolume", req.ID, req}
	return b.run(ctx, c, func(ctx context.Context) error {
		if err := b.store.beginDelete(req.ID); err != nil {
			return err
		}
		if err := b.midway(ctx, c); err != nil {
			return err
		}
		if err := b.store.removeDir(req.ID); err != nil {
			return fmt.Errorf("volume %s: %w", req.ID, err)
		}
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		b.store.dropVolume(req.ID)
		return nil
	})
}

func (s *Store) beginDelete(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.volumes[id]
	switch {
	case v == nil:
		return backends.VolumeNotFound(id)
	case len(v.attached) > 0 || len(v.open) > 0:
		return fmt.Errorf("%w: volume %s is attached to %d nodes and open on %d", backends.ErrInUse, id, len(v.attached), len(v.open))
	}
	v.half = true
	return nil
}

// volume is a finished volume. s.mu is held.
func (s *Store) volume(id string) (*volume, error) {
	v := s.volumes[id]
	switch {
	case v == nil:
		return nil, backends.VolumeNotFound(id)
	case v.half:
		return nil, fmt.Errorf("%w: volume %s is half made", backends.ErrUnavailable, id)
	}
	return v, nil
}

// anywhere is volume, of ephemeral ones too. s.mu is held.
func (s *Store) anywhere(id string) (*volume, error) {
	if v := s.ephemeral[id]; v != nil {
		return v, nil
	}
	return s.volume(id)
}

// ExpandVolume makes a volume bigger.
func (b *Backend) ExpandVolume(ctx context.Context, req backends.ExpandVolumeRequest) (int64, error) {
	return ask(ctx, b, Call{"ExpandVolume", req.ID, req}, func(context.Context) (int64, error) {
		s := b.store
		s.mu.Lock()
		defer s.mu.Unlock()
		v, err := s.volume(req.ID)
		if err != nil {
			return 0, err
		}
		size := max(roundUp(req.Size), v.Capacity)
		if err := checkSize(size, req.Range.Limit); err != nil {
			return 0, err
		}
		if free := s.free(zoneOf(v.Topology)); size-v.Capacity > free {
			return 0, fmt.Errorf("%w: volume %s needs %d bytes more, %d are free", backends.ErrNoSpace, v.ID, size-v.Capacity, free)
		}
		s.take(v.Topology, size-v.Capacity)
		v.Capacity = size
		return size, nil
	})
}

// RecoverController removes what an earlier process left half-made. It must not
// run beside another controller of the same store.
func (b *Backend) RecoverController(ctx context.Context) error {
	return b.run(ctx, Call{Method: "RecoverController"}, func(context.Context) error {
		s := b.store
		s.mu.Lock()
		defer s.mu.Unlock()
		for id, v := range s.volumes {
			if !v.half {
				continue
			}
			if err := s.removeDir(id); err != nil {
				return err
			}
			s.dropVolume(id)
		}
		return s.dropHalfSnapshots()
	})
}
