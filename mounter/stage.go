package mounter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/faultpoint"
	"github.com/csikit/csikit/mounter/mnt"
)

// Stage opens the volume and mounts it at the staging path; a raw block volume
// is opened and identified, and nothing is mounted. Staged already with the same
// capability it looks again and says so; with another one it is
// backends.ErrIncompatible. A device is formatted only if decide allows it.
//
// When it fails with a kind that a CO takes for final, nothing is left open.
func (e *Engine) Stage(ctx context.Context, req StageRequest) error {
	path, err := cleanPath("staging path", req.Path)
	if err != nil {
		return err
	}
	if err := e.heal(ctx, req.ID, func(ctx context.Context, r *record) (*backends.FUSE, error) {
		return e.reopen(ctx, req, r)
	}); err != nil {
		return fmt.Errorf("stage volume %q at %s: %w", req.ID, path, err)
	}
	if err := e.healFar(ctx, req); err != nil {
		return fmt.Errorf("stage volume %q at %s: %w", req.ID, path, err)
	}
	store, done, err := e.begin(ctx, req.ID, path)
	if err != nil {
		return err
	}
	defer done()
	s := &staging{Engine: e, store: store, req: req, path: path}
	if err := s.run(ctx); err != nil {
		return fmt.Errorf("stage volume %q at %s: %w", req.ID, path, err)
	}
	return nil
}

// staging is one call of Stage.
type staging struct {
	*Engine
	store    *store
	req      StageRequest
	path     string
	options  mnt.Options // the CO's
	readOnly bool
	gid      int // -1: none
	// adoptOnly takes over what is mounted, and mounts nothing: for Publish.
	adoptOnly bool

	// Of an ephemeral volume, which is staged at its target.
	forID        string // the CO's ID
	alsoReadOnly bool
	beforeMount  func(context.Context) error

	mounts []mnt.Info // at path, before
	known  bool       // there was a record
	others bool       // mounts are surely not the volume
	rec    *record
	src    *backends.Source
	crypt  *encrypted // nil: it is not encrypted, or not known to be
	done   bool       // an earlier call has left the memory of a file system
	extra  []string   // mount options of the engine's own
	uuid   string     // of the file system that was there; "": it is new
	live   bool       // it is mounted, and not in this namespace
}

func (s *staging) run(ctx context.Context) error {
	if err := s.parse(); err != nil {
		return err
	}
	if err := s.notHanging(s.path); err != nil {
		return err
	}
	var err error
	if s.mounts, err = s.mountsAt(s.path); err != nil {
		return err
	}
	if len(s.mounts) == 0 && s.adoptOnly {
		return refuse("it is not staged at %s any more", s.path)
	}
	if len(s.mounts) > 0 {
		if o := s.store.others(s.req.ID, s.path); len(o) > 0 {
			return refuse("volume %q is there", o[0].Volume)
		}
	}
	before := s.store.get(kindStage, s.req.ID, s.path)
	if before != nil && before.BootID == s.boot && before.Phase == phaseReady {
		if staged, err := s.again(ctx, before); staged || err != nil {
			return err
		}
	}
	s.newRecord(before)
	if err := s.checkPath(); err != nil {
		if s.known {
			return s.giveUp(ctx, err)
		}
		return err
	}
	if other, err := s.elsewhere(); err != nil {
		return err
	} else if other != nil {
		return s.join(ctx, other)
	}
	return s.open(ctx)
}

// checkPath refuses a staging path that cannot become a directory before anything
// is opened. What is mounted there already may be on a server that does not
// answer, and is one; a raw block volume needs none.
func (s *staging) checkPath() error {
	if len(s.mounts) > 0 || s.req.Capability.Block {
		return nil
	}
	if strings.HasPrefix(s.opts.StateDir+"/", s.path+"/") {
		return refuse("the driver's own state lies at staging path %s or below it", s.path)
	}
	st, err := os.Lstat(s.path)
	switch {
	case errors.Is(err, syscall.ENOTDIR) || err == nil && !st.IsDir():
		return refuse("staging path %s is no directory, or lies below a file", s.path)
	case err != nil && !missing(err):
		return unavailable("staging path: %w", err)
	}
	return nil
}

