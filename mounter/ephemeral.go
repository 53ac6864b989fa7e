package mounter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"unicode/utf8"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/faultpoint"
	"github.com/csikit/csikit/mounter/mnt"
)

// inline is one call of Publish for an ephemeral volume: the backend makes it,
// and it is staged at the target itself.
//
// There are two records. The ephemeral one says that there is, or may be, a
// volume to delete; it is written before the volume is made and goes last. The
// staging record says, as for any volume, how it is opened, formatted and
// mounted; it is the backend's own ID that it speaks of.
type inline struct {
	*Engine
	store    *store
	req      PublishRequest
	path     string
	readOnly bool

	rec      *record
	began    bool // CreateEphemeral may have made something
	made     bool // the target is this call's
	prepared bool // the backend was told of the target in this call
}

func (e *Engine) publishEphemeral(ctx context.Context, req PublishRequest, path string) error {
	store, done, err := e.begin(ctx, req.ID, path)
	if err != nil {
		return err
	}
	defer done()
	p := &inline{Engine: e, store: store, req: req, path: path}
	if err := p.run(ctx); err != nil {
		return fmt.Errorf("publish ephemeral volume %q at %s: %w", req.ID, path, err)
	}
	return nil
}

func (p *inline) run(ctx context.Context) error {
	if p.features.EphemeralProvisioner == nil {
		return fmt.Errorf("%w: the backend has no ephemeral volumes", backends.ErrUnsupported)
	}
	if err := p.parse(); err != nil {
		return err
	}
	if err := p.begin(ctx); err != nil {
		return err
	}
	if p.rec.Phase == phaseCreating {
		if err := p.create(ctx); err != nil {
			return p.giveUp(ctx, err)
		}
	}
	unlock, err := p.lockOwn(ctx, p.rec)
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.mount(ctx); err != nil {
		return p.giveUp(ctx, err)
	}
	if p.prepared {
		return nil
	}
	return p.prepareTarget(ctx, p.State(p.req.ID), true)
}

func (p *inline) parse() error {
	c := p.req.Capability
	if c.Block {
		return refuse("an ephemeral volume is a mounted one, and a raw block device was asked for")
	}
	options, err := mnt.ParseOptions(c.Flags.Reveal())
	p.readOnly = p.req.ReadOnly || c.Mode.ReadOnly() || options.ReadOnly
	return err
}

// begin finds the record of an earlier call, or makes the one of this.
func (p *inline) begin(ctx context.Context) error {
	r := p.ephemeralAt(p.store, p.req.ID, p.path)
	if r != nil && r.Phase == phaseDeleting {
		if err := p.unpublishEphemeral(ctx, p.store, r); err != nil {
			return soften(err)
		}
		r = nil
	}
	if r == nil {
		return p.first()
	}
	p.rec, p.began = r, true
	return p.compatible(r)
}

// first writes the record of a volume that is about to be made.
func (p *inline) first() error {
	for _, o := range p.store.of(p.req.ID) {
		if o.Kind == kindEphemeral {
			return inUse("it is published at %s, and an ephemeral volume has one target", o.Path)
		}
	}
	_, err := os.Lstat(p.path)
	p.made = errors.Is(err, fs.ErrNotExist)
	c := p.req.Capability
	p.rec = &record{
		Kind: kindEphemeral, Volume: p.req.ID, Path: p.path, BootID: p.boot, Phase: phaseCreating,
		Access: accessMount, Mode: c.Mode.String(), FSType: c.FSType, ReadOnly: p.readOnly, Group: c.Group,
		Flags: newDigest(c.Flags), Arguments: digestOf(arguments(p.req.Context)),
	}
	return p.store.put(p.rec)
}

// arguments are the pod's volumeAttributes in an order of their own.
func arguments(m map[string]string) []string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, k, m[k])
	}
	return list
}

// compatible compares what an earlier call asked for with what this one does;
// secrets and tokens are no part of it.
func (p *inline) compatible(r *record) error {
	if err := r.sameUse(p.req.Capability, p.readOnly); err != nil {
		return err
	}
	switch {
	case !r.Flags.matches(p.req.Capability.Flags):
		return fmt.Errorf("%w: published there with other mount flags", backends.ErrIncompatible)
	case r.Arguments != nil && !r.Arguments.stands(arguments(p.req.Context)):
		return fmt.Errorf("%w: published there with other attributes", backends.ErrIncompatible)
	}
	return nil
}

