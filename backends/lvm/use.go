package lvm

import (
	"context"

	"github.com/csikit/csikit/backends"
)

// Who copies a snapshot activates it, and with a thick one its volume. Whether that may
// be deactivated again, nothing but the node half can tell: a raw device that a pod has
// in its file system and not open looks as if nobody used it.

// uses is what the node half of this process has open.
type uses struct {
	known   bool                     // the records of the node were read
	open    map[string]bool          // by ID
	resting map[string]chan struct{} // by ID; closed when it is inactive
}

// claim says that a volume is open from now on. It waits for one that is being
// deactivated.
func (b *Backend) claim(ctx context.Context, id string) error {
	for {
		b.mu.Lock()
		busy := b.uses.resting[id]
		if busy == nil {
			b.uses.open[id] = true
			b.mu.Unlock()
			return nil
		}
		b.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// release says that it is not open any more.
func (b *Backend) release(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.uses.open, id)
}

// learn takes what csikit's records call open after a start.
func (b *Backend) learn(open []backends.OpenVolume) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.uses.known = true
	for _, o := range open {
		b.uses.open[o.ID] = true
	}
}

// unused keeps a volume from being opened until done is called. false: it is open, or
// this process cannot know.
func (b *Backend) unused(id string) (done func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.o.Half != ControllerHalf|NodeHalf || !b.uses.known || b.uses.open[id] || b.uses.resting[id] != nil {
		return nil, false
	}
	end := make(chan struct{})
	b.uses.resting[id] = end
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.uses.resting, id)
		close(end)
	}, true
}

// rest deactivates what was activated to copy from v, if nobody else uses it.
func (b *Backend) rest(ctx context.Context, c *Class, v *volume) error {
	if v.pool != "" {
		if v.own.Kind == kindVolume {
			return nil // its temporary snapshot is gone
		}
		return b.deactivate(ctx, c, v)
	}
	g, err := b.look(ctx, c)
	if err != nil {
		return err
	}
	origin := v
	for _, o := range g.lvs {
		if v.thick() && o.name == v.origin {
			origin = o
		}
	}
	for _, o := range g.lvs {
		if o.thickOf(origin) && o.open {
			return nil // another copy's
		}
	}
	if !origin.ours() {
		return nil
	}
	_, err = b.inactive(ctx, c, origin)
	return err
}

// inactive deactivates a volume that the node half does not have open; false: it has,
// or this process does not know.
func (b *Backend) inactive(ctx context.Context, c *Class, v *volume) (bool, error) {
	dev, err := b.kernel.device(v.dmUUID())
	if dev == "" || err != nil {
		return err == nil, err
	}
	done, ok := b.unused(v.id())
	if !ok {
		return false, nil
	}
	defer done()
	return true, b.deactivate(ctx, c, v)
}

// hasThick says whether the volume has thick snapshots, none of which is being read.
func (v *volume) hasThick() (has bool) {
	for _, o := range v.g.lvs {
		if o.thickOf(v) && o.open {
			return false // it goes when that is copied
		}
		has = has || o.thickOf(v)
	}
	return has
}
