package lvm

import (
	"context"
	"errors"
	"fmt"
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
	q := &quiet{set: fsfreeze.NewSet(b.o.FreezeLimit, errLate), loose: map[string]uint64{}}
	if len(vols) < 2 {
		return q, nil
	}
	for _, v := range vols {
		if err := b.still(ctx, q, v); err != nil {
			return q, fmt.Errorf("quiesce volume %s: %w", v.id(), err)
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

// still quiesces one volume.
func (b *Backend) still(ctx context.Context, q *quiet, v *volume) error {
	path, err := b.kernel.device(v.dmUUID())
	if path == "" || err != nil {
		return err
	}
	dir, err := b.kernel.mountOf(ctx, path)
	if err != nil {
		return err
	}
	if dir == nil {
		q.loose[v.dmUUID()] = 0
		return nil
	}
	mark, err := b.markFrozen(ctx, v.dmUUID())
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	marked := func() error { return nil } // before the child is there, which keeps the mark
	thaw, err := fsfreeze.Freeze(dir, marked, marked, mark.file)
	b.step("group:frozen")
	switch {
	case errors.Is(err, fsfreeze.ErrNot):
		b.log.Warn("a mounted file system is not frozen for its snapshot", "id", v.id(), "path", dir.Name(), "err", err)
		q.loose[v.dmUUID()] = 0
		return errors.Join(mark.remove(), dir.Close())
	case err != nil:
		return errors.Join(err, mark.remove(), dir.Close())
	}
	thawed := func() error { return errors.Join(thaw(), mark.remove()) }
	if !q.set.Add(thawed) {
		return errors.Join(thawed(), errLate)
	}
	return nil
}

// defaultFreeze is how long a group may keep its volumes from writing: a snapshot takes
// a tenth of a second.
const defaultFreeze = 10 * time.Second