// parse reads what the CO asks for.
func (s *staging) parse() error {
	c := s.req.Capability
	s.gid = -1
	if c.Block {
		s.readOnly = c.Mode.ReadOnly()
		return nil
	}
	var err error
	if s.options, err = mnt.ParseOptions(c.Flags.Reveal()); err != nil {
		return err
	}
	s.readOnly = s.options.ReadOnly || c.Mode.ReadOnly() || s.alsoReadOnly
	if c.Group != "" {
		if s.gid, err = parseGroup(c.Group); err != nil {
			return err
		}
	}
	return nil
}

// again looks whether the volume still is as the record says; if not it is
// opened anew.
func (s *staging) again(ctx context.Context, before *record) (staged bool, err error) {
	if before.block() {
		if len(s.mounts) > 0 {
			return false, s.foreign()
		}
		d, err := s.openRecorded(ctx, before.data())
		if err != nil {
			s.log.WarnContext(ctx, "staged device is not there any more", "volume", s.req.ID, "path", s.path, "err", err)
			return false, s.step(ctx, "look again")
		}
		return true, errors.Join(s.compatible(before), d.Close())
	}
	if len(s.mounts) == 0 {
		return false, nil
	}
	is, err := s.ours(s.store, s.mounts[0], s.path, before)
	switch {
	case err != nil:
		return false, err
	case !is:
		return false, s.foreign()
	}
	if err := s.compatible(before); err != nil {
		return false, err
	}
	return true, s.checkReadOnly(s.mounts[0])
}

func (s *staging) foreign() error {
	s.others = true
	return refuse("something else is mounted there: %s; it is left alone", describeMount(s.mounts[0]))
}

// compatible compares what is staged with what is asked for.
func (s *staging) compatible(r *record) error {
	c := s.req.Capability
	differ := func(what string, is, want any) error {
		return fmt.Errorf("%w: staged with %s %v, and asked for with %v", backends.ErrIncompatible, what, is, want)
	}
	switch {
	case r.Access != access(c):
		return differ("access type", r.Access, access(c))
	case r.ReadOnly != s.readOnly:
		return differ("read-only", r.ReadOnly, s.readOnly)
	case !sameMode(r.Mode, c.Mode.String()):
		return differ("access mode", r.Mode, c.Mode)
	case r.Group != c.Group:
		return differ("mount group", r.Group, c.Group)
	case !r.block() && !r.Flags.matches(c.Flags):
		return fmt.Errorf("%w: staged with other mount flags", backends.ErrIncompatible)
	case !r.block() && c.FSType != "" && c.FSType != r.fsType(c.FSType):
		return differ("file system", r.fsType(""), c.FSType)
	}
	return nil
}

// fsType is what the volume holds, or was asked for; any when neither is known.
func (r *record) fsType(anything string) string {
	switch {
	case r.Source == sourceDevice && r.Mounted != nil:
		return r.Mounted.FSType
	case r.FSType != "":
		return r.FSType
	}
	return anything
}

func access(c backends.Capability) string {
	if c.Block {
		return accessBlock
	}
	return accessMount
}

// sameMode knows that a CO calls ReadWriteOnce SINGLE_NODE_WRITER or
// SINGLE_NODE_MULTI_WRITER, depending on the versions of both sides.
func sameMode(a, b string) bool {
	once := []string{backends.SingleNodeWriter.String(), backends.SingleNodeMultiWriter.String()}
	return a == b || slices.Contains(once, a) && slices.Contains(once, b)
}

