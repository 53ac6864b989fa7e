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
