package mounter

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/faultpoint"
)

// Expand lets the backend make the device as big as the volume, then grows the
// file system on it, and returns the size of the device; 0 for a volume that is
// no device, whose size the engine does not know. A device that is smaller than
// required is backends.ErrOutOfRange. A file system that cannot be grown while
// it is mounted is backends.ErrPrecondition: the next stage grows it.
func (e *Engine) Expand(ctx context.Context, req ExpandRequest) (size int64, err error) {
	s, done, err := e.begin(ctx, req.ID)
	if err != nil {
		return 0, err
	}
	defer done()
	r := e.find(s, req.ID, req.Path, req.StagingPath)
	if r == nil {
		return 0, backends.VolumeNotFound(req.ID)
	}
	if size, err = e.expand(ctx, s, r, req); err != nil {
		return 0, fmt.Errorf("expand volume %q: %w", req.ID, err)
	}
	return size, nil
}

// find is the staging record of the volume at one of the paths, staged or
// published; a path that could never be one is not known.
func (e *Engine) find(s *store, id string, paths ...string) *record {
	for _, p := range paths {
		if !filepath.IsAbs(p) {
			continue
		}
		p = filepath.Clean(p)
		if t := s.get(kindPublish, id, p); t != nil {
			p = t.StagingPath
		}
		if r := s.get(kindStage, id, p); r != nil && r.Phase == phaseReady && r.BootID == e.boot {
			return r
		}
	}
	return nil
}

func (e *Engine) expand(ctx context.Context, s *store, r *record, req ExpandRequest) (int64, error) {
	if c := req.Capability; c != nil && c.Block != r.block() {
		return 0, fmt.Errorf("%w: it is staged as %s volume", backends.ErrInvalid, r.Access)
	}
	if err := e.step(ctx, "expand device"); err != nil {
		return 0, err
	}
	if x := e.features.NodeExpander; x != nil {
		err := x.NodeExpandVolume(ctx, backends.NodeExpandVolumeRequest{ID: req.ID, Range: req.Range, State: r.State, Secrets: req.Secrets})
		if err != nil {
			return 0, err
		}
		faultpoint.Reach("mounter.expand.device")
	}
	if r.Source != sourceDevice {
		return 0, nil
	}
	return e.expandDevice(ctx, s, r, req.Range)
}

func (e *Engine) expandDevice(ctx context.Context, s *store, r *record, want backends.CapacityRange) (size int64, err error) {
	d, err := e.openRecorded(ctx, r.Device)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if size, err = d.Size(); err != nil {
		return 0, unavailable("size of device %s: %w", r.Device.Path, err)
	}
	switch {
	case size < want.Required:
		return 0, fmt.Errorf("%w: device %s has %d bytes, and %d are required", backends.ErrOutOfRange, r.Device.Path, size, want.Required)
	case want.Limit > 0 && size > want.Limit:
		return 0, fmt.Errorf("%w: device %s has %d bytes, and %d is the limit", backends.ErrOutOfRange, r.Device.Path, size, want.Limit)
	}
	if err := e.expandData(ctx, s, r, d, size); err != nil {
		return 0, err
	}
	if r.Device.Size == size {
		return size, nil
	}
	r.Device.Size = size
	return size, s.put(r)
}

// expandData grows what the user has on the device, which has size bytes.
func (e *Engine) expandData(ctx context.Context, s *store, r *record, d Device, size int64) (err error) {
	if r.Mapping != nil {
		in, err := e.expandMapping(ctx, r, d)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, in.Close()) }()
		d, size = in, r.Mapping.Size
	}
	if r.block() {
		return nil
	}
	return e.growStaged(ctx, s, r, d, size)
}

// growStaged grows the file system at the staging path; targets are binds of it.
func (e *Engine) growStaged(ctx context.Context, s *store, r *record, d Device, size int64) error {
	m, live, err := e.alive(s, r)
	switch {
	case err != nil:
		return err
	case !live:
		return refuse("it is not mounted at the staging path %s any more; stage it again", r.Path)
	case m.ReadOnly():
		return refuse("it is mounted read-only at %s, and is grown where it is writable", r.Path)
	}
	spans, err := e.kernel.FSSize(ctx, d, m.FSType, r.Path)
	if err != nil {
		return unavailable("size of the %s at %s: %w", m.FSType, r.Path, err)
	}
	if spans > 0 && !canGrow(spans, size) {
		return nil
	}
	if !e.kernel.GrowsOnline(m.FSType) {
		return refuse("this process may not grow a mounted %s (CAP_SYS_RESOURCE): the next stage grows it", m.FSType)
	}
	if err := e.step(ctx, "grow "+m.FSType); err != nil {
		return err
	}
	return e.growTo(ctx, d, m.FSType, r.Path)
}
