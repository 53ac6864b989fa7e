package mounter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/faultpoint"
	"github.com/csikit/csikit/mounter/mnt"
)

// mount brings a backends.Mount to the staging path.
func (s *staging) mount(ctx context.Context) error {
	if len(s.mounts) > 0 {
		return s.keep(ctx)
	}
	if err := s.makeStagingDir(); err != nil {
		return err
	}
	src := s.src.Mount
	if err := s.step(ctx, "mount "+src.FSType); err != nil {
		return err
	}
	if err := s.mountOther(ctx, src); err != nil {
		return fmt.Errorf("mount %s (%s): %w", src.Source, src.FSType, err)
	}
	// A helper may write the source in its own way; nothing was there before.
	m, err := s.look(func(mnt.Info) (bool, error) { return true, nil })
	if err != nil {
		return s.unmountAgain(err)
	}
	if err := s.setGroup(ctx); err != nil {
		return err
	}
	return s.ready(mountedAs(m))
}

// mountOther mounts what is no device: the backend does it where its server may hang.
func (s *staging) mountOther(ctx context.Context, src *backends.Mount) error {
	if s.far(s.rec) {
		return s.features.RemoteMounter.MountRemote(ctx, backends.MountRemoteRequest{
			ID: s.req.ID, Mount: *src, Flags: s.req.Capability.Flags, Target: s.path, ReadOnly: s.readOnly,
		})
	}
	return s.kernel.Mount(ctx, MountRequest{
		Source: src.Source, FSType: src.FSType, Target: s.path, ReadOnly: s.readOnly,
		Options: s.groupOption(mergeOptions(src.Options, s.req.Capability.Flags.Reveal())), Env: src.Env, Files: src.Files,
		IDMap: s.src.IDMap,
	})
}

// mergeOptions are the backend's options and those of the CO's that it did not
// pass on itself.
func mergeOptions(backend, co []string) []string {
	all := slices.Clone(backend)
	for _, o := range co {
		if !slices.Contains(all, o) {
			all = append(all, o)
		}
	}
	return all
}

// dir binds a directory to the staging path.
func (s *staging) dir(ctx context.Context) error {
	if len(s.mounts) > 0 {
		return s.keep(ctx)
	}
	if s.options.Data != "" || s.options.Super != 0 {
		return refuse("the volume is a directory: mount flags of a file system do not apply to it")
	}
	switch st, err := s.lookAtDir(ctx); {
	case err != nil:
		return unavailable("the volume's directory: %w", err)
	case !st.IsDir():
		return refuse("the volume's directory %s is none", s.rec.Dir)
	}
	if err := s.makeStagingDir(); err != nil {
		return err
	}
	if err := s.step(ctx, "bind"); err != nil {
		return err
	}
	if err := s.kernel.Bind(s.rec.Dir, s.path, mnt.BindOptions{ReadOnly: s.readOnly, Attr: s.options.Attr, Owners: mnt.OwnersOf(s.src.IDMap)}); err != nil {
		return fmt.Errorf("bind %s: %w", s.rec.Dir, err)
	}
	m, err := s.look(func(m mnt.Info) (bool, error) { return s.fromSource(m, s.path, s.rec) })
	if err != nil {
		return s.unmountAgain(err)
	}
	if err := s.setGroup(ctx); err != nil {
		return err
	}
	return s.ready(mountedAs(m))
}

// lookAtDir asks for the volume's directory, which may lie on a server that does not
// answer: that costs no more than the timeout, and one goroutine for each volume.
func (s *staging) lookAtDir(ctx context.Context) (fs.FileInfo, error) {
	return s.dirs.get(ctx, s.req.ID+"\x00"+s.rec.Dir, s.opts.StatsTimeout, func() (fs.FileInfo, error) { return os.Lstat(s.rec.Dir) })
}

// keep takes over a mount whose record was lost, or was not finished.
func (s *staging) keep(ctx context.Context) error {
	m := s.mounts[0]
	is, err := s.fromSource(m, s.path, s.rec)
	switch {
	case err != nil:
		return err
	case !is:
		return s.foreign()
	case m.ReadOnly() != s.readOnly:
		return fmt.Errorf("%w: mounted with read-only %v, and asked for with %v", backends.ErrIncompatible, m.ReadOnly(), s.readOnly)
	}
	if err := s.checkOwners(m); err != nil {
		return err
	}
	if err := s.setGroup(ctx); err != nil {
		return err
	}
	return s.ready(mountedAs(m))
}

