package mounter

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mnt"
)

// A connection of FUSE that has lost its server stays dead: a volume is healed by
// a new server with a new mount, which takes the dead one's place at the staging
// path, and by new binds in the places of the dead ones. That is seen in the mount
// namespace of the engine and in those which get its mounts (mountPropagation:
// HostToContainer). A container with a private copy of the dead mount keeps it
// until it is started anew, and so do files that were open.

// describe says how to run a server, nil when that is not known any more.
type describe func(ctx context.Context, r *record) (*backends.FUSE, error)

// heal looks whether the server of a FUSE volume, if it is one, is dead, and then
// heals it. A server that does not answer is left to itself: it may have data.
func (e *Engine) heal(ctx context.Context, id string, how describe) error {
	s := e.records()
	if s == nil || e.opts.Servers == nil {
		return nil
	}
	id = e.own(s, id)
	r := e.fuseRecord(s, id)
	if r == nil {
		return nil
	}
	sick, err := e.sick(ctx, s, r)
	if err != nil || !sick {
		return err
	}
	unlock, err := e.lockFUSE(ctx, s, r)
	if err != nil {
		return err
	}
	defer unlock()
	h := &healing{Engine: e, store: s, id: id, how: how}
	if err := h.run(ctx); err != nil {
		return soften(fmt.Errorf("heal: %w", err)) // its dead mounts are left
	}
	return nil
}

// fuseRecord is the staging record by which a FUSE volume is healed.
func (e *Engine) fuseRecord(s *store, id string) *record {
	for _, r := range s.of(id) {
		if r.Kind == kindStage && r.Source == sourceFUSE && r.BootID == e.boot && (r.Phase == phaseReady || r.Server.Healing) && r.Rebind == nil {
			return r
		}
	}
	return nil
}

// sick reports whether the volume of r is to be healed: its mount is dead, or an
// earlier call has not finished healing it.
func (e *Engine) sick(ctx context.Context, s *store, r *record) (bool, error) {
	if r.Server.Healing {
		return true, nil
	}
	m, live, err := e.alive(s, r)
	if err != nil || !live {
		return false, err
	}
	err = e.answers(ctx, r.Path, m.Dev, e.opts.ServerAnswer)
	switch {
	case errors.Is(err, errDead):
		return true, nil
	case errors.Is(err, errNoAnswer):
		st, find := e.opts.Servers.Find(ctx, r.Volume)
		if find != nil {
			return false, unavailable("its server does not answer (%w), and the host of servers neither: %w", err, find)
		}
		return false, unavailable("%w of its server: %s", err, st)
	case err != nil:
		return false, err
	}
	return slices.ContainsFunc(s.of(r.Volume), func(o *record) bool { return o.Rebind != nil }), nil
}

// lockFUSE locks a volume as the CO's own calls do, with all its paths.
func (e *Engine) lockFUSE(ctx context.Context, s *store, r *record) (unlock func(), err error) {
	var paths []string
	for _, o := range s.of(r.Volume) {
		paths = append(paths, o.Path)
	}
	if r.For == "" {
		return e.lock(ctx, r.Volume, paths)
	}
	outer, err := e.lock(ctx, r.For, paths)
	if err != nil {
		return nil, err
	}
	inner, err := e.lock(ctx, r.Volume, nil)
	if err != nil {
		outer()
		return nil, err
	}
	return func() { inner(); outer() }, nil
}

// healing is one call of heal that has found a dead mount.
type healing struct {
	*Engine
	store *store
	id    string
	how   describe
}

func (h *healing) run(ctx context.Context) error {
	r := h.fuseRecord(h.store, h.id)
	if r == nil || h.records() != h.store {
		return nil // unstaged meanwhile
	}
	sick, err := h.sick(ctx, h.store, r)
	if err != nil || !sick {
		return err
	}
	dead, err := h.dead(ctx, r)
	if err != nil {
		return err
	}
	if dead {
		if err := h.again(ctx, r); err != nil {
			return err
		}
	}
	return h.rebindAll(ctx, r)
}

