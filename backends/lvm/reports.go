package lvm

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/csikit/csikit/backends"
)

// reports lets callers share what lvm is asked. A caller gets a report that was
// begun after he came: never an older one, for the other half of the driver, in
// another process, changes the same VG.
type reports struct {
	mu  sync.Mutex
	vgs map[string]*flights
}

// decoded decodes a report that says something else than the one before it.
func (r *reports) decoded(vg string, out []byte, decode func() (*group, error)) (*group, error) {
	r.mu.Lock()
	f := r.vgs[vg]
	r.mu.Unlock()
	if f == nil {
		return decode()
	}
	f.last.Lock()
	defer f.last.Unlock()
	if f.g == nil || !bytes.Equal(f.out, out) {
		f.g, f.err = decode()
		f.out = out
	}
	return f.g, f.err
}

type flights struct {
	last sync.Mutex
	out  []byte // of the last report, and what it said
	g    *group
	err  error

	running bool
	next    *flight // waits for the running one
}

type flight struct {
	done chan struct{}
	g    *group
	err  error
}

// get shares the next report of a VG.
func (r *reports) get(ctx context.Context, vg string, fetch func(context.Context) (*group, error)) (*group, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	if r.vgs == nil {
		r.vgs = map[string]*flights{}
	}
	f := r.vgs[vg]
	if f == nil {
		f = &flights{}
		r.vgs[vg] = f
	}
	if f.next == nil {
		f.next = &flight{done: make(chan struct{})}
		if !f.running {
			f.running = true
			go r.fly(context.WithoutCancel(ctx), f, fetch)
		}
	}
	mine := f.next
	r.mu.Unlock()
	select {
	case <-mine.done:
		return mine.g, mine.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// fly runs the reports that are asked for, one after the other.
func (r *reports) fly(ctx context.Context, f *flights, fetch func(context.Context) (*group, error)) {
	for {
		r.mu.Lock()
		now := f.next
		f.next = nil
		f.running = now != nil
		r.mu.Unlock()
		if now == nil {
			return
		}
		now.g, now.err = fetch(ctx)
		close(now.done)
	}
}

// look is a VG as it is now, complete and the one that was seen first.
func (b *Backend) look(ctx context.Context, c *Class) (*group, error) {
	g, err := b.reports.get(ctx, c.VG, func(ctx context.Context) (*group, error) { return b.fetch(ctx, c.VG) })
	if err != nil {
		return nil, err
	}
	if err := b.pinned(c, g); err != nil {
		return nil, err
	}
	return g, nil
}

// lookPartial is look that also gives a VG without some of its disks.
func (b *Backend) lookPartial(ctx context.Context, c *Class) (g *group, missing, err error) {
	g, err = b.reports.get(ctx, c.VG, func(ctx context.Context) (*group, error) { return b.fetch(ctx, c.VG) })
	var m *missingError
	if g != nil && errors.As(err, &m) {
		missing, err = err, nil
	}
	if err == nil {
		err = b.pinned(c, g)
	}
	return g, missing, err
}

// lookForSpace is look with where free space lies, as far as that matters for the
// class: of linear volumes and thin pools the sum is enough.
func (b *Backend) lookForSpace(ctx context.Context, c *Class) (*group, error) {
	g, err := b.look(ctx, c)
	if legs, _ := c.legs(); err != nil || legs == 1 {
		return g, err
	}
	d, err := b.fetchDisks(ctx, c.VG)
	if err != nil {
		return nil, err
	}
	if err := b.pinned(c, d); err != nil {
		return nil, err
	}
	for _, v := range g.lvs {
		mine := *v // g is shared
		mine.g = d
		d.lvs = append(d.lvs, &mine)
	}
	return d, nil
}

// pinned refuses a VG that took the place of the one that volumes are in: what is
// not in it is not gone.
func (b *Backend) pinned(c *Class, g *group) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	want := c.VGUUID
	if want == "" {
		want = b.seen[c.VG]
	}
	if want != "" && want != g.uuid {
		return fmt.Errorf("%w: volume group %s is %s, and volumes are in %s", backends.ErrUnavailable, c.VG, g.uuid, want)
	}
	if b.seen[c.VG] == "" {
		b.seen[c.VG] = g.uuid
	}
	return nil
}

// find is the LV of a volume or snapshot. It is found by what its tags say its
// name is, so that one that an administrator renamed is not lost; nil: the VG is
// complete, and it is not there. Of two that say so nobody knows whose data is in which.
func (g *group) find(class, lv string) (found *volume, err error) {
	for _, v := range g.lvs {
		switch {
		case v.bad != nil && (v.name == lv || v.says(lv)):
			return nil, v.bad
		case !v.ours() || v.own.Class != class || v.lvName() != lv:
		case found != nil:
			return nil, twins(found, v)
		default:
			found = v
		}
	}
	return found, nil
}

func twins(x, y *volume) error {
	return fmt.Errorf("%w: logical volumes %s and %s have the tags of one volume", backends.ErrUnavailable, x.path(), y.path())
}

// says tells of an LV whose tags cannot be read as a whole whether one of them names
// this one.
func (v *volume) says(lv string) bool {
	return slices.ContainsFunc(v.tags, func(t string) bool {
		text, ok := strings.CutPrefix(t, tagName)
		raw, err := base64.RawURLEncoding.DecodeString(text)
		return ok && err == nil && nameOf(lv[:1], string(raw)) == lv
	})
}

// lvName is what the LV was called when it was made.
func (v *volume) lvName() string { return nameOf(v.own.Kind, v.own.Name) }

// ours says that the LV is this driver's and can be read.
func (v *volume) ours() bool { return v.own != nil && v.bad == nil }

func (v *volume) id() string { return makeID(v.own.Class, v.lvName()) }
