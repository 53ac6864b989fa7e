package mounter

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/csikit/csikit/backends"
)

// Stats are the figures of the volume at a path where it is staged or published.
// It never hangs: what asks for them runs on a goroutine of its own, one at a time
// for each mounted file system or device. Without an answer after
// Options.StatsTimeout, or shortly before the end of ctx, they are the last known
// ones, with their Age; those being too old, or none, it is backends.ErrUnavailable.
func (e *Engine) Stats(ctx context.Context, req StatsRequest) (*Stats, error) {
	s := e.records()
	if s == nil {
		return nil, unavailable("the node engine is not running")
	}
	if err := s.refused(req.ID); err != nil {
		return nil, err
	}
	path, r, dev, err := e.statsPath(s, req)
	if err != nil {
		return nil, fmt.Errorf("stats of volume %q: %w", req.ID, err)
	}
	if r == nil {
		return nil, backends.VolumeNotFound(req.ID)
	}
	st, err := e.figures(ctx, r, path, dev)
	if err != nil {
		e.fuse.suspect(e, r.Volume)
		return nil, fmt.Errorf("stats of volume %q at %s: %w", req.ID, path, err)
	}
	return st, nil
}

// statsPath finds the record of the volume that stands at the path, nil when it
// does not, and the number of its file system or device.
func (e *Engine) statsPath(s *store, req StatsRequest) (path string, r *record, dev uint64, err error) {
	if !filepath.IsAbs(req.Path) {
		return "", nil, 0, nil
	}
	path = filepath.Clean(req.Path)
	if ep := e.ephemeralAt(s, req.ID, path); ep != nil {
		req.ID = ep.Own
	}
	for _, k := range []kind{kindPublish, kindStage} {
		r := s.get(k, req.ID, path)
		if r == nil || r.Phase != phaseReady || r.BootID != e.boot {
			continue
		}
		if r.block() && k == kindStage {
			return path, r, r.data().Num, nil // nothing is mounted there
		}
		mounts, err := e.mountsAt(path)
		if err != nil || len(mounts) == 0 || !s.shows(r, mounts[0]) {
			return path, nil, 0, err
		}
		if r.block() {
			return path, r, r.data().Num, nil
		}
		return path, r, mounts[0].Dev, nil
	}
	if r, err = e.blockAt(s, req.ID, path); r == nil {
		return path, nil, 0, err
	}
	return path, r, r.data().Num, nil
}

// blockAt finds a raw block volume by the device number of a path that was never
// given to Publish: kubelet asks at its own map of devices.
func (e *Engine) blockAt(s *store, id, path string) (*record, error) {
	blocks := s.list(func(r *record) bool {
		return r.Volume == id && r.block() && r.BootID == e.boot && r.Phase == phaseReady
	})
	if len(blocks) == 0 {
		return nil, nil
	}
	dev, err := e.kernel.DeviceAt(path)
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		return nil, unavailable("look at %s: %w", path, err)
	}
	for _, r := range blocks {
		if r.data().Num == dev {
			return r, nil
		}
	}
	return nil, nil
}

// stateOf is the State of the volume, which its staging record has.
func (e *Engine) stateOf(r *record) []byte {
	s := e.records()
	if r.Kind == kindStage || s == nil {
		return r.State
	}
	if staged := s.get(kindStage, r.Volume, r.StagingPath); staged != nil {
		return staged.State
	}
	return nil
}
