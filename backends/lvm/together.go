package lvm

import (
	"context"
	"fmt"
	"slices"

	"github.com/csikit/csikit/backends"
)

// Half of what an lvm command takes is its start. Commands that differ in the LV alone
// (tags of volumes that are formatted, or removed, at the same time) are therefore run
// as one, by the first whose turn at the VG comes, for all who wait for it.

// ask is a change of one LV, by a command that takes any number of LVs.
type ask struct {
	// plan says what is to be done, in a VG as it is in the turn in which it is; no
	// arguments: nothing.
	plan  func(g *group) (argv []string, path string, err error)
	alone bool               // together with others it has failed
	wake  context.CancelFunc // its caller need not wait for the turn any more
	done  chan struct{}      // closed when err is set
	ended bool               // known to who serves
	err   error
}

func (r *ask) end(err error) {
	r.err, r.ended = err, true
	close(r.done)
	r.wake()
}

// mostTogether is how many LVs one command is given.
const mostTogether = 100

// together has a change made in a turn of the VG. Whoever has the turn makes it: then it
// is made although its caller has gone.
func (b *Backend) together(ctx context.Context, c *Class, plan func(g *group) ([]string, string, error)) error {
	waits, wake := context.WithCancel(ctx)
	defer wake()
	r := &ask{plan: plan, wake: wake, done: make(chan struct{})}
	b.mu.Lock()
	b.asks[c.VG] = append(b.asks[c.VG], r)
	b.mu.Unlock()
	leave, err := b.turn(waits, c)
	if err != nil {
		if b.withdraw(c.VG, r) {
			return err
		}
		<-r.done
		return r.err
	}
	defer leave()
	b.serve(context.WithoutCancel(ctx), c)
	<-r.done
	return r.err
}

// withdraw takes a request back; false: somebody is at it, or has made it.
func (b *Backend) withdraw(vg string, r *ask) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.asks[vg], r)
	if i < 0 {
		return false
	}
	b.asks[vg] = slices.Delete(b.asks[vg], i, i+1)
	return true
}

// serve makes what is asked for, for who has the turn. Should that panic, the others are
// not left to wait for ever, with the turn that they get.
func (b *Backend) serve(ctx context.Context, c *Class) {
	b.mu.Lock()
	all := b.asks[c.VG]
	delete(b.asks, c.VG)
	b.mu.Unlock()
	defer func() {
		for _, r := range all {
			if !r.ended {
				r.end(fmt.Errorf("%w: the call that was at volume group %s for several has failed", backends.ErrUnavailable, c.VG))
			}
		}
	}()
	for list := all; len(list) > 0; {
		g, err := b.peek(ctx, c)
		if err != nil {
			for _, r := range list {
				r.end(err)
			}
			return
		}
		list = b.round(ctx, c, g, list)
	}
}

// round runs one command, and gives back what needs another one: that is another look,
// for what was right before a command that takes minutes may not be after it.
func (b *Backend) round(ctx context.Context, c *Class, g *group, list []*ask) (rest []*ask) {
	var argv, paths []string
	var now []*ask
	for _, r := range list {
		if len(now) == mostTogether || len(now) > 0 && (r.alone || now[0].alone) {
			rest = append(rest, r)
			continue
		}
		change, path, err := r.plan(g)
		switch {
		case len(change) == 0 || err != nil:
			r.end(err)
		case len(now) > 0 && (!slices.Equal(change, argv) || slices.Contains(paths, path)):
			rest = append(rest, r)
		default:
			argv, paths, now = change, append(paths, path), append(now, r)
		}
	}
	if len(now) == 0 {
		return rest
	}
	err := b.tool.change(ctx, c.VG, append(argv, paths...)...)
	for _, r := range now {
		if err != nil && len(now) > 1 && said(err, "") {
			r.alone = true // one of them is in the way of the others
			rest = append(rest, r)
		} else {
			r.end(err)
		}
	}
	return rest
}
