package mounter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// healFar mounts a remote volume anew whose root its server does not know any more
// (ESTALE): its directory was replaced, or its file system. The new mount takes the
// place of the old one at the staging path, and new binds those of the old ones; a
// container with a copy of the old one keeps that until it is started anew. A server
// that does not answer changes nothing here.
func (e *Engine) healFar(ctx context.Context, req StageRequest) error {
	s := e.records()
	if s == nil || e.features.RemoteMounter == nil {
		return nil
	}
	req.ID = e.own(s, req.ID)
	r := e.farRecord(s, req)
	if r == nil || !e.stale(ctx, r) {
		return nil
	}
	unlock, err := e.lockFUSE(ctx, s, r)
	if err != nil {
		return err
	}
	defer unlock()
	if r = e.farRecord(s, req); r == nil || e.records() != s || !e.stale(ctx, r) {
		return nil // somebody was faster
	}
	h := &healing{Engine: e, store: s, id: req.ID}
	if err := h.remount(ctx, r, req); err != nil {
		return unavailable("mount it anew, for its server does not know its directory any more: %w", err)
	}
	return nil
}

// farRecord is the staging record of a remote volume that stands, and was staged as
// req says.
func (e *Engine) farRecord(s *store, req StageRequest) *record {
	for _, r := range s.of(req.ID) {
		if r.Kind != kindStage || !e.far(r) || r.BootID != e.boot || r.Phase != phaseReady || !r.Flags.matches(req.Capability.Flags) {
			continue
		}
		if _, live, err := e.alive(s, r); err == nil && live {
			return r
		}
	}
	return nil
}

func (e *Engine) stale(ctx context.Context, r *record) bool {
	err := e.features.RemoteMounter.CheckRemote(ctx, backends.CheckRemoteRequest{ID: r.Volume, Path: r.Path, State: r.State})
	return errors.Is(err, backends.ErrDataLoss)
}

// remount puts a new mount in the place of the one of r, and new binds.
func (h *healing) remount(ctx context.Context, r *record, req StageRequest) error {
	h.log.WarnContext(ctx, "remote volume is mounted anew: its server does not know its directory any more", "volume", h.id, "path", r.Path)
	src, err := h.node.OpenVolume(ctx, backends.OpenVolumeRequest{
		ID: r.Volume, Capability: req.Capability, Context: req.Context, PublishContext: req.PublishContext,
		Owner: req.Owner, Secrets: req.Secrets, State: r.State,
	})
	switch {
	case err != nil:
		return err
	case src == nil || src.Mount == nil || src.Mount.Source != r.Mount.Source:
		return refuse("the backend gave another source than %s, which is staged", r.Mount.Source)
	}
	if err := h.markBinds(r); err != nil {
		return err
	}
	if err := h.step(ctx, "mount again"); err != nil {
		return err
	}
	beside, err := h.mountBeside(ctx, r, *src.Mount, req.Capability.Flags)
	if err != nil {
		return errors.Join(err, h.dropBeside(ctx, beside))
	}
	// If this process dies now, the volume is not staged any more.
	r.Phase, r.State = phaseOpen, src.State
	if err := h.store.put(r); err != nil {
		return errors.Join(err, h.dropBeside(ctx, beside))
	}
	if err := h.replace(ctx, r, beside); err != nil {
		return errors.Join(err, h.dropBeside(ctx, beside))
	}
	if err := h.rebindFar(ctx, r); err != nil {
		return errors.Join(err, h.dropBeside(ctx, beside))
	}
	return h.dropBeside(ctx, beside)
}

// besidePrefix begins the names of directories in the state directory that hold a new
// mount until it has taken its place.
const besidePrefix = "beside-"

// mountBeside mounts the volume where nobody sees it, and asks whether that is any
// better: a share that is not exported for a while has stale handles too, and the
// old mount is well when it is exported again.
func (h *healing) mountBeside(ctx context.Context, r *record, m backends.Mount, flags backends.Flags) (path string, err error) {
	path = filepath.Join(h.opts.StateDir, besidePrefix+shortHash(r.Volume))
	if err := h.dropBeside(ctx, path); err != nil {
		return path, err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return path, unavailable("%w", err)
	}
	rm := h.features.RemoteMounter
	err = rm.MountRemote(ctx, backends.MountRemoteRequest{ID: r.Volume, Mount: m, Flags: flags, Target: path, ReadOnly: r.ReadOnly})
	if err != nil {
		return path, err
	}
	return path, rm.CheckRemote(ctx, backends.CheckRemoteRequest{ID: r.Volume, Path: path, State: r.State})
}

// dropBeside takes such a mount away, and its directory.
func (e *Engine) dropBeside(ctx context.Context, path string) error {
	mounts, err := e.mountsAt(path)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		if err := e.features.RemoteMounter.UnmountRemote(ctx, backends.UnmountRemoteRequest{Path: path, Detach: true}); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil && !missing(err) {
		return unavailable("%w", err)
	}
	return nil
}

// dropAllBeside takes away what a killed process has left.
func (e *Engine) dropAllBeside(ctx context.Context) {
	if e.features.RemoteMounter == nil {
		return
	}
	left, err := filepath.Glob(filepath.Join(e.opts.StateDir, besidePrefix+"*"))
	for _, path := range left {
		err = errors.Join(err, e.dropBeside(ctx, path))
	}
	if err != nil {
		e.log.WarnContext(ctx, "a mount of an earlier process is left", "err", err)
	}
}

// replace puts the mount beside in the place of the one at the staging path.
func (h *healing) replace(ctx context.Context, r *record, beside string) error {
	mounts, err := h.mountsAt(r.Path)
	if err != nil {
		return err
	}
	attr := mnt.Options{}
	if len(mounts) > 0 {
		// Which of the old mount's attributes are the CO's, its options say.
		if attr, err = mnt.ParseOptions(mounts[0].Options); err != nil {
			return err
		}
	}
	if err := h.freeFar(ctx, r.Path); err != nil {
		return err
	}
	if err := h.kernel.Bind(beside, r.Path, mnt.BindOptions{ReadOnly: r.ReadOnly, Attr: attr.Attr}); err != nil {
		return unavailable("%w", err)
	}
	mounts, err = h.mountsAt(r.Path)
	if err == nil && len(mounts) == 0 {
		err = unavailable("the kernel shows no mount at %s", r.Path)
	}
	if err != nil {
		return err
	}
	r.Mounted, r.Phase = mountedAs(mounts[0]), phaseReady
	return h.store.put(r)
}

func (h *healing) rebindFar(ctx context.Context, r *record) error {
	var errs []error
	for _, o := range h.store.of(h.id) {
		if o.Rebind == nil {
			continue
		}
		err := h.freeFar(ctx, o.Path)
		var mounts []mnt.Info
		if err == nil {
			mounts, err = h.bindAgain(r, o)
		}
		if err == nil {
			o.Mounted, o.Rebind = mountedAs(mounts[0]), nil
			err = h.store.put(o)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("bind at %s: %w", o.Path, err))
		}
	}
	return errors.Join(errs...)
}

// freeFar takes a mount off of which nothing can be used any more.
func (h *healing) freeFar(ctx context.Context, path string) error {
	return h.features.RemoteMounter.UnmountRemote(ctx, backends.UnmountRemoteRequest{Path: path, Detach: true})
}
