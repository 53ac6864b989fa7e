package lvm

import (
	"context"
	"errors"
	"slices"
	"time"

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
	kept := b.unfinished(ctx)
	for _, c := range b.groups() {
		if err := b.releaseLeft(ctx, c); err != nil {
			b.log.Error("the metadata of a pool may be held", "vg", c.VG, "err", err)
		}
		if err := b.sweep(ctx, c, kept); err != nil {
			b.log.Error("volume group is not recovered", "vg", c.VG, "err", err)
		}
		backends.Progress(ctx, "looked at "+c.VG)
	}
	b.watchPools()
	return nil
}

// keepCopies is how long a copy that was not ended waits for the CO to ask for it again.
const keepCopies = 7 * 24 * time.Hour

// unfinished are the copies that may be gone on with, and the snapshots that they are
// made of, by UUID. What is in a VG that cannot be looked at now may be needed.
func (b *Backend) unfinished(ctx context.Context) (kept func(v *volume) bool) {
	lvs := map[string]*volume{}
	whole := true
	for _, c := range b.groups() {
		g, err := b.look(ctx, c)
		if err != nil {
			whole = false
			continue
		}
		for _, v := range g.lvs {
			lvs[v.uuid] = v
		}
	}
	needed := map[string]bool{}
	for _, v := range lvs {
		if !v.ours() || v.own.Kind != kindVolume || v.own.State != stateCreating || v.own.Offset == 0 || b.now().Sub(v.own.Created) > keepCopies {
			continue
		}
		src := lvs[v.own.OriginUUID]
		if src != nil && src.ours() && src.whole() || src == nil && !whole {
			needed[v.uuid], needed[v.own.OriginUUID] = true, true
		}
	}
	return func(v *volume) bool { return needed[v.uuid] || v.own.Kind == kindTemp && !whole }
}

func (b *Backend) sweep(ctx context.Context, c *Class, kept func(v *volume) bool) error {
	leave, err := b.turn(ctx, c)
	if err != nil {
		return err
	}
	defer leave()
	g, err := b.look(ctx, c)
	if err != nil {
		return err
	}
	b.warnPools(g)
	groups := map[string]bool{}
	for _, v := range g.lvs {
		switch {
		case v.bad != nil:
			b.log.Error("logical volume cannot be read", "err", v.bad)
		case !v.ours() || !b.has(v) || v.own.Pod != "": // a pod's is the node's
		case v.own.Group != "" && v.stateOf() != stateReady:
			groups[groupID(v.own.Group)] = true
		case v.own.State == stateCreating && kept(v):
			b.log.Info("copy waits for the call to be repeated", "lv", v.path())
		case v.own.State == stateCreating && v.wiped():
			b.jobs.Go(func() { b.finish(v) })
		case v.own.State == stateCreating:
			if err := b.remove(ctx, c, v); err != nil {
				b.log.Warn("half-made logical volume is left", "lv", v.path(), "err", err)
			}
		case v.own.State == stateDeleting:
			b.jobs.Go(func() { b.finish(v) })
		}
	}
	for id := range groups {
		b.jobs.Go(func() { b.finishGroup(id) })
	}
	return nil
}

// finish goes on with a deletion.
func (b *Backend) finish(v *volume) {
	err := b.delete(b.ctx, v.id(), v.own.Kind, sameAs(v))
	if err != nil && !errors.Is(err, backends.ErrNotFound) && b.ctx.Err() == nil {
		b.log.Warn("logical volume is not deleted yet", "lv", v.path(), "err", err)
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
	leave, err := b.turn(ctx, c)
	if err != nil {
		return err
	}
	defer leave()
	argv := []string{"lvchange", "--activate", "n"}
	var restore []func()
	for _, v := range idle {
		if b.idle(v.path(), v.dmUUID(), nil) == nil {
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
