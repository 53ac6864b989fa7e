package lvm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/luks"
)

// CreateVolume makes an LV that is tagged as being made, and has it ready by one
// change of its tags. Whoever is killed before that leaves an LV that the next call
// replaces and the next start removes.
func (b *Backend) CreateVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	if err := b.serves(ControllerHalf); err != nil {
		return nil, err
	}
	p, err := b.plan(req)
	if err != nil {
		return nil, err
	}
	v, err := b.make(ctx, p)
	if err != nil {
		return nil, err
	}
	return b.public(v), nil
}

// make makes the LV of a plan.
func (b *Backend) make(ctx context.Context, p *plan) (*volume, error) {
	if err := p.inherit(p.origin); err != nil {
		return nil, err
	}
	if p.atOnce() {
		if v, err := b.makeAtOnce(ctx, p); v != nil || err != nil {
			return v, err
		}
	}
	leave, err := b.turn(ctx, p.c)
	if err != nil {
		return nil, err
	}
	leave = sync.OnceFunc(leave)
	defer leave()
	g, err := b.prepare(ctx, p)
	if half, ok := errors.AsType[*halfError](err); ok {
		leave()
		if err := b.delete(ctx, half.v.id(), half.v.own.Kind, sameAs(half.v)); err != nil && !errors.Is(err, backends.ErrNotFound) {
			return nil, classify(fmt.Errorf("half-made logical volume %s: %w", half.v.path(), err))
		}
		return b.make(ctx, p)
	}
	if err != nil {
		return nil, err
	}
	if err := p.admit(g); err != nil {
		return nil, err
	}
	err = b.lvcreate(ctx, p, g)
	if err == nil && p.origin != nil {
		err = b.settle(ctx, p)
	}
	switch {
	case err == nil && p.zeroes():
		leave()
		if err := b.readyBlank(ctx, p); err != nil {
			return nil, err
		}
	case err == nil:
		err = b.commit(ctx, p)
	}
	if err != nil {
		return nil, b.left(ctx, p, fmt.Errorf("create %q: %w", p.m.Name, err))
	}
	_, v, err := b.ready(context.WithoutCancel(ctx), p.id(), p.m.Kind)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is not there after it was made: %w", backends.ErrUnavailable, p.m.Name, err)
	}
	return v, nil
}

// inherit takes over what a copy cannot have otherwise than its origin.
func (p *plan) inherit(origin *volume) error {
	switch {
	case origin == nil:
	case p.m.Kind == kindSnapshot:
		p.m.Encrypted = origin.own.Encrypted
	case p.m.Encrypted != origin.own.Encrypted:
		return fmt.Errorf("%w: parameter %s is %v, and of the source it is %v", backends.ErrInvalid, luks.Param, p.m.Encrypted, origin.own.Encrypted)
	}
	return nil
}

// refind gives a plan its origin as it is now, in the VG's turn: a command is told names,
// and what had that name when the call came may be another's by now, or be going.
func (p *plan) refind(g *group) error {
	if p.origin == nil {
		return nil
	}
	now := g.byUUID(p.origin.uuid)
	switch {
	case now == nil || !now.ours():
		return notFound(p.origin.own.Kind, p.origin.id())
	case now.stateOf() != stateReady:
		return fmt.Errorf("%w: logical volume %s of %s is %s", backends.ErrUnavailable, now.path(), now.id(), now.stateOf())
	}
	p.origin = now
	return nil
}

// halfError is a half-made LV with data in it, which must be wiped before its name can
// be given away again.
type halfError struct{ v *volume }

func (e *halfError) Error() string { return "half-made logical volume " + e.v.path() }

// admit refuses what there is no room for.
func (p *plan) admit(g *group) error {
	if p.origin != nil && p.origin.pool == "" {
		return admitSpace(g, p.c, g.extentsOf(p.space))
	}
	return admit(g, p.c, p.extents)
}

// prepare gives the VG in which the name is free, and the plan its size.
func (b *Backend) prepare(ctx context.Context, p *plan) (*group, error) {
	g, err := b.lookForSpace(ctx, p.c)
	if err != nil {
		return nil, err
	}
	half, err := taken(g, p)
	if err != nil {
		return nil, err
	}
	if half != nil && half.wiped() {
		return nil, &halfError{half}
	}
	if err := p.refind(g); err != nil {
		return nil, err
	}
	if err := p.measure(g); err != nil {
		return nil, err
	}
	changed, err := b.readyPool(ctx, g, p.c)
	if err == nil && half != nil {
		changed, err = true, b.remove(ctx, p.c, half)
	}
	if err != nil {
		return nil, classify(err)
	}
	if changed {
		return b.lookForSpace(ctx, p.c)
	}
	return g, nil
}

// lvcreate runs the command with the tags of the plan.
func (b *Backend) lvcreate(ctx context.Context, p *plan, g *group) error {
	tags := p.m.tags(b.o.Driver)
	if err := checkTags(tags); err != nil {
		return err
	}
	how, err := b.changes(p.c, p.m.Mutable)
	if err != nil {
		return err
	}
	argv := append(append([]string{"lvcreate", "--name", p.lv()}, addTags(tags...)...), how...)
	if p.atOnce() && !p.c.thin() { // lvcreate refuses it of thin ones; see firstChange
		argv = append(argv, noAuto...)
	}
	err = b.tool.change(ctx, g.name, append(argv, p.args(g)...)...)
	b.step("create:made")
	return err
}

// noAuto keeps an LV from being activated when the host boots: this driver does that
// when a volume is staged.
var noAuto = []string{"--setautoactivation", "n"}

