package lvm

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/csikit/csikit/backends"
)

// A volume that begins as zeros on one layer of device-mapper is made by one command,
// with its tags: when lvm has committed that, it is ready. What lvm does after it, to
// make the device and to zero its first blocks, is done again by OpenVolume, for as
// long as nobody has written to it.

// atOnce says whether one command makes the LV of a plan.
func (p *plan) atOnce() bool {
	return p.origin == nil && p.m.Source == "" && p.m.Kind == kindVolume && !p.c.raid()
}

// makeAtOnce makes it; nil: something is in the way, and it has to be made in steps.
func (b *Backend) makeAtOnce(ctx context.Context, p *plan) (*volume, error) {
	leave, err := b.turn(ctx, p.c)
	if err != nil {
		return nil, err
	}
	defer leave()
	g, err := b.peekForSpace(ctx, p.c)
	if err != nil {
		return nil, err
	}
	half, err := taken(g, p)
	if half != nil || err != nil {
		return nil, err
	}
	if err := p.measure(g); err != nil {
		return nil, err
	}
	changed, err := b.readyPool(ctx, g, p.c)
	if err != nil {
		return nil, classify(err)
	}
	if changed {
		if g, err = b.peekForSpace(ctx, p.c); err != nil {
			return nil, err
		}
	}
	if err := admit(g, p.c, p.extents); err != nil {
		return nil, err
	}
	once := *p
	once.m.State, once.m.Nonce = stateReady, nonce()
	err = b.lvcreate(ctx, &once, g)
	after := context.WithoutCancel(ctx)
	v, again := b.mine(after, &once)
	switch {
	case err == nil && v != nil:
		return v, nil
	case err == nil:
		return nil, fmt.Errorf("%w: %q is not there after it was made: %w", backends.ErrUnavailable, p.m.Name, firstOf(again, errNoReason))
	}
	return nil, b.undo(after, &once, v, again, fmt.Errorf("create %q: %w", p.m.Name, err))
}

// firstChange is what the first change of the tags of a volume does besides: what
// lvcreate cannot do to a thin one.
func (v *volume) firstChange() []string {
	if v.pool == "" || v.own.Nonce == "" || v.own.Format != "" {
		return nil
	}
	return noAuto
}

// nonce tells this call's LV from one of the same name that somebody else has made
// meanwhile.
func nonce() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// mine is the LV that this call has made; nil: it has made none.
func (b *Backend) mine(ctx context.Context, p *plan) (*volume, error) {
	g, err := b.peek(ctx, p.c)
	if err != nil {
		return nil, err
	}
	v, err := g.find(p.c.Name, p.lv())
	if err != nil || v == nil || v.own.Nonce != p.m.Nonce {
		return nil, err
	}
	return v, nil
}

// undo takes away what a command that failed has left. Only when nothing is left may
// the answer be a final one.
func (b *Backend) undo(ctx context.Context, p *plan, v *volume, err, failed error) error {
	if err == nil && v != nil {
		err = b.remove(ctx, p.c, v)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w, and then: %w", backends.ErrUnavailable, failed, err)
	case noSpace(failed):
		return fmt.Errorf("%w: %w", backends.ErrNoSpace, failed)
	case said(failed, "already exists"):
		return fmt.Errorf("%w: %w", backends.ErrExists, failed)
	}
	return classify(failed)
}

// headSize is what is zeroed at both ends of a new volume: all that a probe reads
// before mkfs.
const headSize = 1 << 20

// clean zeroes both ends of a volume that nobody has written to. lvcreate has done so
// with the first blocks, unless it was killed over it. A thin one reads as zeros.
func (b *Backend) clean(v *volume, path string) error {
	if state, _ := v.own.format(); state != backends.FormatNever || v.pool != "" {
		return nil
	}
	d, err := b.kernel.exclusive(path, v.dmUUID())
	if err != nil {
		return fmt.Errorf("clean %s: %w", v.path(), err)
	}
	err = d.zero(0, min(headSize, d.size()), false)
	if tail := d.size() - headSize; err == nil && tail > 0 {
		err = d.zero(tail, headSize, false)
	}
	if err = errors.Join(err, d.close()); err != nil {
		return fmt.Errorf("%w: clean %s: %w", backends.ErrUnavailable, v.path(), err)
	}
	return nil
}

// peekForSpace is lookForSpace by peek.
func (b *Backend) peekForSpace(ctx context.Context, c *Class) (*group, error) {
	if g, err := b.direct(ctx, c.VG); err == nil {
		return g, b.pinned(c, g)
	}
	return b.lookForSpace(ctx, c)
}