// dead reports whether the mount of r is, and not only one of the binds of it.
func (h *healing) dead(ctx context.Context, r *record) (bool, error) {
	if r.Server.Healing {
		return true, nil
	}
	m, live, err := h.alive(h.store, r)
	if err != nil || !live {
		return false, err
	}
	return errors.Is(h.answers(ctx, r.Path, m.Dev, h.opts.ServerAnswer), errDead), nil
}

// again gives the volume a new server and a new mount at the staging path.
func (h *healing) again(ctx context.Context, r *record) error {
	if err := h.markBinds(r); err != nil {
		return err
	}
	if st, err := h.opts.Servers.Find(ctx, h.id); err == nil {
		h.log.WarnContext(ctx, "mount of a FUSE volume is dead", "volume", h.id, "path", r.Path, "server", st.String())
	}
	r.Server.Healing = true
	if err := h.store.put(r); err != nil {
		return err
	}
	mounts, err := h.mountsAt(r.Path)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		if !h.store.shows(r, mounts[0]) {
			is, err := h.fromSource(mounts[0], r.Path, r)
			if err != nil || !is {
				return errors.Join(err, unavailable("something else is mounted at %s: %s; it is left alone", r.Path, describeMount(mounts[0])))
			}
		}
		if err := h.takeOffFUSE(r.Path, mounts[0].Dev); err != nil {
			return err
		}
	}
	m, err := h.serveAgain(ctx, r)
	if err != nil {
		return err
	}
	r.Mounted, r.Phase, r.Server.Healing = mountedAs(m), phaseReady, false
	if err := h.store.put(r); err != nil {
		return err
	}
	h.log.InfoContext(ctx, "FUSE volume has a new server", "volume", h.id, "path", r.Path)
	return nil
}

// serveAgain finds out how to run the server: who calls may know it best, then
// this process, then the host, then the backend.
func (h *healing) serveAgain(ctx context.Context, r *record) (mnt.Info, error) {
	run := h.fuse.remembered(h.id)
	if h.how != nil {
		f, err := h.how(ctx, r)
		if err != nil {
			return mnt.Info{}, err
		}
		if f != nil {
			run = f
		}
	}
	if run != nil {
		h.fuse.remember(h.id, run)
		return h.serve(ctx, r, run)
	}
	m, err := h.serve(ctx, r, nil)
	if !errors.Is(err, backends.ErrNotFound) {
		return m, err
	}
	return mnt.Info{}, unavailable("neither this driver nor the host of servers knows any more how to run its server; stage it again: %w", err)
}

// markBinds writes down which binds of the dead mount there are, and how they were
// made: the mount table will not say any more once they are off.
func (h *healing) markBinds(r *record) error {
	for _, o := range h.store.of(h.id) {
		if o.Path == r.Path || o.BootID != h.boot || o.Rebind != nil || o.Kind == kindEphemeral {
			continue
		}
		mounts, err := h.mountsAt(o.Path)
		if err != nil {
			return err
		}
		if len(mounts) == 0 || !h.store.shows(o, mounts[0]) {
			continue // taken off, or covered, by somebody else
		}
		o.Rebind = &rebindRecord{Options: slices.DeleteFunc(slices.Clone(mounts[0].Options), func(w string) bool { return w == "idmapped" })}
		if err := h.store.put(o); err != nil {
			return err
		}
	}
	return nil
}

func (h *healing) rebindAll(ctx context.Context, r *record) error {
	var errs []error
	for _, o := range h.store.of(h.id) {
		if o.Rebind == nil {
			continue
		}
		if err := h.rebind(ctx, r, o); err != nil {
			errs = append(errs, fmt.Errorf("bind at %s: %w", o.Path, err))
		}
	}
	return errors.Join(errs...)
}

