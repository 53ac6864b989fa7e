package loopfile

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/csikit/csikit/backends"
)

// RecoverController removes what an earlier process left half-made or
// half-deleted, and finishes expansions. A pool that is not there is no error:
// there is nothing to recover until it is.
func (b *Backend) RecoverController(ctx context.Context) error {
	p, done, err := b.enter(ControllerHalf)
	if errors.Is(err, backends.ErrUnavailable) && !errors.Is(err, errRefused) {
		b.whenOpened(err, func(p *pool) { b.sweep(context.Background(), p) })
		return nil
	}
	if err != nil {
		return err
	}
	defer done()
	b.sweep(ctx, p)
	return nil
}

// whenOpened puts recovery off until there is a pool.
func (b *Backend) whenOpened(err error, recover func(*pool)) {
	b.log.Warn("pool is not available, recovered when it is", "err", err)
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.late
	b.late = func(p *pool) {
		if before != nil {
			before(p)
		}
		recover(p)
	}
}

// sweep must run before the first create or delete. What cannot be cleaned up
// must not keep the driver from starting: it is named in the log.
func (b *Backend) sweep(ctx context.Context, p *pool) {
	b.thawAll(ctx, p)
	for _, parent := range []string{tmpDir, trashDir} {
		names, err := readNames(p.root, parent)
		if err != nil {
			b.log.Error("not recovered", "pool", p.dir, "err", err)
		}
		for _, n := range names {
			if err := p.discard(parent, n); err != nil {
				b.log.Warn("left behind", "path", filepath.Join(p.dir, parent, n), "err", err)
			}
			backends.Progress(ctx, "removed "+n)
		}
	}
	b.finishExpands(ctx, p)
	b.resumeCopies(p)
}

// resumeCopies goes on with the snapshots that an earlier process was copying.
func (b *Backend) resumeCopies(p *pool) {
	err := p.eachSet(func(s *set) {
		if err := s.read(backends.SnapshotNotFound(s.id())); err != nil {
			b.log.Error("snapshot is not recovered", "id", s.id(), "err", err)
			return
		}
		b.resume(p, s)
	})
	if err != nil {
		b.log.Error("snapshots are not recovered", "pool", p.dir, "err", err)
	}
}

func (b *Backend) finishExpands(ctx context.Context, p *pool) {
	dirs, err := p.volumes(b)
	if err != nil {
		b.log.Error("not recovered", "pool", p.dir, "err", err)
	}
	for _, dir := range dirs {
		v, err := p.volume(dir)
		if err == nil && v.meta.Target != 0 {
			err = b.finishExpand(ctx, p, dir)
		}
		if err != nil && !errors.Is(err, backends.ErrNotFound) {
			b.log.Error("volume is not recovered", "id", makeID(p.info.Name, dir), "err", err)
		}
	}
}

// RecoverNode remembers what is open, and detaches what an earlier process left
// attached and no record calls open. A loop device that somebody uses stays.
func (b *Backend) RecoverNode(ctx context.Context, open []backends.OpenVolume) error {
	claimed := map[string]*state{}
	for _, o := range open {
		_, dir, _ := splitID(o.ID)
		s, err := decodeState(o.State)
		if err != nil {
			b.log.Warn("volume state is not used", "id", o.ID, "err", err)
		}
		claimed[dir] = s // nil: claimed all the same
		if o.Ephemeral {
			claimed[dirOf(ephemeralName(o.ID))] = s // whichever ID it is
		}
	}
	p, done, err := b.enter(NodeHalf)
	if errors.Is(err, backends.ErrUnavailable) && !errors.Is(err, errRefused) {
		b.whenOpened(err, func(p *pool) { b.recoverLoops(context.Background(), p, claimed) })
		return nil
	}
	if err != nil {
		return err
	}
	defer done()
	b.recoverLoops(ctx, p, claimed)
	return nil
}

func (b *Backend) recoverLoops(ctx context.Context, p *pool, claimed map[string]*state) {
	dirs, err := p.volumes(b)
	if err != nil {
		b.log.Error("loop devices are not recovered", "pool", p.dir, "err", err)
		return
	}
	var lost []string
	for _, dir := range dirs {
		hint, open := claimed[dir]
		if err := b.recoverLoop(ctx, p, dir, open, hint); err != nil && !errors.Is(err, backends.ErrNotFound) {
			b.log.Warn("loop device is not recovered", "id", makeID(p.info.Name, dir), "err", err)
		}
		if !open {
			lost = append(lost, dir)
		}
		backends.Progress(ctx, "looked at "+dir)
	}
	b.opened.recovered()
	for _, dir := range lost {
		if err := b.deleteLost(ctx, p, dir); err != nil && !errors.Is(err, backends.ErrNotFound) {
			b.log.Warn("ephemeral volume is not deleted", "id", makeID(p.info.Name, dir), "err", err)
		}
	}
}

func (b *Backend) recoverLoop(ctx context.Context, p *pool, dir string, open bool, hint *state) error {
	v, err := p.lockDir(ctx, dir)
	if err != nil {
		return err
	}
	defer v.unlock()
	if !open {
		return b.detachVolume(ctx, v, nil)
	}
	if v.img, err = v.root.Lstat(imgFile); err != nil {
		return err
	}
	s, err := b.attached(ctx, v, hint)
	if s != nil {
		b.opened.put(dir, *s)
	}
	if s == nil || err != nil || b.throttle == nil {
		return err
	}
	if err := v.read(v.root, "."); err != nil {
		return err
	}
	return b.limit(v, s)
}
