package mounter

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/faultpoint"
	"github.com/csikit/csikit/mounter/mnt"
)

// Publish binds a staged volume to a target path, which it makes. Published
// there already with the same arguments it looks again and says so; with others
// it is backends.ErrIncompatible. Nothing is ever stacked. A staging path that
// is not a live mount of the volume is backends.ErrPrecondition.
//
// An ephemeral volume is made for the target (backends.EphemeralProvisioner) and
// mounted there; when that fails with a kind that a CO takes for final, it is
// deleted again.
func (e *Engine) Publish(ctx context.Context, req PublishRequest) error {
	path, err := cleanPath("target path", req.Path)
	if err != nil {
		return err
	}
	if err := e.healForPublish(ctx, req); err != nil {
		return fmt.Errorf("publish volume %q at %s: %w", req.ID, path, err)
	}
	if req.Ephemeral {
		return e.publishEphemeral(ctx, req, path)
	}
	if req.StagingPath == "" {
		return refuse("publish volume %q at %s: no staging path", req.ID, path)
	}
	staging, err := cleanPath("staging path", req.StagingPath)
	if err != nil {
		return err
	}
	store, done, err := e.begin(ctx, req.ID, path, staging)
	if err != nil {
		return err
	}
	defer done()
	p := &publishing{Engine: e, store: store, req: req, path: path, staging: staging}
	if err := p.run(ctx); err != nil {
		return fmt.Errorf("publish volume %q at %s: %w", req.ID, path, err)
	}
	return nil
}

// publishing is one call of Publish.
type publishing struct {
	*Engine
	store         *store
	req           PublishRequest
	path, staging string
	readOnly      bool
	options       mnt.Options

	stage  *record
	source mnt.Info // the staging mount; not for block volumes
	mounts []mnt.Info
	rec    *record
	made   bool // the target is this call's
}

func (p *publishing) run(ctx context.Context) error {
	if err := p.parse(); err != nil {
		return err
	}
	if err := p.notHanging(p.path, p.staging); err != nil {
		return err
	}
	if err := p.staged(ctx); err != nil {
		return err
	}
	var err error
	if p.mounts, err = p.mountsAt(p.path); err != nil {
		return err
	}
	if o := p.store.others(p.req.ID, p.path); len(o) > 0 && len(p.mounts) > 0 {
		return refuse("volume %q is there", o[0].Volume)
	}
	before := p.store.get(kindPublish, p.req.ID, p.path)
	if len(p.mounts) > 0 {
		return p.again(ctx, before)
	}
	if err := p.besides(); err != nil {
		return err
	}
	p.newRecord()
	if p.stage.block() {
		return p.block(ctx)
	}
	return p.bind(ctx)
}

func (p *publishing) parse() error {
	c := p.req.Capability
	p.readOnly = p.req.ReadOnly || c.Mode.ReadOnly()
	if p.path == p.staging {
		return fmt.Errorf("%w: target path and staging path are the same", backends.ErrInvalid)
	}
	if c.Block {
		return nil
	}
	var err error
	if p.options, err = mnt.ParseOptions(c.Flags.Reveal()); err != nil {
		return err
	}
	p.readOnly = p.readOnly || p.options.ReadOnly
	return nil
}

// staged makes sure that the volume stands at the staging path, as the kernel
// has it.
func (p *publishing) staged(ctx context.Context) error {
	p.stage = p.store.get(kindStage, p.req.ID, p.staging)
	if p.stage == nil {
		if err := p.recoverStage(ctx); err != nil {
			return err
		}
	}
	r := p.stage
	switch {
	case r.BootID != p.boot || r.Phase != phaseReady:
		return refuse("it is not staged at %s (%s)", p.staging, r.Phase)
	case r.Access != access(p.req.Capability):
		return refuse("it is staged as %s volume", r.Access)
	case r.ReadOnly && !p.readOnly:
		return refuse("it is staged read-only")
	case p.req.Capability.Group != "" && p.req.Capability.Group != r.Group:
		return refuse("it is staged for mount group %q, and %q was asked for: a volume has one at a time on a node", r.Group, p.req.Capability.Group)
	case r.block():
		return nil // its device is opened and identified later on
	}
	if t := p.req.Capability.FSType; t != "" && t != r.fsType(t) {
		return refuse("it is staged with %s, and %s was asked for", r.fsType(""), t)
	}
	m, live, err := p.alive(p.store, r)
	switch {
	case err != nil:
		return err
	case !live:
		return refuse("it is not mounted at the staging path %s any more; stage it again", p.staging)
	case m.ReadOnly() && !p.readOnly:
		return unavailable("the staging mount %s is read-only, and a writable one was asked for (a file system that found errors makes itself read-only)", p.staging)
	}
	p.source = m
	return p.checkLabel(m)
}

