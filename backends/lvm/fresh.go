package lvm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/csikit/csikit/backends"
)

// Extents that were not this driver's may hold anything. Where the administrator does
// not vouch for them (Class.ZeroNew), zeros are written before a volume is ready; and
// what a volume grows by is an LV of its own before, which is zeroed and then gives its
// extents to the volume: at no moment does anybody see what was there.

// zeroesNew says whether what volumes are given is overwritten first.
func (c *Class) zeroesNew() bool { return !c.thin() && (c.ZeroNew || c.Wipe == WipeNone) }

// zeroes says whether the LV of a plan is overwritten before it is ready. A copy is by
// what is copied, a snapshot shows nothing of its own space.
func (p *plan) zeroes() bool { return p.origin == nil && p.m.Source == "" && p.c.zeroesNew() }

// blanked overwrites an LV that was made, without the VG's turn: it may take hours.
func (b *Backend) blanked(ctx context.Context, p *plan) error {
	c, v, err := b.volume(ctx, p.id(), p.m.Kind)
	if err != nil {
		return err
	}
	path, err := b.activate(ctx, c, v)
	if err != nil {
		return err
	}
	d, err := b.kernel.exclusive(path, v.dmUUID())
	if err != nil {
		return err
	}
	for at := int64(0); at < d.size() && err == nil; at += wipeStep {
		if err = context.Cause(ctx); err == nil {
			err = d.zero(at, min(wipeStep, d.size()-at), c.Wipe == WipeDiscard)
		}
		b.step("create:zeroing")
		backends.Progress(ctx, fmt.Sprintf("zeroed %d MiB of %s", (at+wipeStep)>>20, v.path()))
	}
	if err == nil {
		err = d.sync()
	}
	if err = errors.Join(err, d.close()); err != nil {
		return err
	}
	return b.allLegs(ctx, c, v)
}

// readyBlank overwrites an LV that was made, and makes it ready.
func (b *Backend) readyBlank(ctx context.Context, p *plan) error {
	end, err := b.begin(ctx, p.id())
	if err != nil {
		return err
	}
	defer end()
	err = b.blanked(ctx, p)
	b.step("create:zeroed")
	leave, turn := b.turn(context.WithoutCancel(ctx), p.c)
	if turn != nil {
		return turn
	}
	defer leave()
	if err == nil {
		err = b.commit(ctx, p)
	}
	if err != nil {
		return b.left(ctx, p, fmt.Errorf("create %q: %w", p.m.Name, err))
	}
	return nil
}

// growthKey is what who makes a volume grow has begun.
func growthKey(volumeID string) string { return "growth of " + volumeID }

// growthOf is the LV with the extents that a volume is to get.
func growthOf(c *Class, v *volume, extents int64) *plan {
	return &plan{c: c, extents: extents, m: meta{Class: c.Name, Kind: kindGrowth, Name: v.own.Name, State: stateCreating, Created: v.own.Created}}
}

// prepareGrowth makes and zeroes what a volume is to grow by.
func (b *Backend) prepareGrowth(ctx context.Context, c *Class, req backends.ExpandVolumeRequest) error {
	g, err := b.lookForSpace(ctx, c)
	if err != nil {
		return err
	}
	_, v, err := b.ready(ctx, req.ID, kindVolume)
	if err != nil || req.Size <= v.size {
		return err
	}
	n, err := extentsFor(g, c, req.Size, req.Range.Limit)
	if err != nil {
		return err
	}
	p := growthOf(c, v, n-v.size/g.extent)
	if err := b.makeGrowth(ctx, p); err != nil {
		return err
	}
	if err := b.blanked(ctx, p); err != nil {
		leave, turn := b.turn(context.WithoutCancel(ctx), c)
		if turn != nil {
			return errors.Join(err, turn)
		}
		defer leave()
		return b.left(ctx, p, err)
	}
	b.step("expand:zeroed")
	return nil
}

func (b *Backend) makeGrowth(ctx context.Context, p *plan) error {
	leave, err := b.turn(ctx, p.c)
	if err != nil {
		return err
	}
	defer leave()
	if err := b.dropGrowth(ctx, p); err != nil {
		return err
	}
	g, err := b.lookForSpace(ctx, p.c)
	if err != nil {
		return err
	}
	if err := admit(g, p.c, p.extents); err != nil {
		return err
	}
	if err := b.lvcreate(ctx, p, g); err != nil {
		return b.left(ctx, p, err)
	}
	return nil
}

// dropGrowth takes away what an earlier try left.
func (b *Backend) dropGrowth(ctx context.Context, p *plan) error {
	g, err := b.look(ctx, p.c)
	if err != nil {
		return err
	}
	half, err := g.find(p.c.Name, p.lv())
	if half == nil || err != nil {
		return err
	}
	return b.remove(ctx, p.c, half)
}

// handOver gives the extents of what was prepared free again, and says where they are,
// for lvextend in the same turn.
func (b *Backend) handOver(ctx context.Context, c *Class, v *volume, extents int64) (ranges []string, err error) {
	p := growthOf(c, v, extents)
	g, err := b.look(ctx, c)
	if err != nil {
		return nil, err
	}
	half, err := g.find(c.Name, p.lv())
	if err != nil {
		return nil, err
	}
	if half == nil || half.size != extents*g.extent {
		return nil, fmt.Errorf("%w: what volume %s is to grow by is not prepared", backends.ErrUnavailable, v.id())
	}
	rows, err := b.tool.rows(ctx, c.VG, "lv", "-a", "-o", "lv_name,seg_pe_ranges", c.VG)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		name := strings.Trim(r["lv_name"], "[]")
		if name != half.name && !strings.HasPrefix(name, half.name+"_rimage_") {
			continue
		}
		for f := range strings.FieldsFuncSeq(r["seg_pe_ranges"], func(c rune) bool { return c == ' ' || c == ',' }) {
			if strings.HasPrefix(f, "/") {
				ranges = append(ranges, f)
			}
		}
	}
	if len(ranges) == 0 {
		return nil, fmt.Errorf("%w: lvm does not say where %s is", backends.ErrUnavailable, half.path())
	}
	return ranges, b.remove(ctx, c, half)
}

// growthFailed takes away what was prepared for nothing.
func (b *Backend) growthFailed(ctx context.Context, c *Class, id string, failed error) error {
	ctx = context.WithoutCancel(ctx)
	_, v, err := b.volume(ctx, id, kindVolume)
	if err == nil {
		var leave func()
		if leave, err = b.turn(ctx, c); err == nil {
			defer leave()
			err = b.dropGrowth(ctx, growthOf(c, v, 0))
		}
	}
	if err != nil && !errors.Is(err, backends.ErrNotFound) {
		return fmt.Errorf("%w: %w, and then: %w", backends.ErrUnavailable, failed, err)
	}
	return failed
}

// checkWipes refuses a class that would give away what another leaves on the disks.
func checkWipes(bad *complaints, classes []Class) {
	for _, dirty := range classes {
		for _, c := range classes {
			bad.when(dirty.Wipe == WipeNone && c.VG == dirty.VG && !c.thin() && !c.zeroesNew(),
				"class %s: class %s of the same volume group wipes nothing: want ZeroNew", c.Name, dirty.Name)
		}
	}
}
