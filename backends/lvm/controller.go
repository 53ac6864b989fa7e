package lvm

import (
	"context"
	"errors"
	"fmt"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/luks"
)

// VolumeID follows from class and name.
func (b *Backend) VolumeID(req backends.CreateVolumeRequest) (string, error) {
	c, err := b.class(req.Parameters)
	if err != nil {
		return "", err
	}
	return makeID(c.Name, nameOf(kindVolume, req.Name)), nil
}

// Volume looks a volume up by ID.
func (b *Backend) Volume(ctx context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
	_, v, err := b.peekReady(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	return b.public(v), nil
}

// FindVolume looks a volume up by name: in the class that is asked for, and then
// in the others. One of those whose VG is not there does not keep volumes from
// being made elsewhere: no CO asks for one name with two classes.
func (b *Backend) FindVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	c, err := b.class(req.Parameters)
	if err != nil {
		return nil, err
	}
	looks := map[string]*group{}
	for _, o := range append([]*Class{c}, b.order...) {
		g, looked := looks[o.VG]
		if !looked {
			g, err = b.peek(ctx, o)
			if err != nil && o == c {
				return nil, err
			}
			if err != nil {
				b.log.Warn("volume group is not looked at for a name", "vg", o.VG, "err", err)
			}
			looks[o.VG] = g
		}
		if g == nil {
			continue
		}
		if v, err := b.named(g, o, req.Name); v != nil || err != nil {
			return b.found(ctx, o, v, err)
		}
	}
	for _, g := range looks {
		if g == nil {
			continue
		}
		if err := b.astray(g, kindVolume, req.Name); err != nil {
			return nil, err
		}
	}
	return nil, backends.VolumeNotFound(req.Name)
}

// named is the finished volume of a class with this name; nil: there is none.
func (b *Backend) named(g *group, c *Class, name string) (*volume, error) {
	v, err := g.find(c.Name, nameOf(kindVolume, name))
	if err != nil || v == nil || v.own.State != stateReady {
		return nil, err
	}
	if v.own.Pod != "" {
		return nil, fmt.Errorf("%w: %q is the inline volume of a pod", backends.ErrIncompatible, name)
	}
	return v, nil
}

func (b *Backend) found(ctx context.Context, c *Class, v *volume, err error) (*backends.Volume, error) {
	if err == nil {
		err = b.vouch(ctx, c, v)
	}
	if err != nil {
		return nil, err
	}
	return b.public(v), nil
}

// public is the volume as csikit knows it.
func (b *Backend) public(v *volume) *backends.Volume {
	return &backends.Volume{
		ID: v.id(), Name: v.own.Name, Capacity: v.size, Fingerprint: v.own.Fingerprint,
		Source: v.own.source(), Topology: []backends.Segments{b.segments()}, Mutable: publicMutable(v.own),
	}
}

// CheckVolume refuses parameters that are not known and sizes that mkfs would refuse.
func (b *Backend) CheckVolume(_ context.Context, req backends.CheckVolumeRequest) error {
	m, _, err := b.params(req.Parameters, req.Mutable)
	if err != nil {
		return err
	}
	return luks.CheckSizes(req, m.Encrypted)
}

// checkName refuses a name or a fingerprint that a tag cannot hold.
func checkName(name, fingerprint string) error {
	switch {
	case name == "" || len(name) > 512:
		return fmt.Errorf("%w: a name of %d bytes", backends.ErrInvalid, len(name))
	case !validPrint.MatchString(fingerprint):
		return fmt.Errorf("%w: fingerprint %q", backends.ErrInvalid, fingerprint)
	}
	return nil
}

// plan is a volume that is to be made.
type plan struct {
	c       *Class
	m       meta
	size    int64 // bytes that were asked for
	limit   int64 // bytes; 0: none
	extents int64 // set when the VG has been seen
	// origin is the LV of which this one is a snapshot; nil: it has blocks of its own.
	origin *volume
	space  int64 // bytes that a thick snapshot gets
}

