package loopfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"github.com/csikit/csikit/backends"
)

// CreateVolume makes a volume in .tmp, durable in every part, and lets it appear
// by one rename. Whatever fails before that is undone; whoever is killed before
// that leaves litter, which RecoverController removes.
func (b *Backend) CreateVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return nil, err
	}
	defer done()
	m, err := b.newMeta(p, req)
	if err != nil {
		return nil, err
	}
	return b.make(ctx, p, m, func(img *os.File) error { return b.fill(ctx, p, img, m) })
}

// make makes the volume that m describes; fill gives its empty image content.
func (b *Backend) make(ctx context.Context, p *pool, m *meta, fill func(img *os.File) error) (*backends.Volume, error) {
	m.Created = time.Now().UTC()
	dir := dirOf(m.Name)
	if err := (&volume{p: p, dir: dir}).exists(); err == nil {
		return nil, fmt.Errorf("%w: volume %q", backends.ErrExists, m.Name)
	} else if !errors.Is(err, backends.ErrNotFound) {
		return nil, err
	}
	tmp := dir + "." + randomName(8)
	if err := b.build(ctx, p, tmp, m, fill); err != nil {
		return nil, b.undo(p, tmp, fmt.Errorf("create volume %q: %w", m.Name, err))
	}
	b.step("loopfile.create.built")
	if err := b.appear(p, tmp, p.vols, dir); err != nil {
		if errors.Is(err, backends.ErrUnavailable) {
			return nil, err // it may be there after a crash, or not
		}
		return nil, b.undo(p, tmp, fmt.Errorf("create volume %q: %w", m.Name, err))
	}
	b.step("loopfile.create.synced")
	return &backends.Volume{
		ID: m.ID, Name: m.Name, Capacity: m.Size, Fingerprint: m.Fingerprint,
		Source: m.source(), Topology: []backends.Segments{b.segments()}, Mutable: b.publicMutable(m),
	}, nil
}

// appear moves a finished directory from .tmp to where it is found, durably. A
// name that is taken is ErrExists.
func (b *Backend) appear(p *pool, tmp string, parent *os.File, dir string) error {
	err := renameNew(p.tmp, tmp, parent, dir)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", backends.ErrExists, err)
	}
	if err != nil {
		return err
	}
	b.step("loopfile.appear.renamed")
	if err := errors.Join(parent.Sync(), p.tmp.Sync()); err != nil {
		return unavailable(p.dir, err)
	}
	return nil
}

// build makes the directory of a volume in .tmp.
func (b *Backend) build(ctx context.Context, p *pool, tmp string, m *meta, fill func(img *os.File) error) error {
	if err := p.root.Mkdir(path.Join(tmpDir, tmp), 0o700); err != nil {
		return err
	}
	root, err := p.root.OpenRoot(path.Join(tmpDir, tmp))
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	b.step("loopfile.create.mkdir")
	img, err := root.OpenFile(imgFile, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = fill(img)
	if err = errors.Join(err, img.Close()); err != nil {
		return err
	}
	b.step("loopfile.create.filled")
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return writeMeta(root, m)
}

// admitImage is admit for a new, empty image, which from here on is written in
// place if it is thick.
func (b *Backend) admitImage(ctx context.Context, p *pool, img *os.File, m *meta) (release func(), err error) {
	release, err = b.admit(ctx, p, m.Size, m.thick())
	if err != nil || !m.thick() {
		return release, err
	}
	f, err := p.facts()
	if err == nil {
		err = overwriteInPlace(img, f.Type)
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// fill gives a new image its size, and a thick one its blocks.
func (b *Backend) fill(ctx context.Context, p *pool, img *os.File, m *meta) error {
	release, err := b.admitImage(ctx, p, img, m)
	if err != nil {
		return err
	}
	defer release()
	if m.thick() {
		if err := allocate(ctx, img, m.Size); err != nil {
			return err
		}
		b.step("loopfile.create.allocated")
	}
	if err := img.Truncate(m.Size); err != nil {
		return err
	}
	return img.Sync()
}

// undo removes what build made, and says which kind of failure it was. Only when
// nothing is left may the answer be a final one.
func (b *Backend) undo(p *pool, tmp string, err error) error {
	if left := p.discard(tmpDir, tmp); left != nil {
		return fmt.Errorf("%w: %w, and then: %w", backends.ErrUnavailable, err, left)
	}
	return classify(err)
}

// classify gives the kernel's errors their kind.
func classify(err error) error {
	for _, k := range []struct {
		errno syscall.Errno
		kind  error
	}{
		{syscall.ENOSPC, backends.ErrNoSpace},
		{syscall.EDQUOT, backends.ErrNoSpace},
		{syscall.EFBIG, backends.ErrOutOfRange},
		{syscall.EOPNOTSUPP, backends.ErrInvalid}, // fallocate: this file system has no thick files
	} {
		if errors.Is(err, k.errno) {
			return fmt.Errorf("%w: %w", k.kind, err)
		}
	}
	return err
}