// rebind puts a bind of the new mount in the place of one of the dead one.
func (h *healing) rebind(ctx context.Context, r, o *record) error {
	if err := h.step(ctx, "bind again"); err != nil {
		return err
	}
	mounts, err := h.mountsAt(o.Path)
	if err != nil {
		return err
	}
	if len(mounts) > 0 && o.Mounted.is(mounts[0]) && !r.Mounted.is(mounts[0]) {
		if err := h.takeOffFUSE(o.Path, mounts[0].Dev); err != nil {
			return err
		}
		if mounts, err = h.mountsAt(o.Path); err != nil {
			return err
		}
	}
	if len(mounts) == 0 {
		if mounts, err = h.bindAgain(r, o); err != nil {
			return err
		}
	}
	if !r.Mounted.is(mounts[0]) || mounts[0].ReadOnly() != o.ReadOnly {
		return unavailable("%s holds %s, read-only %v", o.Path, describeMount(mounts[0]), mounts[0].ReadOnly())
	}
	o.Mounted, o.Rebind = mountedAs(mounts[0]), nil
	return h.store.put(o)
}

func (h *healing) bindAgain(r, o *record) ([]mnt.Info, error) {
	options, err := mnt.ParseOptions(o.Rebind.Options)
	if err != nil {
		return nil, err
	}
	if _, err := makeDir(o.Path); err != nil {
		return nil, err
	}
	if err := h.kernel.Bind(r.Path, o.Path, mnt.BindOptions{ReadOnly: o.ReadOnly, Attr: options.Attr}); err != nil {
		return nil, err
	}
	mounts, err := h.mountsAt(o.Path)
	if err == nil && len(mounts) == 0 {
		err = unavailable("the kernel shows no mount there after binding it")
	}
	return mounts, err
}

// reopen is how Stage describes a server: by asking the backend, with the secrets
// of the stage.
func (e *Engine) reopen(ctx context.Context, req StageRequest, r *record) (*backends.FUSE, error) {
	src, err := e.node.OpenVolume(ctx, backends.OpenVolumeRequest{
		ID: r.Volume, Capability: req.Capability, Context: req.Context, PublishContext: req.PublishContext,
		Owner: req.Owner, Secrets: req.Secrets, State: r.State,
	})
	switch {
	case err != nil:
		return nil, err
	case src == nil || src.FUSE == nil:
		return nil, refuse("the backend gave no FUSE file system for what is staged as one")
	}
	r.State = src.State
	return src.FUSE, e.sameFUSE(src.FUSE, r)
}

// sameFUSE refuses a server of something else.
func (e *Engine) sameFUSE(f *backends.FUSE, r *record) error {
	if f.Source != r.Mount.Source || "fuse."+f.Subtype != r.Mount.FSType {
		return refuse("the backend gave %s of type fuse.%s, and %s (%s) is staged", f.Source, f.Subtype, r.Mount.Source, r.Mount.FSType)
	}
	return e.checkFUSE(f)
}

// healForPublish heals a volume before it is published, again or for the first
// time.
func (e *Engine) healForPublish(ctx context.Context, req PublishRequest) error {
	if err := e.healFar(ctx, StageRequest{
		ID: req.ID, Capability: req.Capability, Context: req.Context, PublishContext: req.PublishContext, Owner: req.Owner, Secrets: req.Secrets,
	}); err != nil {
		return err
	}
	return e.heal(ctx, req.ID, func(ctx context.Context, r *record) (*backends.FUSE, error) {
		return e.askBackend(ctx, r, req.Secrets)
	})
}

// healUnasked heals a volume of which the CO has said nothing.
func (e *Engine) healUnasked(ctx context.Context, id string) error {
	return e.heal(ctx, id, func(ctx context.Context, r *record) (*backends.FUSE, error) {
		return e.askBackend(ctx, r, backends.Secrets{})
	})
}

// askBackend asks a backend that can tell from the little that is known. Its
// answer is not needed while somebody remembers what was run.
func (e *Engine) askBackend(ctx context.Context, r *record, secrets backends.Secrets) (*backends.FUSE, error) {
	x := e.features.FUSEReopener
	if x == nil || e.fuse.remembered(r.Volume) != nil {
		return nil, nil
	}
	if st, err := e.opts.Servers.Find(ctx, r.Volume); err != nil || st.State != ServerUnknown {
		return nil, err
	}
	f, err := x.ReopenFUSE(ctx, backends.ReopenFUSERequest{ID: r.Volume, State: r.State, Secrets: secrets})
	if err != nil || f == nil {
		return nil, err
	}
	return f, e.sameFUSE(f, r)
}
