package mounter

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/faultpoint"
)

// ephemeralAt is the record of an ephemeral volume at its target. One that was
// lost is put together from the staging record; nil when there is neither.
func (e *Engine) ephemeralAt(s *store, id, path string) *record {
	if r := s.get(kindEphemeral, id, path); r != nil {
		return r
	}
	for _, r := range s.list(func(r *record) bool { return r.Kind == kindStage && r.For == id && r.Path == path }) {
		return &record{
			Kind: kindEphemeral, Volume: id, Path: path, BootID: e.boot, Phase: phaseReady, Own: r.Volume, State: r.State,
			Access: r.Access, Mode: r.Mode, FSType: r.FSType, ReadOnly: r.ReadOnly, Flags: r.Flags, Group: r.Group,
		}
	}
	return nil
}

// own is the backend's own ID of a volume: another one than the CO's when it is
// ephemeral.
func (e *Engine) own(s *store, id string) string {
	list := s.list(func(r *record) bool { return r.Volume == id && r.Own != "" || r.For == id })
	if len(list) == 0 {
		return id
	}
	return cmp.Or(list[0].Own, list[0].Volume)
}

// lockOwn keeps calls for the volume's own ID away.
func (e *Engine) lockOwn(ctx context.Context, r *record) (unlock func(), err error) {
	if r.Own == "" || r.Own == r.Volume {
		return func() {}, nil
	}
	return e.lock(ctx, r.Own, nil)
}

// unpublishEphemeral takes an ephemeral volume off its target and deletes it,
// from its record alone. Every part of it can be repeated.
func (e *Engine) unpublishEphemeral(ctx context.Context, s *store, r *record) error {
	unlock, err := e.lockOwn(ctx, r)
	if err != nil {
		return err
	}
	defer unlock()
	mounts, err := e.mountsAt(r.Path)
	if err != nil {
		return err
	}
	var staged *record
	if r.Own != "" {
		if err := s.refused(r.Own); err != nil {
			return unfinished(err)
		}
		staged = s.get(kindStage, r.Own, r.Path)
	}
	if staged != nil && staged.State != nil {
		r.State = staged.State // whose record goes before DeleteEphemeral wants it
	}
	if err := e.hidden(staged, mounts); err != nil {
		return err
	}
	r.Phase = phaseDeleting
	if err := s.put(r); err != nil {
		return err
	}
	if staged == nil || !e.takenOver(s, staged, mounts) {
		if err := e.unmountAll(ctx, r.Path, mounts); err != nil {
			return err
		}
		if err := removeTarget(r.Path); err != nil {
			return err
		}
	}
	if err := e.closeEphemeral(ctx, s, r, staged); err != nil {
		return soften(err)
	}
	return soften(e.deleteEphemeral(ctx, s, r))
}

func (e *Engine) closeEphemeral(ctx context.Context, s *store, r, staged *record) error {
	switch {
	case r.Own == "":
		return nil
	case staged != nil:
		return e.closeVolume(ctx, s, staged)
	default:
		// Closed already, or never opened, or its record was lost.
		if err := e.stopLeftServer(ctx, r.Own); err != nil {
			return err
		}
		return e.callClose(ctx, r.Own, r.State)
	}
}

// deleteEphemeral deletes what nothing uses any more, and forgets the record.
func (e *Engine) deleteEphemeral(ctx context.Context, s *store, r *record) error {
	x := e.features.EphemeralProvisioner
	if x == nil {
		return fmt.Errorf("%w: the backend has no ephemeral volumes any more", backends.ErrUnsupported)
	}
	if err := e.step(ctx, "delete ephemeral volume"); err != nil {
		return err
	}
	err := x.DeleteEphemeral(ctx, backends.DeleteEphemeralRequest{ID: r.Volume, VolumeID: r.Own, State: r.State})
	var missing *backends.NotFoundError
	if errors.As(err, &missing) && missing.Kind == backends.KindVolume && (missing.ID == r.Volume || missing.ID == r.Own) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("delete ephemeral volume: %w", err)
	}
	faultpoint.Reach("mounter.ephemeral.deleted")
	return s.remove(r)
}
