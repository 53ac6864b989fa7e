package lvm

import (
	"context"
	"slices"

	"github.com/csikit/csikit/backends"
)

// RecoverController removes what an earlier process left half-made, in which
// nobody's data is, and goes on in the background with what it was deleting: a wipe
// may take hours. What cannot be cleaned up must not keep the driver from starting.
func (b *Backend) RecoverController(ctx context.Context) error {
	if err := b.serves(ControllerHalf); err != nil {
		return err
	}
	b.unstickAll(ctx)
	b.thawLeft(ctx)
	b.warnElsewhere(ctx)
	for _, c := range b.groups() {
		if err := b.releaseLeft(ctx, c); err != nil {
			b.log.Error("the metadata of a pool may be held", "vg", c.VG, "err", err)
		}
		b.warn(ctx, c)
	}
	b.clean(ctx, 0)
	b.watchPools()
	b.watchLeft()
	return nil
}

// warn tells of what is wrong with a VG for good.
func (b *Backend) warn(ctx context.Context, c *Class) {
	g, err := b.look(ctx, c)
	if err != nil {
		return // the sweep tells
	}
	b.warnPools(g)
	for _, v := range g.lvs {
		if v.bad != nil {
			b.log.Error("logical volume cannot be read", "err", v.bad)
		}
	}
}

// RecoverNode deactivates the volumes that an earlier process left active, that no
// record calls open and that nobody uses. After a start of the machine none is
// active, and each is activated when it is staged.
func (b *Backend) RecoverNode(ctx context.Context, open []backends.OpenVolume) error {
	if err := b.serves(NodeHalf); err != nil {
		return err
	}
	b.unstickAll(ctx)
	b.learn(open)
	claimed := map[string]bool{}
	for _, o := range open {
		claimed[o.ID] = true
	}
	for _, c := range b.groups() {
		g, err := b.look(ctx, c)
		if err != nil {
			b.log.Error("active volumes are not recovered", "vg", c.VG, "err", err)
			continue
		}
		var idle []*volume
		for _, v := range g.lvs {
			if v.ours() && b.has(v) && b.recoverVolume(ctx, v, claimed[v.id()]) {
				idle = append(idle, v)
			}
			backends.Progress(ctx, "looked at "+v.path())
		}
		b.deactivateAll(ctx, c, idle)
	}
	return nil
}

// recoverVolume gives one that is open its limits back, and says whether it is one
// that nobody uses.
func (b *Backend) recoverVolume(ctx context.Context, v *volume, claimed bool) (idle bool) {
	switch {
	case claimed && v.active:
		if err := b.limitNow(v, v.own.Mutable); err != nil {
			b.log.Error("I/O limits of an open volume are not applied", "id", v.id(), "err", err)
		}
	case claimed || v.open:
	case v.own.Pod != "":
		b.recoverPod(ctx, v)
	case v.active && v.own.State == stateReady: // what is being made or deleted is the controller's
		return true
	}
	return false
}

// deactivateAll deactivates LVs, a hundred with one command.
func (b *Backend) deactivateAll(ctx context.Context, c *Class, idle []*volume) {
	for some := range slices.Chunk(idle, 100) {
		if err := b.deactivateSome(ctx, c, some); err != nil {
			b.log.Warn("logical volumes stay active", "vg", c.VG, "err", err)
		}
	}
}

func (b *Backend) deactivateSome(ctx context.Context, c *Class, idle []*volume) error {
	g, leave, err := b.lookInTurn(ctx, c, b.look)
	if err != nil {
		return err
	}
	defer leave()
	argv := []string{"lvchange", "--activate", "n"}
	var restore []func()
	for _, was := range idle {
		v := g.byUUID(was.uuid) // whatever it is called by now
		if v != nil && b.idle(v.path(), v.dmUUID(), nil) == nil {
			argv = append(argv, v.path())
			restore = append(restore, b.lift(v.dmUUID()))
		}
	}
	if len(restore) == 0 {
		return nil
	}
	err = b.tool.change(ctx, c.VG, argv...)
	b.step("recover:inactive")
	if err != nil {
		for _, r := range restore {
			r()
		}
	}
	return err
}
