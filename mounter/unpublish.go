package mounter

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/csikit/csikit/mounter/mnt"
)

// Unpublish unmounts the target path, whatever is stacked there, and removes the
// one empty directory or file that was the mount point. An ephemeral volume is
// then closed and deleted, from its record alone. A volume or a path that is not
// known, with nothing there, is no error. Where the record was lost, a mount that
// no publish can have made is backends.ErrPrecondition, as in [Engine.Unstage].
func (e *Engine) Unpublish(ctx context.Context, req UnpublishRequest) error {
	path, err := cleanPath("target path", req.Path)
	if err != nil {
		return err
	}
	s, done, err := e.begin(ctx, req.ID, path)
	if err != nil {
		return unfinished(err)
	}
	defer done()
	if err := e.unpublish(ctx, s, req.ID, path); err != nil {
		return fmt.Errorf("unpublish volume %q from %s: %w", req.ID, path, err)
	}
	return nil
}

func (e *Engine) unpublish(ctx context.Context, s *store, id, path string) error {
	if r := e.ephemeralAt(s, id, path); r != nil {
		return e.unpublishEphemeral(ctx, s, r)
	}
	mounts, err := e.mountsAt(path)
	if err != nil {
		return err
	}
	r := s.get(kindPublish, id, path)
	if r == nil {
		if err := e.mayUnpublish(s, id, path, mounts); err != nil {
			return err
		}
	}
	if err := e.hidden(r, mounts); err != nil {
		return err
	}
	if r == nil || !e.takenOver(s, r, mounts) {
		flagged := e.flaggedTarget(r, path, mounts)
		if err := e.unmountAll(ctx, path, mounts); err != nil {
			return err
		}
		if err := e.dropFlag(ctx, s, flagged); err != nil {
			return err
		}
		if err := removeTarget(path); err != nil {
			return err
		}
	}
	if r == nil {
		return nil
	}
	if err := e.lastReadOnly(ctx, s, r); err != nil {
		return err
	}
	return s.remove(r)
}

// takenOver reports whether the target of r was unmounted by somebody, and another
// volume is published there by now; or that one came with a directory that was
// renamed, or by a symbolic link.
func (e *Engine) takenOver(s *store, r *record, mounts []mnt.Info) bool {
	mine := func(m mnt.Info) bool { return s.shows(r, m) }
	theirs := func(m mnt.Info) bool {
		return s.another(r.Volume, r.Path, m) || r.Mounted != nil && s.othersMount(e.boot, r.Volume, m)
	}
	return !slices.ContainsFunc(mounts, mine) && slices.ContainsFunc(mounts, theirs)
}

// mayUnpublish guards what is not on record as this volume's target.
func (e *Engine) mayUnpublish(s *store, id, path string, mounts []mnt.Info) error {
	if o := s.others(id, path); len(o) > 0 {
		return refuse("volume %q is there", o[0].Volume)
	}
	if s.get(kindStage, id, path) != nil {
		return refuse("it is staged there, not published")
	}
	if err := e.aliased(s, id, path, mounts); err != nil {
		return err
	}
	if len(mounts) > 0 && strings.HasPrefix(e.opts.StateDir+"/", path+"/") {
		return refuse("the driver's own state lies below it")
	}
	return e.canBeOurs(s, id, mounts)
}

// aliased refuses a path by which another volume's staging or target path can be
// reached too, over a symbolic link or another mount.
func (e *Engine) aliased(s *store, id, path string, mounts []mnt.Info) error {
	for _, m := range mounts {
		claims := func(r *record) bool { return r.Volume != id && r.Mounted.wasRenamed(m) }
		for _, r := range s.list(claims) {
			there, err := e.mountsAt(r.Path)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(there, func(o mnt.Info) bool { return m.ID == o.ID }) {
				return refuse("%s is another name of %s, where volume %q is", path, r.Path, r.Volume)
			}
		}
	}
	return nil
}

// lastReadOnly makes a raw block device writable again when its last read-only
// target goes, or one of its staging paths and no such target is left.
func (e *Engine) lastReadOnly(ctx context.Context, s *store, r *record) error {
	if !r.block() || r.Kind == kindPublish && !r.ReadOnly {
		return nil
	}
	for _, o := range s.of(r.Volume) {
		if o.Kind != kindPublish || o.Path == r.Path || !o.ReadOnly {
			continue
		}
		live, err := e.targetLives(s, o)
		if live || err != nil {
			return err
		}
	}
	return e.writableAgain(ctx, r.data(), r)
}
