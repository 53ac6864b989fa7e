package loopfile

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/csikit/csikit/internal/fsfreeze"
	"github.com/csikit/csikit/mounter/blockdev"
)

// quiet is a moment in which the images of volumes are what their users would
// find after an orderly stop.
type quiet struct {
	closed bool      // nobody uses any of the volumes
	loose  []*volume // in use and not frozen
	set    *fsfreeze.Set
}

// frozenFile in a volume's directory says that a file system of ours was frozen
// by us. It need not be durable: no freeze outlives a boot.
const frozenFile = "frozen"

var errLate = errors.New("the volume was kept from writing for as long as Options.FreezeLimit permits, and released before its time")

// quiesce brings what was written to locked volumes into their images. A file
// system that is mounted on this node is frozen until end, or until
// Options.FreezeLimit; should this process die meanwhile, a child thaws it. What
// cannot be frozen is written out: with reflinks the images are then what a
// power cut would leave, which every file system that we make recovers from.
//
// end must be called in any case.
func (b *Backend) quiesce(ctx context.Context, vols []*volume) (*quiet, error) {
	q := &quiet{closed: true, set: fsfreeze.NewSet(b.o.FreezeLimit, errLate)}
	for _, v := range vols {
		if err := b.still(ctx, q, v); err != nil {
			return q, fmt.Errorf("quiesce volume %s: %w", v.id, err)
		}
	}
	return q, nil
}

// end lets writers go on. An error says that they went on before.
func (q *quiet) end() error { return q.set.End() }

// still quiesces one locked volume.
func (b *Backend) still(ctx context.Context, q *quiet, v *volume) error {
	s, err := b.loopNow(ctx, v)
	if err != nil {
		return err
	}
	if s != nil {
		q.closed = false
		frozen, err := b.freezeVolume(ctx, q, v, s.Loop)
		if err != nil {
			return err
		}
		if !frozen {
			q.loose = append(q.loose, v)
			if err := syncDevice(ctx, s.Loop); err != nil {
				return err
			}
		}
	}
	img, err := v.openImg()
	if err != nil {
		return err
	}
	return errors.Join(img.Sync(), img.Close())
}

func syncDevice(ctx context.Context, path string) error {
	d, err := blockdev.Open(ctx, path, false)
	if err != nil {
		return err
	}
	return errors.Join(d.File().Sync(), d.Close())
}

// freezeVolume freezes what is mounted of a loop device. false: nothing is, or
// it cannot be frozen.
func (b *Backend) freezeVolume(ctx context.Context, q *quiet, v *volume, loop string) (bool, error) {
	dir, err := fsfreeze.MountOf(ctx, loop)
	if err != nil || dir == nil {
		return false, err
	}
	if err := b.thawEarlier(v, dir); err != nil {
		return false, errors.Join(err, dir.Close())
	}
	mark := func() error {
		f, err := v.root.OpenFile(frozenFile, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		return f.Close()
	}
	unmark := func() error { return ignoreMissing(v.root.Remove(frozenFile)) }
	thaw, err := fsfreeze.Freeze(dir, mark, unmark, v.lock)
	b.step("loopfile.quiesce.frozen")
	thawed := func() error {
		err := thaw()
		if errors.Is(err, fsfreeze.ErrStill) {
			b.log.Error("volume may be frozen", "id", v.id, "err", err)
		}
		return err
	}
	switch {
	case errors.Is(err, fsfreeze.ErrNot):
		b.log.Warn("a mounted file system is not frozen for its snapshot", "id", v.id, "path", dir.Name(), "err", err)
		return false, dir.Close()
	case err != nil:
		return false, errors.Join(err, dir.Close())
	case !q.set.Add(thawed):
		return false, errors.Join(thawed(), errLate)
	}
	return true, nil
}

// thawEarlier thaws what an earlier process froze of a locked volume, if one did: its
// mark is not to be lost, and somebody else's freeze has none.
func (b *Backend) thawEarlier(v *volume, dir *os.File) error {
	_, err := v.root.Lstat(frozenFile)
	if err != nil {
		return ignoreMissing(err)
	}
	b.log.Warn("thaw what an earlier process froze", "id", v.id, "path", dir.Name())
	if err := fsfreeze.Thaw(dir); err != nil {
		return err
	}
	return ignoreMissing(v.root.Remove(frozenFile))
}

func ignoreMissing(err error) error {
	if notExist(err) {
		return nil
	}
	return err
}

// thawAll thaws what an earlier process froze and did not live to thaw, and whose
// child was killed with it.
func (b *Backend) thawAll(ctx context.Context, p *pool) {
	dirs, err := p.volumes(b)
	if err != nil {
		b.log.Error("frozen volumes are not looked for", "pool", p.dir, "err", err)
		return
	}
	for _, dir := range dirs {
		v := &volume{p: p, id: makeID(p.info.Name, dir), dir: dir}
		if _, err := p.root.Lstat(volumesDir + "/" + dir + "/" + frozenFile); notExist(err) {
			continue
		}
		if err := b.thawLeft(ctx, v); err != nil {
			b.log.Error("volume may be frozen", "id", v.id, "err", err)
		}
	}
}

func (b *Backend) thawLeft(ctx context.Context, v *volume) error {
	if err := v.take(ctx); err != nil {
		v.unlock()
		return err
	}
	defer v.unlock()
	var err error
	if v.img, err = v.root.Lstat(imgFile); err != nil {
		return err
	}
	s, err := b.attached(ctx, v, nil)
	if err != nil {
		return err
	}
	if s == nil {
		return ignoreMissing(v.root.Remove(frozenFile))
	}
	dir, err := fsfreeze.MountOf(ctx, s.Loop)
	if err != nil {
		return err
	}
	if dir == nil {
		return fmt.Errorf("%s is not mounted where this process sees it, and not thawed", s.Loop)
	}
	return errors.Join(b.thawEarlier(v, dir), dir.Close())
}
