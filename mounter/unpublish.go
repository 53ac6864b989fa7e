package mounter

import (
	"context"
	"fmt"
	"strings"

	"github.com/csikit/csikit/mounter/mnt"
)

// Unpublish unmounts the target path, whatever is stacked there, and removes the
// one empty directory or file that was the mount point. A volume or a path that
// is not known, with nothing there, is no error.
func (e *Engine) Unpublish(ctx context.Context, req UnpublishRequest) error {
	path, err := cleanPath("target path", req.Path)
	if err != nil {
		return err
	}
	s, done, err := e.begin(ctx, req.ID, path)
	if err != nil {
		return err
	}
	defer done()
	if err := e.unpublish(ctx, s, req.ID, path); err != nil {
		return fmt.Errorf("unpublish volume %q from %s: %w", req.ID, path, err)
	}
	return nil
}

func (e *Engine) unpublish(ctx context.Context, s *store, id, path string) error {
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
	if err := e.unmountAll(ctx, path, mounts); err != nil {
		return err
	}
	if err := removeTarget(path); err != nil {
		return err
	}
	if r == nil {
		return nil
	}
	if err := e.lastReadOnly(ctx, s, r); err != nil {
		return err
	}
	return s.remove(r)
}

// mayUnpublish guards what is not on record as this volume's target.
func (e *Engine) mayUnpublish(s *store, id, path string, mounts []mnt.Info) error {
	if o := s.others(id, path); len(o) > 0 {
		return refuse("volume %q is there", o[0].Volume)
	}
	if s.get(kindStage, id, path) != nil {
		return refuse("it is staged there, not published")
	}
	if len(mounts) > 0 && strings.HasPrefix(e.opts.StateDir+"/", path+"/") {
		return refuse("the driver's own state lies below it")
	}
	return nil
}

// lastReadOnly makes a raw block device writable again when its last read-only
// target goes.
func (e *Engine) lastReadOnly(ctx context.Context, s *store, r *record) error {
	if !r.block() || !r.ReadOnly {
		return nil
	}
	for _, o := range s.of(r.Volume) {
		if o.Kind != kindPublish || o.Path == r.Path || !o.ReadOnly {
			continue
		}
		live, err := e.targetLives(o)
		if live || err != nil {
			return err
		}
	}
	return e.writableAgain(ctx, r.Device, r)
}