// elsewhere is the record of another staging path at which the volume stands
// now, nil when there is none.
func (s *staging) elsewhere() (*record, error) {
	for _, r := range s.store.of(s.req.ID) {
		if r.Kind != kindStage || r.Path == s.path || r.Phase != phaseReady || r.BootID != s.boot {
			continue
		}
		if r.block() {
			return r, nil
		}
		_, live, err := s.alive(s.store, r)
		if err != nil {
			return nil, err
		}
		if live {
			return r, nil
		}
	}
	return nil, nil
}

// alive looks whether the mount of a staging record stands, and shows it.
func (e *Engine) alive(s *store, r *record) (mnt.Info, bool, error) {
	if r.BootID != e.boot {
		return mnt.Info{}, false, nil
	}
	mounts, err := e.mountsAt(r.Path)
	if err != nil || len(mounts) == 0 {
		return mnt.Info{}, false, err
	}
	is, err := e.ours(s, mounts[0], r.Path, r)
	return mounts[0], is, err
}

// join stages a volume that stands at another staging path already. OpenVolume
// is not called again; the mount there is bound.
func (s *staging) join(ctx context.Context, other *record) error {
	switch {
	case other.Access != s.rec.Access:
		return fmt.Errorf("%w: staged at %s as %s", backends.ErrIncompatible, other.Path, other.Access)
	case other.ReadOnly && !s.readOnly:
		return fmt.Errorf("%w: staged read-only at %s", backends.ErrIncompatible, other.Path)
	case !other.block() && other.Group != s.req.Capability.Group:
		return fmt.Errorf("%w: staged at %s with mount group %q", backends.ErrIncompatible, other.Path, other.Group)
	case !other.block() && !other.Flags.matches(s.req.Capability.Flags):
		return fmt.Errorf("%w: staged at %s with other mount flags", backends.ErrIncompatible, other.Path)
	case !other.block() && s.req.Capability.FSType != "" && s.req.Capability.FSType != other.fsType(s.req.Capability.FSType):
		return fmt.Errorf("%w: staged at %s with %s", backends.ErrIncompatible, other.Path, other.fsType(""))
	}
	s.rec.Source, s.rec.Device, s.rec.Mapping, s.rec.Mount, s.rec.Dir = other.Source, other.Device, other.Mapping, other.Mount, other.Dir
	s.rec.Server = other.Server
	s.rec.State, s.rec.Format, s.rec.Phase = other.State, other.Format, phaseOpen
	if other.block() {
		return s.joinBlock(ctx)
	}
	if len(s.mounts) > 0 {
		if !other.Mounted.is(s.mounts[0]) || s.mounts[0].ReadOnly() != s.readOnly {
			return s.foreign()
		}
		return s.ready(mountedAs(s.mounts[0]))
	}
	if err := s.makeStagingDir(); err != nil {
		return err
	}
	if err := s.store.put(s.rec); err != nil {
		return err
	}
	if err := s.step(ctx, "bind "+other.Path); err != nil {
		return err
	}
	if err := s.kernel.Bind(other.Path, s.path, mnt.BindOptions{ReadOnly: s.readOnly, Attr: s.options.Attr}); err != nil {
		return soften(fmt.Errorf("bind %s: %w", other.Path, err))
	}
	faultpoint.Reach("mounter.stage.joined")
	m, err := s.look(func(m mnt.Info) (bool, error) { return other.Mounted.is(m), nil })
	if err != nil {
		return s.unmountAgain(err)
	}
	return s.ready(mountedAs(m))
}

func (s *staging) joinBlock(ctx context.Context) error {
	if len(s.mounts) > 0 {
		return s.foreign()
	}
	d, err := s.openRecorded(ctx, s.rec.data())
	if err != nil {
		return soften(err)
	}
	return errors.Join(s.ready(nil), d.Close())
}
