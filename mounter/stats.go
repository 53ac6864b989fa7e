package mounter

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/csikit/csikit/backends"
)

// Stats are the figures of the volume at a path where it is staged or published.
// It never hangs: statfs runs on a goroutine of its own, one at a time for each
// volume, and after Options.StatsTimeout the answer is backends.ErrUnavailable.
func (e *Engine) Stats(ctx context.Context, req StatsRequest) (*Stats, error) {
	s := e.records()
	if s == nil {
		return nil, unavailable("the node engine is not running")
	}
	if err := s.refused(req.ID); err != nil {
		return nil, err
	}
	path, r, err := e.statsPath(s, req)
	if err != nil {
		return nil, fmt.Errorf("stats of volume %q: %w", req.ID, err)
	}
	if r == nil {
		return nil, backends.VolumeNotFound(req.ID)
	}
	st, err := e.figures(ctx, r, path)
	if err != nil {
		return nil, fmt.Errorf("stats of volume %q at %s: %w", req.ID, path, err)
	}
	return st, nil
}

// statsPath finds the record of the volume that stands at the path; nil when it
// does not.
func (e *Engine) statsPath(s *store, req StatsRequest) (path string, r *record, err error) {
	if !filepath.IsAbs(req.Path) {
		return "", nil, nil
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
			return path, r, nil // nothing is mounted there
		}
		mounts, err := e.mountsAt(path)
		if err != nil {
			return path, nil, err
		}
		if len(mounts) > 0 && s.shows(r, mounts[0]) {
			return path, r, nil
		}
		return path, nil, nil
	}
	r, err = e.blockAt(s, req.ID, path)
	return path, r, err
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

func (e *Engine) figures(ctx context.Context, r *record, path string) (*Stats, error) {
	if r.block() {
		d, err := e.openRecorded(ctx, r.data())
		if err != nil {
			return nil, soften(err)
		}
		size, err := d.Size()
		if err = errors.Join(err, d.Close()); err != nil {
			return nil, unavailable("size of device %s: %w", r.data().Path, err)
		}
		return &Stats{Block: true, VolumeStats: backends.VolumeStats{Total: size}}, nil
	}
	if reporter := e.features.StatsReporter; reporter != nil {
		v, err := reporter.VolumeStats(ctx, backends.VolumeStatsRequest{ID: r.Volume, Path: path, State: e.stateOf(r)})
		if err != nil {
			return nil, err
		}
		if v == nil {
			return nil, unavailable("the backend gave no figures and no error")
		}
		return &Stats{VolumeStats: *v}, nil
	}
	v, err := e.stats.get(ctx, r.Volume, e.opts.StatsTimeout, func() (backends.VolumeStats, error) { return e.kernel.StatFS(path) })
	if err != nil {
		return nil, unavailable("statfs: %w", err)
	}
	return &Stats{VolumeStats: v}, nil
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
