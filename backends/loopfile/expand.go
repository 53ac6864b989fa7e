package loopfile

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/csikit/csikit/backends"
)

// ExpandVolume grows the image. The target is written down first, so that a
// process that is killed leaves a volume that the next one finishes; the volume
// has its new size when the file has it.
func (b *Backend) ExpandVolume(ctx context.Context, req backends.ExpandVolumeRequest) (int64, error) {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return 0, err
	}
	defer done()
	dir, err := p.decode(req.ID)
	if err != nil {
		return 0, err
	}
	v, err := p.lock(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer v.unlock()
	if err := v.damaged(); err != nil {
		return 0, err
	}
	if snap := b.jobs.of(v.id); snap != "" {
		return 0, fmt.Errorf("%w: snapshot %s of volume %s is still being copied", backends.ErrPending, snap, v.id)
	}
	if req.Size < 0 || req.Size > maxSize {
		return 0, fmt.Errorf("%w: %d bytes", backends.ErrOutOfRange, req.Size)
	}
	size := roundUp(req.Size)
	if l := req.Range.Limit; l > 0 && max(size, v.size()) > l {
		return 0, fmt.Errorf("%w: %d bytes is above the limit %d", backends.ErrOutOfRange, max(size, v.size()), l)
	}
	if size > v.meta.Size || v.meta.Target != 0 {
		if err := b.grow(ctx, v, max(size, v.meta.Size)); err != nil {
			return 0, fmt.Errorf("expand volume %s: %w", v.id, err)
		}
	}
	return v.size(), nil
}

// grow makes a locked volume target bytes long; on failure as long as it was.
func (b *Backend) grow(ctx context.Context, v *volume, target int64) error {
	m := *v.meta
	m.Target = target
	if err := v.saveMeta(m); err != nil {
		return classify(err)
	}
	b.step("loopfile.expand.target")
	img, err := v.openImg()
	if err != nil {
		return err
	}
	defer func() { _ = img.Close() }() // synced where it matters
	if err := b.lengthen(ctx, v, img); err != nil {
		return b.ungrow(v, img, err)
	}
	b.step("loopfile.expand.grown")
	m.Size, m.Target = max(target, v.img.Size()), 0
	if err := v.saveMeta(m); err != nil {
		return classify(err)
	}
	b.step("loopfile.expand.saved")
	return nil
}

func (b *Backend) lengthen(ctx context.Context, v *volume, img *os.File) error {
	target := v.meta.Target
	if v.img.Size() < target {
		release, err := b.admit(ctx, v.p, target-v.img.Size(), v.meta.thick())
		if err != nil {
			return err
		}
		defer release()
		if v.meta.thick() {
			if err := allocate(ctx, img, target); err != nil {
				return err
			}
			b.step("loopfile.expand.allocated")
		}
		if err := img.Truncate(target); err != nil {
			return err
		}
	}
	if err := img.Sync(); err != nil {
		return err
	}
	fi, err := img.Stat()
	if err == nil {
		v.img = fi
	}
	return err
}

// ungrow takes back what a failed grow allocated. The size that somebody may have
// seen already stays.
func (b *Backend) ungrow(v *volume, img *os.File, err error) error {
	fi, undo := img.Stat()
	if undo == nil {
		// The same length again: blocks beyond the end are given back.
		undo = img.Truncate(fi.Size())
	}
	if undo == nil {
		m := *v.meta
		m.Size, m.Target = max(m.Size, fi.Size()), 0
		undo = v.saveMeta(m)
	}
	if undo != nil {
		return fmt.Errorf("%w: %w, and then: %w", backends.ErrUnavailable, err, undo)
	}
	return classify(err)
}

// finishExpand ends what an earlier process began.
func (b *Backend) finishExpand(ctx context.Context, p *pool, dir string) error {
	v, err := p.lock(ctx, dir)
	if errors.Is(err, backends.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer v.unlock()
	if v.meta.Target == 0 {
		return nil
	}
	if err := v.damaged(); err != nil {
		return err
	}
	return b.grow(ctx, v, v.meta.Target)
}