// recoverStage makes the record of a staging path anew if a mount is there: the
// record was lost, and staging it again takes the mount over or refuses it.
func (p *publishing) recoverStage(ctx context.Context) error {
	mounts, err := p.mountsAt(p.staging)
	if err != nil {
		return err
	}
	if len(mounts) == 0 || p.req.Capability.Block {
		return refuse("it is not staged at %s", p.staging)
	}
	p.log.WarnContext(ctx, "no record of a staged volume; looking at its mount", "volume", p.req.ID, "path", p.staging)
	s := &staging{Engine: p.Engine, store: p.store, path: p.staging, adoptOnly: true, req: StageRequest{
		ID: p.req.ID, Path: p.staging, Capability: p.req.Capability, Context: p.req.Context,
		PublishContext: p.req.PublishContext, Owner: p.req.Owner, Secrets: p.req.Secrets,
	}}
	if err := s.run(ctx); err != nil {
		if !final(err) {
			return err
		}
		return refuse("something is mounted at the staging path %s, there is no record of it, and it could not be made out: %v", p.staging, err)
	}
	p.stage = p.store.get(kindStage, p.req.ID, p.staging)
	return nil
}

// again answers for a target that is a mount point already.
func (p *publishing) again(ctx context.Context, before *record) error {
	top := p.mounts[0]
	is, err := p.isPublished(ctx, top)
	switch {
	case err != nil:
		return err
	case !is && before != nil && before.BootID == p.boot && p.store.shows(before, top):
		return fmt.Errorf("%w: what is published there is another mount or device than is staged now", backends.ErrIncompatible)
	case !is:
		return refuse("something else is mounted there: %s; it is left alone", describeMount(top))
	}
	if err := p.compatible(before, top); err != nil {
		return err
	}
	if err := p.keepFlag(ctx); err != nil {
		return err
	}
	if before == nil || before.BootID != p.boot || before.Phase != phaseReady {
		p.newRecord()
		if err := p.ready(top); err != nil {
			return err
		}
	}
	return p.prepareTarget(ctx, true)
}

func (p *publishing) isPublished(ctx context.Context, top mnt.Info) (bool, error) {
	if !p.stage.block() {
		return mountedAs(p.source).is(top), nil
	}
	dev, err := p.kernel.DeviceAt(p.path)
	if err != nil || dev != p.stage.data().Num {
		return false, err
	}
	d, err := p.openRecorded(ctx, p.stage.data())
	if err != nil {
		return false, soften(err)
	}
	return true, d.Close()
}

// compatible compares what is published with what is asked for; secrets and
// tokens are no part of it.
func (p *publishing) compatible(before *record, top mnt.Info) error {
	if before == nil || before.BootID != p.boot {
		if !p.stage.block() && top.ReadOnly() != p.readOnly {
			return otherwise("read-only", top.ReadOnly(), p.readOnly)
		}
		return nil
	}
	if err := before.sameUse(p.req.Capability, p.readOnly); err != nil {
		return err
	}
	switch {
	case !before.block() && !before.Flags.matches(p.req.Capability.Flags):
		return fmt.Errorf("%w: published there with other mount flags", backends.ErrIncompatible)
	case before.block():
		return nil
	case top.ReadOnly() != p.readOnly:
		return unavailable("the kernel shows it with read-only %v, and it was published with %v", top.ReadOnly(), p.readOnly)
	}
	return nil
}

// sameUse compares how a target was published with what is asked for, without the
// mount flags.
func (r *record) sameUse(c backends.Capability, readOnly bool) error {
	switch {
	case r.ReadOnly != readOnly:
		return otherwise("read-only", r.ReadOnly, readOnly)
	case !sameMode(r.Mode, c.Mode.String()):
		return otherwise("access mode", r.Mode, c.Mode)
	case r.Group != c.Group:
		return otherwise("mount group", r.Group, c.Group)
	case r.FSType != "" && c.FSType != "" && r.FSType != c.FSType:
		return otherwise("file system", r.FSType, c.FSType)
	}
	return nil
}

func otherwise(what string, is, want any) error {
	return fmt.Errorf("%w: published there with %s %v, and asked for with %v", backends.ErrIncompatible, what, is, want)
}

// besides holds the rules for a volume that is published at other targets too.
// The kernel is asked for a target only when it would be in the way: a thousand
// pods of one volume would ask half a million times.
func (p *publishing) besides() error {
	for _, o := range p.store.of(p.req.ID) {
		if o.Kind != kindPublish || o.Path == p.path {
			continue
		}
		conflict := p.conflict(o)
		if conflict == nil {
			continue
		}
		live, err := p.targetLives(p.store, o)
		switch {
		case err != nil:
			return err
		case live:
			return conflict
		}
	}
	return nil
}

