package lvm

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/csikit/csikit/backends"
)

// A volume that begins as zeros on one layer of device-mapper is made by one command,
// with its tags: when lvm has committed that, it is ready. What lvm does after it, to
// zero its first blocks, is done again when its creation is asked for once more.

// atOnce says whether one command makes the LV of a plan.
func (p *plan) atOnce() bool {
	return p.origin == nil && p.m.Source == "" && p.m.Kind == kindVolume && !p.c.raid() && !p.zeroes()
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
		b.makes(v.uuid, true)
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

// endSize is what is looked at, of both ends of a new volume: where a file system, a
// partition table, RAID, LVM or ZFS has its signature.
const endSize = 512 << 10

// vouch has a volume that is found by name be what this process would have made. One
// that another process made in one command, and whose caller asks again, may be
// without the zeros that lvm writes after the commit: nobody was told of it, and nobody
// has opened it.
func (b *Backend) vouch(ctx context.Context, c *Class, v *volume) error {
	if state, _ := v.own.format(); v.own.Nonce == "" || state != backends.FormatNever || !b.makes(v.uuid, false) || v.own.Pod == "" && b.o.Half&ControllerHalf == 0 {
		return nil
	}
	path, err := b.activate(ctx, c, v)
	if v.pool != "" && said(err, "No data available") {
		return b.unborn(ctx, c, v)
	}
	if err != nil {
		return err
	}
	if v.pool != "" {
		b.makes(v.uuid, true)
		return nil
	}
	d, err := b.kernel.exclusive(path, v.dmUUID())
	if errors.Is(err, backends.ErrInUse) {
		return nil //nolint:nilerr // of somebody who was told
	}
	if err != nil {
		return fmt.Errorf("clean %s: %w", v.path(), err)
	}
	// Held, it can be looked at whether it was formatted while this waited.
	_, now, err := b.peekReady(ctx, v.id())
	if err == nil && now.uuid == v.uuid {
		if state, _ := now.own.format(); state == backends.FormatNever {
			n := min(endSize, d.size())
			err = errors.Join(blank(d, 0, n), blank(d, d.size()-n, n))
		}
	}
	if err = errors.Join(err, d.close()); err != nil {
		return fmt.Errorf("%w: clean %s: %w", backends.ErrUnavailable, v.path(), err)
	}
	b.makes(v.uuid, true)
	return nil
}

// unborn takes away a thin LV that the metadata has and its pool has not: lvm was killed
// between the two, and does not make it good. Nothing can be in it.
func (b *Backend) unborn(ctx context.Context, c *Class, v *volume) error {
	leave, err := b.turn(ctx, c)
	if err != nil {
		return err
	}
	defer leave()
	if err := b.remove(ctx, c, v); err != nil {
		return classify(fmt.Errorf("remove %s, which its pool does not have: %w", v.path(), err))
	}
	return backends.VolumeNotFound(v.own.Name)
}

// makes remembers the LVs whose making this process has seen to its end; it says
// whether this one is new to it.
func (b *Backend) makes(uuid string, remember bool) (isNew bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	isNew = !b.made[uuid]
	if remember {
		b.made[uuid] = true
	}
	return isNew
}

func (b *Backend) forget(uuid string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.made, uuid)
}

// blank makes a range zeros.
func blank(d disk, off, n int64) error {
	b := make([]byte, n)
	if err := d.readAt(b, off); err != nil {
		return err
	}
	if !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
		return nil
	}
	if err := d.zero(off, n, false); err != nil {
		return err
	}
	return d.sync()
}

// peekForSpace is lookForSpace by peek.
func (b *Backend) peekForSpace(ctx context.Context, c *Class) (*group, error) {
	if g, err := b.direct(ctx, c.VG); err == nil {
		if err := b.pinned(c, g); err != nil {
			return nil, err
		}
		return g, nil
	}
	return b.lookForSpace(ctx, c)
}
