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
		b.log.Warn("pool is not available, recovered when it is", "err", err)
		b.mu.Lock()
		b.late = true
		b.mu.Unlock()
		return nil
	}
	if err != nil {
		return err
	}
	defer done()
	b.sweep(ctx, p)
	return nil
}

// sweep must run before the first create or delete. What cannot be cleaned up
// must not keep the driver from starting: it is named in the log.
func (b *Backend) sweep(ctx context.Context, p *pool) {
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
	p, done, err := b.enter(NodeHalf)
	if errors.Is(err, backends.ErrUnavailable) && !errors.Is(err, errRefused) {
		b.log.Warn("pool is not available, loop devices not looked at", "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer done()
	states := map[string]*state{}
	claimed := map[string]bool{}
	for _, o := range open {
		_, dir, _ := splitID(o.ID)
		claimed[dir] = true
		if states[dir], err = decodeState(o.State); err != nil {
			b.log.Warn("volume state is not used", "id", o.ID, "err", err)
		}
	}
	dirs, err := p.volumes(b)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := b.recoverLoop(ctx, p, dir, claimed[dir], states[dir]); err != nil && !errors.Is(err, backends.ErrNotFound) {
			b.log.Warn("loop device is not recovered", "id", makeID(p.info.Name, dir), "err", err)
		}
	}
	b.opened.recovered()
	return nil
}

func (b *Backend) recoverLoop(ctx context.Context, p *pool, dir string, claimed bool, hint *state) error {
	v, err := p.lockDir(ctx, dir)
	if err != nil {
		return err
	}
	defer v.unlock()
	if !claimed {
		return b.detachVolume(ctx, v, nil)
	}
	if v.img, err = v.root.Lstat(imgFile); err != nil {
		return err
	}
	s, err := b.attached(ctx, v, hint)
	if s != nil {
		b.opened.put(dir, *s)
	}
	return err
}
