package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/fsfreeze"
)

// One snapshot needs none of this: lvm has device-mapper freeze the file system for the
// moment of the cut. Several are cut one after the other.

// errLate is what a group gets that took too long.
var errLate = fmt.Errorf("%w: the volumes were kept from writing for as long as Options.FreezeLimit permits, and released before all were cut", backends.ErrUnavailable)

// quiet is a moment in which several volumes do not change.
type quiet struct {
	set   *fsfreeze.Set
	loose map[string]uint64 // open and not frozen: what was written, by UUID of the device
}

// quiesce freezes what is mounted of the volumes until end, or Options.FreezeLimit;
// should this process die meanwhile, a child thaws it. end must be called in any case.
func (b *Backend) quiesce(ctx context.Context, vols []*volume) (*quiet, error) {
	members, err := b.markAll(ctx, vols)
	// Its time begins when nobody is waited for any more.
	q := &quiet{set: fsfreeze.NewSet(b.o.FreezeLimit, errLate), loose: map[string]uint64{}}
	if err != nil {
		return q, err
	}
	for i, m := range members {
		if err := b.still(q, m); err != nil {
			return q, errors.Join(fmt.Errorf("quiesce volume %s: %w", m.v.id(), err), dropAll(members[i+1:]))
		}
	}
	// With one that can be written to, the moment is that of its cut.
	for uuid := range q.loose {
		var err error
		if q.loose[uuid], err = b.kernel.writes(uuid); err != nil {
			return q, err
		}
	}
	return q, nil
}

// errMoments is a group of which nobody knows whether it shows one moment.
var errMoments = fmt.Errorf("%w: several volumes of the group are in use and cannot be frozen (raw devices, or mounts that this process does not see), and are written to while they are cut: close them, or try again when nobody writes", backends.ErrPrecondition)

// unwritten says that those which could be written to were not.
func (b *Backend) unwritten(q *quiet) error {
	if len(q.loose) < 2 {
		return nil
	}
	for uuid, before := range q.loose {
		now, err := b.kernel.writes(uuid)
		if err != nil {
			return err
		}
		if now != before {
			return errMoments
		}
	}
	return nil
}

// toFreeze is an active volume of a group.
type toFreeze struct {
	v    *volume
	dir  *os.File // where it is mounted; nil: nowhere that this process sees
	mark *mark    // with dir
}

// drop is for what is not frozen.
func (m *toFreeze) drop() error {
	if m.dir == nil {
		return nil
	}
	return errors.Join(m.mark.remove(), m.dir.Close())
}

func dropAll(members []*toFreeze) (err error) {
	for _, m := range members {
		err = errors.Join(err, m.drop())
	}
	return err
}

// markAll has the marks of all before one is frozen: nobody is kept from writing while
// another one's mark is waited for. They are taken in order, so that two processes do
// not wait for each other.
func (b *Backend) markAll(ctx context.Context, vols []*volume) (members []*toFreeze, err error) {
	if len(vols) < 2 {
		return nil, nil
	}
	wait, cancel := b.waiting(ctx)
	defer cancel()
	for _, v := range slices.SortedFunc(slices.Values(vols), func(a, b *volume) int { return strings.Compare(a.dmUUID(), b.dmUUID()) }) {
		m, err := b.markOne(ctx, wait, v)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("quiesce volume %s: %w", v.id(), err), dropAll(members))
		}
		if m != nil {
			members = append(members, m)
		}
	}
	return members, nil
}

// markOne is nil for a volume that is not active.
func (b *Backend) markOne(ctx, wait context.Context, v *volume) (*toFreeze, error) {
	path, err := b.kernel.device(v.dmUUID())
	if path == "" || err != nil {
		return nil, err
	}
	dir, err := b.kernel.mountOf(ctx, path)
	if dir == nil || err != nil {
		return &toFreeze{v: v}, err
	}
	mark, err := b.markFrozen(wait, v.dmUUID(), dir)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return &toFreeze{v, dir, mark}, nil
}

// still quiesces one volume.
func (b *Backend) still(q *quiet, m *toFreeze) error {
	if m.dir == nil {
		q.loose[m.v.dmUUID()] = 0
		return nil
	}
	ours := func() error { return nil } // the mark is removed when the child is gone, which has it too
	thaw, err := fsfreeze.Freeze(m.dir, m.mark.write, ours, m.mark.file)
	b.step("group:frozen")
	switch {
	case errors.Is(err, fsfreeze.ErrNot):
		b.log.Warn("a mounted file system is not frozen for its snapshot", "id", m.v.id(), "path", m.dir.Name(), "err", err)
		q.loose[m.v.dmUUID()] = 0
		return m.drop()
	case err != nil:
		return errors.Join(err, m.drop())
	}
	thawed := func() error {
		err := thaw()
		if errors.Is(err, fsfreeze.ErrStill) {
			b.log.Error("volume may be frozen", "id", m.v.id(), "mark", m.mark.file.Name(), "err", err)
			return errors.Join(err, m.mark.file.Close()) // who gets the mark tries again
		}
		return errors.Join(err, m.mark.remove())
	}
	if !q.set.Add(thawed) {
		return errors.Join(thawed(), errLate)
	}
	return nil
}

// defaultFreeze is how long a group may keep its volumes from writing: a snapshot takes
// a tenth of a second.
const defaultFreeze = 10 * time.Second
