package lvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/fsfreeze"
)

// One snapshot needs none of this: lvm has device-mapper freeze the file system for the
// moment of the cut. Several are cut one after the other.

// errLate is what a group gets that took too long.
var errLate = fmt.Errorf("%w: the volumes were kept from writing for as long as Options.FreezeLimit permits, and released before all were cut", backends.ErrUnavailable)

// frozenMark begins the name of a file in DeviceDir that says which LV was frozen by
// us. That directory is as old as the boot, and no freeze outlives it.
const frozenMark = "frozen-"

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
	mark := filepath.Join(b.o.DeviceDir, frozenMark+v.dmUUID())
	thaw, err := fsfreeze.Freeze(dir, func() error { return touch(mark) }, func() error { return os.Remove(mark) })
	b.step("group:frozen")
	switch {
	case errors.Is(err, fsfreeze.ErrNot):
		b.log.Warn("a mounted file system is not frozen for its snapshot", "id", v.id(), "path", dir.Name(), "err", err)
		q.loose[v.dmUUID()] = 0
		return dir.Close()
	case err != nil:
		return errors.Join(err, dir.Close())
	case !q.set.Add(thaw):
		return errors.Join(thaw(), errLate)
	}
	return nil
}

func touch(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// thawLeft thaws what an earlier process froze and did not live to thaw, and whose
// child was killed with it.
func (b *Backend) thawLeft(ctx context.Context) {
	marks, err := filepath.Glob(filepath.Join(b.o.DeviceDir, frozenMark+"LVM-*"))
	if err != nil {
		b.log.Error("frozen volumes are not looked for", "dir", b.o.DeviceDir, "err", err)
	}
	for _, mark := range marks {
		if err := b.thawMarked(ctx, mark); err != nil {
			b.log.Error("volume may be frozen", "mark", mark, "err", err)
		}
	}
}

func (b *Backend) thawMarked(ctx context.Context, mark string) error {
	path, err := b.kernel.device(strings.TrimPrefix(filepath.Base(mark), frozenMark))
	if err != nil {
		return err
	}
	if path != "" {
		dir, err := b.kernel.mountOf(ctx, path)
		if err != nil {
			return err
		}
		if dir != nil {
			b.log.Warn("thaw what an earlier process froze", "path", dir.Name())
			if err := errors.Join(fsfreeze.Thaw(dir), dir.Close()); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(mark); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// defaultFreeze is how long a group may keep its volumes from writing: a snapshot takes
// a tenth of a second.
const defaultFreeze = 10 * time.Second