func (p *plan) lv() string   { return nameOf(p.m.Kind, p.m.Name) }
func (p *plan) id() string   { return makeID(p.c.Name, p.lv()) }
func (p *plan) path() string { return p.c.VG + "/" + p.lv() }

func (b *Backend) plan(req backends.CreateVolumeRequest) (*plan, error) {
	m, c, err := b.params(req.Parameters, req.Mutable)
	if err == nil {
		err = checkName(req.Name, req.Fingerprint)
	}
	if err != nil {
		return nil, err
	}
	if !req.Topology.Permits(b.segments()) {
		return nil, fmt.Errorf("%w: volumes of this driver are on node %s alone", backends.ErrNoSpace, b.o.Node)
	}
	if err := b.canLimit(m.Mutable); err != nil {
		return nil, err
	}
	m.Class, m.Kind, m.Name, m.State, m.Fingerprint, m.Created = c.Name, kindVolume, req.Name, stateCreating, req.Fingerprint, b.now()
	p := &plan{c: c, size: req.Size, limit: req.Range.Limit, m: *m}
	if p.size == 0 {
		p.size = Traits(b.o).SizeDefault
	}
	if p.size < 0 || p.size > maxSize {
		return nil, fmt.Errorf("%w: %d bytes", backends.ErrOutOfRange, p.size)
	}
	return p, nil
}

// measure gives the plan its size in whole extents, on each data leg as many.
func (p *plan) measure(g *group) (err error) {
	p.extents, err = extentsFor(g, p.c, p.size, p.limit)
	return err
}

func extentsFor(g *group, c *Class, size, limit int64) (int64, error) {
	_, data := c.legs()
	step := g.extent * int64(data)
	n := max(1, (size+step-1)/step) * int64(data)
	if limit > 0 && n > limit/g.extent {
		return 0, fmt.Errorf("%w: volumes of class %s are multiples of %d bytes, and %d is above the limit %d",
			backends.ErrOutOfRange, c.Name, step, n*g.extent, limit)
	}
	return n, nil
}

// taken refuses a name that is not free. A half-made volume is returned: nobody
// has ever seen it, and it is replaced.
func taken(g *group, p *plan) (half *volume, err error) {
	name := p.lv()
	v, err := g.find(p.c.Name, name)
	if err != nil {
		return nil, err
	}
	if v == nil {
		for _, o := range g.lvs {
			if o.name == name {
				return nil, fmt.Errorf("%w: logical volume %s is there, and is not of this driver's class %s", backends.ErrIncompatible, o.path(), p.c.Name)
			}
		}
		return nil, nil
	}
	switch v.own.State {
	case stateReady:
		return nil, fmt.Errorf("%w: %q as logical volume %s", backends.ErrExists, p.m.Name, v.path())
	case stateDeleting:
		return nil, fmt.Errorf("%w: logical volume %s is still being deleted", backends.ErrPending, v.path())
	}
	return v, nil
}

// left looks what a failed command left, and takes it away. Only when nothing is
// left may the answer be a final one.
func (b *Backend) left(ctx context.Context, p *plan, failed error) error {
	ctx = context.WithoutCancel(ctx)
	g, err := b.look(ctx, p.c)
	if err != nil {
		return errors.Join(classify(failed), err)
	}
	v, err := g.find(p.c.Name, p.lv())
	switch {
	case err != nil || v == nil || v.own.State != stateCreating:
	case v.thick():
		// What its volume had is in it already. The next call, or the next start, wipes
		// it, for that may take longer than others should wait.
		err = fmt.Errorf("logical volume %s is left", v.path())
	default:
		err = b.remove(ctx, p.c, v)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w, and then: %w", backends.ErrUnavailable, failed, err)
	case noSpace(failed):
		return fmt.Errorf("%w: %w", backends.ErrNoSpace, failed)
	}
	return classify(failed)
}