// conflict says why the volume cannot be published at both targets.
func (p *publishing) conflict(o *record) error {
	mode, single := p.req.Capability.Mode.String(), backends.SingleNodeSingleWriter.String()
	switch {
	case mode == single || o.Mode == single:
		return inUse("%s allows one target, and it is published at %s", single, o.Path)
	case !sameMode(mode, o.Mode):
		return refuse("it is published at %s with access mode %s, and %s was asked for", o.Path, o.Mode, mode)
	case p.stage.block() && o.ReadOnly != p.readOnly:
		return refuse("it is published at %s with read-only %v, which is a property of the whole device, and %v was asked for", o.Path, o.ReadOnly, p.readOnly)
	}
	return nil
}

func (p *publishing) newRecord() {
	c := p.req.Capability
	p.rec = &record{
		Kind: kindPublish, Volume: p.req.ID, Path: p.path, StagingPath: p.staging, BootID: p.boot, Phase: phaseBinding,
		Access: access(c), Mode: c.Mode.String(), FSType: c.FSType, ReadOnly: p.readOnly, Group: c.Group,
	}
	if c.Block {
		p.rec.Source, p.rec.Device, p.rec.Mapping = sourceDevice, p.stage.Device, p.stage.Mapping
	} else {
		p.rec.Flags = newDigest(c.Flags)
	}
}

func (p *publishing) ready(m mnt.Info) error {
	p.rec.Phase, p.rec.Mounted = phaseReady, mountedAs(m)
	return p.store.put(p.rec)
}

func (p *publishing) prepareTarget(ctx context.Context, again bool) error {
	if p.features.TargetPreparer == nil {
		return nil
	}
	if err := p.step(ctx, "prepare target"); err != nil {
		return err
	}
	return p.features.TargetPreparer.PrepareTarget(ctx, backends.TargetRequest{
		ID: p.req.ID, Path: p.path, ReadOnly: p.readOnly, Again: again, Context: p.req.Context,
		Owner: p.req.Owner, Secrets: p.req.Secrets, State: p.stage.State,
	})
}

// bind publishes a mounted volume.
func (p *publishing) bind(ctx context.Context) error {
	return p.attach(ctx, makeDir, func() error {
		return p.kernel.Bind(p.staging, p.path, mnt.BindOptions{ReadOnly: p.readOnly, Attr: p.options.Attr})
	}, func(m mnt.Info) error {
		if !mountedAs(p.source).is(m) {
			return unavailable("after binding it, %s holds %s, which is not the volume", p.path, describeMount(m))
		}
		if m.ReadOnly() != p.readOnly {
			return unavailable("after binding it, %s is read-only %v, and %v was asked for", p.path, m.ReadOnly(), p.readOnly)
		}
		return nil
	})
}

// attach is what both kinds of publish have in common: record, target, bind,
// look; and nothing left when it fails for good.
func (p *publishing) attach(ctx context.Context, mk func(string) (bool, error), bind func() error, check func(mnt.Info) error) error {
	if err := p.store.put(p.rec); err != nil {
		return err
	}
	err := p.prepareTarget(ctx, false)
	if err == nil {
		p.made, err = mk(p.path)
	}
	faultpoint.Reach("mounter.publish.target")
	if err == nil {
		err = p.step(ctx, "bind")
	}
	if err == nil {
		if err = bind(); err != nil {
			err = soften(err)
		}
	}
	if err != nil {
		return p.giveUp(err)
	}
	faultpoint.Reach("mounter.publish.bound")
	mounts, err := p.mountsAt(p.path)
	if err == nil && len(mounts) == 0 {
		err = unavailable("the kernel shows no mount at %s after binding it", p.path)
	}
	if err == nil {
		err = check(mounts[0])
	}
	if err != nil {
		if _, undo := p.kernel.Unwind(p.path); undo != nil {
			return unavailable("%w (and it is still mounted: %w)", err, undo)
		}
		return p.giveUp(err)
	}
	return p.ready(mounts[0])
}

// giveUp leaves no target and no record behind a final error.
func (p *publishing) giveUp(err error) error {
	if !final(err) {
		return err
	}
	var undo error
	if p.made {
		undo = os.Remove(p.path)
	}
	if undo = errors.Join(undo, p.store.remove(p.rec)); undo != nil {
		return unavailable("%w (and it could not be undone: %w)", err, undo)
	}
	return err
}
