package lvm

import (
	"context"
	"errors"
	"time"

	"github.com/csikit/csikit/backends"
)

// What is half-made or half-deleted is mostly replaced, or gone on with, by the next
// call for it. Where no call comes, and after a start, it is swept.

const (
	// keepCopies is how long a copy that was not ended waits for the CO to ask for it again.
	keepCopies = 7 * 24 * time.Hour
	// keepRest is how long anything else does: COs ask again within minutes.
	keepRest = time.Hour
	// sweepEvery is the time between two sweeps.
	sweepEvery = time.Hour
)

// watchLeft sweeps from time to time what calls that failed, and that nobody repeated,
// have left.
func (b *Backend) watchLeft() {
	b.watches.Go(func() {
		tick := time.NewTicker(sweepEvery)
		defer tick.Stop()
		for {
			select {
			case <-b.ctx.Done():
				return
			case <-tick.C:
				b.clean(b.ctx, keepRest)
			}
		}
	})
}

// clean sweeps all VGs of what is as old as that. What it cannot clean up must not keep
// a driver from starting.
func (b *Backend) clean(ctx context.Context, age time.Duration) {
	kept := b.unfinished(ctx)
	for _, c := range b.groups() {
		err := b.sweep(ctx, c, func(v *volume) bool {
			return kept(v) || b.working(v) || v.own.State != stateDeleting && b.now().Sub(v.own.Created) < age
		})
		if err != nil && ctx.Err() == nil {
			b.log.Error("volume group is not cleaned up", "vg", c.VG, "err", err)
		}
		backends.Progress(ctx, "looked at "+c.VG)
	}
}

// working says that a call of this process is at the LV, outside the VG's turn.
func (b *Backend) working(v *volume) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range []string{v.id(), groupID(v.own.Group), growthKey(makeID(v.own.Class, nameOf(kindVolume, v.own.Name)))} {
		if b.wiping[key] != nil {
			return true
		}
	}
	return false
}

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

// sweep takes away what is half-made, in which nobody's data is, and goes on in the
// background with what is being deleted: a wipe may take hours.
func (b *Backend) sweep(ctx context.Context, c *Class, kept func(v *volume) bool) error {
	g, leave, err := b.lookInTurn(ctx, c, b.look)
	if err != nil {
		return err
	}
	defer leave()
	groups := map[string]bool{}
	for _, v := range g.lvs {
		if !v.ours() || !b.has(v) || v.own.Pod != "" || v.stateOf() == stateReady { // a pod's is the node's
			continue
		}
		switch {
		case kept(v):
			b.log.Info("what is half done waits for the call to be repeated", "lv", v.path())
		case v.own.Group != "":
			groups[groupID(v.own.Group)] = true
		case v.own.State == stateDeleting || v.wiped():
			b.jobs.Go(func() { b.finish(v) })
		default:
			if err := b.remove(ctx, c, v); err != nil {
				b.log.Warn("half-made logical volume is left", "lv", v.path(), "err", err)
			}
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
