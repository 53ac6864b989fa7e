package csidriver

import (
	"context"
	"fmt"

	"github.com/csikit/csikit/backends"
)

// volumeMaker is the method of a backend that makes a volume.
type volumeMaker func(context.Context, backends.CreateVolumeRequest) (*backends.Volume, error)

// maker looks the content source up and says by which method the volume is made
// of it.
func (c *controller) maker(ctx context.Context, req *wanted) (volumeMaker, error) {
	switch {
	case req.source.SnapshotID != "":
		return c.restorer(ctx, req)
	case req.source.VolumeID != "":
		return c.cloner(ctx, req)
	}
	return c.backend.CreateVolume, nil
}

func (c *controller) restorer(ctx context.Context, req *wanted) (volumeMaker, error) {
	snap, err := c.snapshot(ctx, req.source.SnapshotID, req.Secrets)
	if err != nil {
		return nil, fmt.Errorf("volume_content_source: %w", unseen(err, silent))
	}
	if !snap.Ready {
		return nil, fmt.Errorf("volume_content_source: snapshot %q is not ready to use: %w", snap.ID, backends.ErrPending)
	}
	if err := c.fitSource(req, snap.Size); err != nil {
		return nil, err
	}
	return func(ctx context.Context, r backends.CreateVolumeRequest) (*backends.Volume, error) {
		return c.can.Snapshotter.RestoreSnapshot(ctx, *snap, r)
	}, nil
}

func (c *controller) cloner(ctx context.Context, req *wanted) (volumeMaker, error) {
	vol, err := c.volumeToUse(ctx, req.source.VolumeID, req.Secrets)
	if err != nil {
		return nil, fmt.Errorf("volume_content_source: %w", err)
	}
	if err := c.fitSource(req, vol.Capacity); err != nil {
		return nil, err
	}
	return func(ctx context.Context, r backends.CreateVolumeRequest) (*backends.Volume, error) {
		return c.can.Cloner.CloneVolume(ctx, *vol, r)
	}, nil
}

// fitSource sizes the volume by its source: as large when no size was asked for,
// never smaller. What was asked for is compared as it is made, rounded.
func (c *controller) fitSource(req *wanted, least int64) error {
	req.least = least
	if req.Range.Required == 0 && least > 0 {
		size, err := resolveSize(&c.traits, backends.CapacityRange{Required: least, Limit: req.Range.Limit})
		if err != nil {
			return fmt.Errorf("volume_content_source of %d bytes: %w", least, err)
		}
		req.Size = size
	}
	if req.Size < least {
		return outOfRange("volume_content_source has %d bytes, the volume would have %d", least, req.Size)
	}
	return nil
}

// holdsSource looks whether a restored volume that was found is as large as its
// snapshot, as is done with a new one: a retry must not get what the first call
// was refused. A snapshot that is gone says nothing. A source volume does not
// either: it may have grown since.
func (c *controller) holdsSource(ctx context.Context, vol *backends.Volume, req *wanted) error {
	if req.source.SnapshotID == "" || vol.Capacity == 0 {
		return nil
	}
	snap, err := c.snapshot(ctx, req.source.SnapshotID, req.Secrets)
	if err != nil || vol.Capacity >= snap.Size {
		return nil //nolint:nilerr // the volume is there, whatever became of its snapshot
	}
	return badAnswer("volume %q has %d bytes, and was made of a snapshot of %d", vol.ID, vol.Capacity, snap.Size)
}

// sourceText says in a message what a volume was made of.
func sourceText(s backends.ContentSource) string {
	switch {
	case s.SnapshotID != "":
		return fmt.Sprintf("snapshot %q", s.SnapshotID)
	case s.VolumeID != "":
		return fmt.Sprintf("volume %q", s.VolumeID)
	}
	return "nothing"
}