// commit makes the LV ready, in one change of its tags.
func (b *Backend) commit(ctx context.Context, p *plan) error {
	argv := append(append([]string{"lvchange"}, noAuto...), delTags(tagState+stateCreating)...)
	argv = append(argv, addTags(tagState+stateReady)...)
	if p.m.Format != "" {
		argv = append(argv, addTags(tagFormat+p.m.Format)...)
	}
	err := b.tool.change(ctx, p.c.VG, append(argv, p.path())...)
	b.step("create:ready")
	return err
}

// args say how the volume lies in the VG. The first blocks are zeroed and known
// signatures wiped, so that what an administrator left there is not taken for the
// volume's.
func (p *plan) args(g *group) []string {
	switch {
	case p.origin != nil && p.origin.pool == "":
		return []string{"--snapshot", "--extents", strconv.FormatInt(g.extentsOf(p.space), 10), p.origin.path()}
	case p.origin != nil && p.m.Kind != kindVolume:
		return []string{"--snapshot", "--setactivationskip", "y", "--permission", "r", p.origin.path()}
	case p.origin != nil:
		return []string{"--snapshot", "--setactivationskip", "n", "--permission", "rw", p.origin.path()}
	case p.c.thin():
		return []string{
			"--type", "thin", "--thinpool", p.c.ThinPool, "--virtualsize", sizeArg(p.extents * g.extent),
			"--activate", "y", g.name,
		}
	}
	args := []string{"--type", string(p.c.Profile)}
	switch p.c.Profile {
	case RAID1:
		args = append(args, "--mirrors", strconv.Itoa(p.c.Mirrors))
	case RAID10:
		args = append(args, "--mirrors", "1", "--stripes", strconv.Itoa(p.c.Stripes))
	case Striped, RAID5, RAID6:
		args = append(args, "--stripes", strconv.Itoa(p.c.Stripes))
	}
	return append(args, "--extents", strconv.FormatInt(p.extents, 10),
		"--activate", "y", "--zero", "y", "--wipesignatures", "y", g.name)
}

// sizeArg is a size as lvm reads it.
func sizeArg(n int64) string { return strconv.FormatInt(n, 10) + "b" }

// remove takes an LV away that holds nobody's data any more, and sees it gone. The
// caller has the VG's turn. Since v was looked at the LV may have been renamed, or be
// gone and its name another's: what goes is what has its UUID.
func (b *Backend) remove(ctx context.Context, c *Class, v *volume) error {
	g, err := b.peek(ctx, c)
	if err != nil {
		return err
	}
	r := b.removal(v)
	argv, path, err := r.plan(g)
	if len(argv) == 0 || err != nil {
		return err
	}
	return r.look(ctx, c, b.tool.change(ctx, c.VG, append(argv, path)...))
}

// removeTogether is remove for who has no turn, and need not be alone.
func (b *Backend) removeTogether(ctx context.Context, c *Class, v *volume) error {
	r := b.removal(v)
	err := b.together(ctx, c, r.plan)
	if !r.tried {
		return err
	}
	return r.look(ctx, c, err)
}

// removal is an LV on its way out.
type removal struct {
	b       *Backend
	v       *volume
	restore func() // of its I/O limits
	tried   bool
}

func (b *Backend) removal(v *volume) *removal { return &removal{b: b, v: v} }

func (r *removal) plan(g *group) (argv []string, path string, err error) {
	now, err := freeIn(g, r.v)
	if now == nil || err != nil {
		return nil, "", err
	}
	r.b.forget(now.uuid)
	if r.restore == nil {
		r.restore = r.b.lift(now.dmUUID())
	}
	r.tried = true
	return []string{"lvremove"}, now.path(), nil
}

// look sees it gone.
func (r *removal) look(ctx context.Context, c *Class, failed error) error {
	r.b.step("remove:done")
	if failed != nil {
		r.restore()
	}
	g, err := r.b.peek(context.WithoutCancel(ctx), c)
	if err != nil {
		return fmt.Errorf("remove %s: %w", r.v.path(), firstOf(failed, err))
	}
	o := g.byUUID(r.v.uuid)
	switch {
	case o == nil:
		return nil
	case o.open:
		return fmt.Errorf("%w: logical volume %s is open", backends.ErrInUse, o.path())
	}
	return fmt.Errorf("%w: logical volume %s is still there: %w", backends.ErrUnavailable, o.path(), firstOf(failed, errNoReason))
}

// freeIn gives an LV as it is now, nil: it is gone, and refuses to remove what others
// need: lvremove --yes would take foreign snapshots along.
func freeIn(g *group, v *volume) (*volume, error) {
	now := g.byUUID(v.uuid)
	if now == nil {
		return nil, nil
	}
	if now.open {
		return nil, fmt.Errorf("%w: logical volume %s is open", backends.ErrInUse, now.path())
	}
	for _, o := range g.lvs {
		if dependsOn(o, now) {
			return nil, &dependentError{o, now}
		}
	}
	return now, nil
}

// dependentError is a snapshot that keeps its volume from being removed.
type dependentError struct{ by, of *volume }

func (e *dependentError) Error() string {
	return fmt.Sprintf("%v: logical volume %s is a snapshot of %s", backends.ErrInUse, e.by.path(), e.of.path())
}

func (e *dependentError) Unwrap() error { return backends.ErrInUse }

// dependsOn says that o is an old kind of snapshot of v, or has it as an external
// origin. Thin LVs of one pool are independent.
func dependsOn(o, v *volume) bool { return o.origin == v.name && (o.pool == "" || v.pool == "") }