// newRecord starts the record of this attempt with what earlier ones left.
func (s *staging) newRecord(before *record) {
	c := s.req.Capability
	r := &record{
		Kind: kindStage, Volume: s.req.ID, Path: s.path, BootID: s.boot, Phase: phaseOpening,
		Access: access(c), Mode: c.Mode.String(), FSType: c.FSType, ReadOnly: s.readOnly, Group: c.Group, For: s.forID,
	}
	if !c.Block {
		r.Flags = newDigest(c.Flags)
	}
	all := s.store.of(s.req.ID)
	s.known = before != nil
	if s.known {
		all = append([]*record{before}, all...)
		r.Mounted = before.Mounted // until the kernel is asked again
	}
	for _, o := range all {
		if o.Kind != kindStage {
			continue
		}
		if r.State == nil && r.Source == "" {
			r.State, r.Source, r.Device, r.Mapping, r.Mount, r.Dir = o.State, o.Source, o.Device, o.Mapping, o.Mount, o.Dir
			r.Server = o.Server
		}
		if r.Format == nil || r.Format.State == formatStarted && o.Format != nil && o.Format.State == formatDone {
			r.Format = o.Format
		}
	}
	s.done = r.Format != nil && r.Format.State == formatDone
	s.rec = r
}

// open asks the backend for the volume and brings it to the staging path.
func (s *staging) open(ctx context.Context) error {
	if err := s.store.put(s.rec); err != nil {
		return err
	}
	if err := s.step(ctx, "open volume"); err != nil {
		return err
	}
	src, err := s.node.OpenVolume(ctx, backends.OpenVolumeRequest{
		ID: s.req.ID, Capability: s.req.Capability, Context: s.req.Context, PublishContext: s.req.PublishContext,
		Owner: s.req.Owner, Secrets: s.req.Secrets, State: s.rec.State,
	})
	faultpoint.Reach("mounter.stage.opened")
	err = ofVolume(err, s.req.ID)
	if err != nil && final(err) && !s.known {
		// The backend says that it opened nothing, and nothing was open before.
		return s.forget(err)
	}
	if err != nil {
		return s.giveUp(ctx, err)
	}
	if err := s.checkSource(src); err != nil {
		if src != nil {
			s.rec.State = src.State
		}
		return s.giveUp(ctx, err)
	}
	s.src = src
	s.rec.setSource(src)
	s.rec.Phase = phaseOpen
	// A device without State is written down when more is known of it, and
	// before it is mounted.
	if s.rec.Source != sourceDevice || len(s.rec.State) > 0 {
		if err := s.store.put(s.rec); err != nil {
			return err
		}
	}
	return s.giveUp(ctx, s.bring(ctx))
}

func (s *staging) bring(ctx context.Context) error {
	if s.beforeMount != nil && len(s.mounts) == 0 {
		if err := s.beforeMount(ctx); err != nil {
			return err
		}
	}
	switch s.rec.Source {
	case sourceDevice:
		return s.device(ctx)
	case sourceMount:
		return s.mount(ctx)
	case sourceFUSE:
		return s.bringFUSE(ctx)
	default:
		return s.dir(ctx)
	}
}

// giveUp leaves nothing open behind a final error. If that fails, or if the
// record is the only memory of an mkfs that was cut short, or of a file system
// that must never be formatted again, and so has to stay as long as the device
// is in the engine's hands, the error is not final any more.
func (s *staging) giveUp(ctx context.Context, err error) error {
	if err == nil || !final(err) {
		return err
	}
	if s.rec.growing() != "" || !s.crypt.marked() && (s.rec.cutShort(s.boot) || s.remembers(err)) {
		return soften(err)
	}
	if len(s.mounts) > 0 && !s.others {
		return soften(err) // it may be the volume, so that stays open
	}
	if undo := s.closeVolume(ctx, s.store, s.rec); undo != nil {
		return unavailable("%w (and the volume is still open: %w)", err, undo)
	}
	return err
}

// forget takes the record back that this call began.
func (s *staging) forget(err error) error {
	if undo := s.store.remove(s.rec); undo != nil {
		return unavailable("%w (and its record is left: %w)", err, undo)
	}
	return err
}

// remembers reports whether the record knows of a file system of which nobody
// else does. Of a volume that is gone there is nothing to remember.
func (s *staging) remembers(err error) bool {
	return s.done && s.features.FormatRecorder == nil && !goneVolume(err, s.req.ID)
}

// ready records what the kernel showed; with it the stage is done.
func (s *staging) ready(m *mountedRecord) error {
	s.rec.Mounted = m
	s.rec.Phase = phaseReady
	return s.store.put(s.rec)
}
