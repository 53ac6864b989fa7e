package loopfile

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/sparse"
)

// RestoreSnapshot makes a volume of a snapshot: of the same blocks where the file
// system can share them, grown to the size that was asked for, and with a file
// system of its own identity.
func (b *Backend) RestoreSnapshot(ctx context.Context, snap backends.Snapshot, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return nil, err
	}
	defer done()
	s, from, err := p.snapshot(snap.ID)
	if err != nil {
		return nil, err
	}
	if from.Copy != nil {
		return nil, fmt.Errorf("%w: snapshot %s is still being copied", backends.ErrUnavailable, snap.ID)
	}
	src, err := p.root.Open(s.at(s.file(from)))
	if err != nil {
		return nil, unavailable(s.path(s.file(from)), err)
	}
	defer func() { _ = src.Close() }() // read only
	m, err := b.derivedMeta(p, req, from)
	if err != nil {
		return nil, err
	}
	m.Source = &origin{SnapshotID: snap.ID}
	return b.derive(ctx, p, m, func(img *os.File) error { return replicate(ctx, img, src) })
}

// CloneVolume makes a volume of another one as it is now.
func (b *Backend) CloneVolume(ctx context.Context, source backends.Volume, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return nil, err
	}
	defer done()
	dir, err := p.decode(source.ID)
	if err != nil {
		return nil, err
	}
	v, err := p.volume(dir)
	if err != nil {
		return nil, err
	}
	from := memberOf(v)
	m, err := b.derivedMeta(p, req, from)
	if err != nil {
		return nil, err
	}
	m.Source = &origin{VolumeID: source.ID}
	return b.derive(ctx, p, m, func(img *os.File) error { return b.copyVolume(ctx, p, dir, m, img) })
}

// memberOf is what a set would note of a volume.
func memberOf(v *volume) member {
	return member{
		VolumeID: v.id, Size: v.size(), Type: v.meta.Type, BlockSize: v.meta.BlockSize,
		Format: v.meta.Format, FSType: v.meta.FSType,
	}
}

// derivedMeta is newMeta for a volume that begins with the content of another. A
// file system made for blocks of one size cannot be used with those of another.
func (b *Backend) derivedMeta(p *pool, req backends.CreateVolumeRequest, from member) (*meta, error) {
	if limit := req.Range.Limit; limit > 0 && from.Size > limit {
		return nil, fmt.Errorf("%w: the source has %d bytes, and the limit is %d", backends.ErrOutOfRange, from.Size, limit)
	}
	req.Size = max(req.Size, from.Size)
	m, err := b.newMeta(p, req)
	if err != nil {
		return nil, err
	}
	if req.Parameters[paramBlockSize] != "" && m.BlockSize != from.BlockSize {
		return nil, fmt.Errorf("%w: parameter blockSize %d: the source has blocks of %d bytes", backends.ErrInvalid, m.BlockSize, from.BlockSize)
	}
	m.BlockSize, m.Format, m.FSType = from.BlockSize, from.Format, from.FSType
	return m, nil
}

// derive makes a volume whose image copy fills with what its source holds.
func (b *Backend) derive(ctx context.Context, p *pool, m *meta, copy func(img *os.File) error) (*backends.Volume, error) {
	v, err := b.make(ctx, p, m, func(img *os.File) error {
		release, err := b.admitImage(ctx, p, img, m)
		if err != nil {
			return err
		}
		defer release()
		if err := copy(img); err != nil {
			return err
		}
		b.step("loopfile.derive.copied")
		if err := b.renew(ctx, img, m); err != nil {
			return err
		}
		b.step("loopfile.derive.renewed")
		return b.complete(ctx, img, m)
	})
	if err == nil {
		b.shared.add(dirOf(m.Name))
	}
	return v, err
}

// complete makes a filled image as long as the volume, and a thick one allocated
// in full: shared blocks come without what was allocated beside them.
func (b *Backend) complete(ctx context.Context, img *os.File, m *meta) error {
	fi, err := img.Stat()
	if err != nil {
		return err
	}
	m.Size = max(m.Size, fi.Size()) // a source that grew since it was looked at
	if m.thick() {
		if err := allocate(ctx, img, m.Size); err != nil {
			return err
		}
	}
	if err := img.Truncate(m.Size); err != nil {
		return err
	}
	return img.Sync()
}

// replicate gives dst the content of src, which nobody writes to.
func replicate(ctx context.Context, dst, src *os.File) error {
	ok, err := sparse.Reflink(dst, src)
	if ok || err != nil {
		return err
	}
	return copySparse(ctx, dst, src, 0, checkpoint{})
}

// copyVolume gives img the content of a volume at one moment.
func (b *Backend) copyVolume(ctx context.Context, p *pool, dir string, m *meta, img *os.File) error {
	v, err := p.lock(ctx, dir)
	if err != nil {
		return err
	}
	defer v.unlock()
	if err := v.damaged(); err != nil {
		return err
	}
	// Between the look at the source and its lock it may have been formatted.
	m.Format, m.FSType = v.meta.Format, v.meta.FSType
	src, err := v.openImg()
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // nothing was written
	q, err := b.quiesce(ctx, []*volume{v})
	if err == nil {
		b.step("loopfile.clone.quiet")
		err = b.copyQuiet(ctx, q, v, img, src)
	}
	return errors.Join(err, q.end())
}

func (b *Backend) copyQuiet(ctx context.Context, q *quiet, v *volume, img, src *os.File) error {
	ok, err := sparse.Reflink(img, src)
	if ok {
		b.shared.add(v.dir)
	}
	if ok || err != nil {
		return err
	}
	if q.closed {
		return copySparse(ctx, img, src, 0, checkpoint{}) // the lock keeps it closed
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.o.FreezeLimit, errTooLong)
	defer cancel()
	return copyUsed(ctx, img, src)
}

// copyUsed copies the image of a volume that is in use, and fails when somebody
// wrote to it meanwhile.
func copyUsed(ctx context.Context, dst, src *os.File) error {
	before, err := settled(ctx, src)
	if err == nil {
		err = copySparse(ctx, dst, src, 0, checkpoint{})
	}
	if err == nil {
		err = before.same(src)
	}
	if errors.Is(err, errWritten) {
		return fmt.Errorf("%w: %s %w: close it, or put the pool on xfs or btrfs", backends.ErrPrecondition, src.Name(), err)
	}
	return err
}