// create lets the backend make the volume, and records which one it is.
func (p *inline) create(ctx context.Context) error {
	if err := p.step(ctx, "create ephemeral volume"); err != nil {
		return err
	}
	v, err := p.features.EphemeralProvisioner.CreateEphemeral(ctx, backends.CreateEphemeralRequest{
		ID: p.req.ID, Parameters: maps.Clone(p.req.Context), Capability: p.req.Capability, ReadOnly: p.readOnly,
		Owner: p.req.Owner, Secrets: p.req.Secrets,
	})
	if err != nil {
		return ofVolume(err, p.req.ID)
	}
	faultpoint.Reach("mounter.ephemeral.created")
	p.began = true
	if err := p.checkVolume(v); err != nil {
		return err
	}
	p.rec.Own, p.rec.Context, p.rec.Phase = v.ID, maps.Clone(v.Context), phaseCreated
	return p.store.put(p.rec)
}

// checkVolume refuses an answer of CreateEphemeral that cannot be used. A volume
// that is somebody else's must not be deleted with this one, so that the CO goes
// on trying.
func (p *inline) checkVolume(v *backends.Volume) error {
	if v == nil || v.ID == "" || !utf8.ValidString(v.ID) {
		return refuse("the backend gave no volume, or one without a proper ID")
	}
	if key, is := p.leak(v.Context); is {
		return refuse("the backend gave a volume whose context repeats a secret in %q", key)
	}
	for _, o := range p.store.list(func(r *record) bool { return r.Own == v.ID || r.Kind == kindStage && r.Volume == v.ID }) {
		mine := o.Kind == kindEphemeral && o.Volume == p.req.ID || o.Kind == kindStage && o.For == p.req.ID
		if !mine || o.Path != p.path {
			return unavailable("the backend gave volume %q for it, which is in use at %s", v.ID, o.Path)
		}
	}
	return p.store.refused(v.ID)
}

// minLeak is how long a secret must be to be looked for: "true" is none.
const minLeak = 8

// leak finds a secret of the request in a context, which is kept in the record.
func (p *inline) leak(context map[string]string) (key string, is bool) {
	secrets := []string{p.req.Owner.Tokens.Reveal()}
	for _, k := range p.req.Secrets.Keys() {
		v, _ := p.req.Secrets.Lookup(k)
		secrets = append(secrets, v)
	}
	for k, v := range context {
		if len(v) >= minLeak && slices.Contains(secrets, v) {
			return k, true
		}
	}
	return "", false
}

// mount stages the volume at the target, or looks whether it is.
func (p *inline) mount(ctx context.Context) error {
	s := &staging{
		Engine: p.Engine, store: p.store, path: p.path, forID: p.req.ID, alsoReadOnly: p.req.ReadOnly,
		req: StageRequest{
			ID: p.rec.Own, Path: p.path, Capability: p.req.Capability, Context: p.rec.Context,
			Owner: p.req.Owner, Secrets: p.req.Secrets,
		},
	}
	s.beforeMount = func(ctx context.Context) error {
		if _, err := os.Lstat(p.path); err == nil {
			if err := emptyDir(p.path); err != nil {
				return err
			}
		}
		return p.prepareTarget(ctx, s.rec.State, false)
	}
	err := s.run(ctx)
	if s.rec != nil {
		p.rec.State = s.rec.State
	}
	if err != nil {
		return err
	}
	if p.rec.Phase == phaseReady {
		return nil
	}
	p.rec.Phase = phaseReady
	return p.store.put(p.rec)
}

func (p *inline) prepareTarget(ctx context.Context, state []byte, again bool) error {
	p.prepared = true
	if p.features.TargetPreparer == nil {
		return nil
	}
	if err := p.step(ctx, "prepare target"); err != nil {
		return err
	}
	return p.features.TargetPreparer.PrepareTarget(ctx, backends.TargetRequest{
		ID: p.rec.Own, Path: p.path, ReadOnly: p.readOnly, Again: again, Context: maps.Clone(p.rec.Context),
		Owner: p.req.Owner, Secrets: p.req.Secrets, State: state,
	})
}

// giveUp leaves no volume, no target and no record behind a final error. Once a
// call said OK the pod may have written: then only an unpublish deletes, and the
// CO goes on trying until there is one.
func (p *inline) giveUp(ctx context.Context, err error) error {
	if !final(err) {
		return err
	}
	open := p.rec.Own != "" && p.store.get(kindStage, p.rec.Own, p.path) != nil
	if open || p.rec.Phase == phaseReady {
		return soften(err)
	}
	if undo := p.undo(ctx); undo != nil {
		return unavailable("%w (and the volume is still there: %w)", err, undo)
	}
	return err
}

func (p *inline) undo(ctx context.Context) error {
	if p.made {
		if err := os.Remove(p.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if !p.began {
		return p.store.remove(p.rec) // the backend says that it made nothing
	}
	return p.deleteEphemeral(ctx, p.store, p.rec)
}
