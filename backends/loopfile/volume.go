package loopfile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"

	"github.com/csikit/csikit/backends"
)

// volume is one directory of v, as it was read.
type volume struct {
	p    *pool
	id   string
	dir  string
	meta *meta
	img  os.FileInfo
	// root and lock are set by pool.lockDir alone.
	root *os.Root
	lock *os.File
}

func (v *volume) path(name string) string { return filepath.Join(v.p.dir, volumesDir, v.dir, name) }

// size is what the volume has: of a grown file all of it, of a cut one what was
// promised.
func (v *volume) size() int64 { return max(v.img.Size(), v.meta.Size) }

// damaged says that the file lost its end.
func (v *volume) damaged() error {
	if v.img.Size() >= v.meta.Size {
		return nil
	}
	return fmt.Errorf("%w: %s has %d bytes, the volume %d", backends.ErrDataLoss, v.path(imgFile), v.img.Size(), v.meta.Size)
}

// volume reads the volume in a directory of v. The directory must be there, or
// the volume is not found; everything else that is missing or wrong is named.
func (p *pool) volume(dir string) (*volume, error) {
	v := &volume{p: p, id: makeID(p.info.Name, dir), dir: dir}
	if err := v.exists(); err != nil {
		return nil, err
	}
	if err := v.read(p.root, path.Join(volumesDir, dir)); err != nil {
		// A delete may have moved it away between the two looks.
		if gone := v.exists(); errors.Is(gone, backends.ErrNotFound) {
			return nil, gone
		}
		return nil, err
	}
	return v, nil
}

// exists looks for the directory in the pool that was verified.
func (v *volume) exists() error {
	fi, err := v.p.root.Lstat(path.Join(volumesDir, v.dir))
	switch {
	case notExist(err):
		return backends.VolumeNotFound(v.id)
	case err != nil:
		return unavailable(v.path(""), err)
	case !fi.IsDir():
		return fmt.Errorf("%w: %s is no directory", backends.ErrUnavailable, v.path(""))
	}
	return nil
}

func (v *volume) read(root *os.Root, at string) error {
	b, err := root.ReadFile(path.Join(at, metaFile))
	if err != nil {
		return unavailable(v.path(metaFile), err)
	}
	if v.meta, err = decodeMeta(b, v.id); err != nil {
		return fmt.Errorf("%s: %w", v.path(metaFile), err)
	}
	if v.img, err = root.Lstat(path.Join(at, imgFile)); err != nil {
		return unavailable(v.path(imgFile), err)
	}
	if !v.img.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is no regular file", backends.ErrUnavailable, v.path(imgFile))
	}
	return nil
}

// lock is volume, with the directory locked against the other half and other
// calls until unlock.
func (p *pool) lock(ctx context.Context, dir string) (*volume, error) {
	v, err := p.lockDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	if err := v.read(v.root, "."); err != nil {
		v.unlock()
		return nil, err
	}
	return v, nil
}

// lockDir is lock without a look at what the directory holds.
func (p *pool) lockDir(ctx context.Context, dir string) (*volume, error) {
	v := &volume{p: p, id: makeID(p.info.Name, dir), dir: dir}
	if err := v.exists(); err != nil {
		return nil, err
	}
	if err := v.take(ctx); err != nil {
		v.unlock()
		return nil, err
	}
	return v, nil
}

func (v *volume) take(ctx context.Context) (err error) {
	if v.root, err = v.p.root.OpenRoot(path.Join(volumesDir, v.dir)); err != nil {
		return v.missing(err)
	}
	if v.lock, err = v.root.Open("."); err != nil {
		return v.missing(err)
	}
	if err := waitLock(ctx, v.lock); err != nil {
		return fmt.Errorf("lock %s: %w", v.path(""), err)
	}
	// While this call waited, the directory may have been deleted, or made anew.
	now, err := v.p.root.Lstat(path.Join(volumesDir, v.dir))
	if err != nil {
		return v.missing(err)
	}
	held, err := v.lock.Stat()
	if err != nil {
		return unavailable(v.path(""), err)
	}
	if !os.SameFile(now, held) {
		return fmt.Errorf("%w: %s was replaced meanwhile", backends.ErrUnavailable, v.path(""))
	}
	return nil
}

// missing is not-found when the directory is gone, else the first error.
func (v *volume) missing(first error) error {
	if notExist(first) {
		if err := v.exists(); err != nil {
			return err
		}
	}
	return unavailable(v.path(""), first)
}

func (v *volume) unlock() {
	if v.lock != nil {
		_ = v.lock.Close() // the lock goes with it
	}
	if v.root != nil {
		_ = v.root.Close()
	}
}

// openImg opens the image of a locked volume, and not what a symbolic link in
// its place points to.
func (v *volume) openImg() (*os.File, error) {
	f, err := v.root.OpenFile(imgFile, os.O_RDWR, 0)
	if err != nil {
		return nil, unavailable(v.path(imgFile), err)
	}
	fi, err := f.Stat()
	if err == nil && !os.SameFile(fi, v.img) {
		err = errors.New("was replaced meanwhile")
	}
	if err != nil {
		_ = f.Close()
		return nil, unavailable(v.path(imgFile), err)
	}
	v.img = fi
	return f, nil
}

// saveMeta replaces the meta of a locked volume.
func (v *volume) saveMeta(m meta) error {
	if err := writeMeta(v.root, &m); err != nil {
		return fmt.Errorf("write %s: %w", v.path(metaFile), err)
	}
	v.meta = &m
	return nil
}

// public is the volume as csikit knows it.
func (b *Backend) public(v *volume) *backends.Volume {
	var nodes []string
	if b.o.Attach && v.meta.Attached != nil {
		nodes = []string{v.meta.Attached.Node}
	}
	return &backends.Volume{
		Nodes: nodes,
		ID:    v.id, Name: v.meta.Name, Capacity: v.size(), Fingerprint: v.meta.Fingerprint,
		Source: v.meta.source(), Topology: []backends.Segments{b.segments()}, Mutable: b.publicMutable(v.meta),
	}
}

// publicMutable is Volume.Mutable; nil where volumes have none.
func (b *Backend) publicMutable(m *meta) map[string]string {
	if b.o.Cgroup == "" {
		return nil
	}
	all := map[string]string{}
	maps.Copy(all, m.Mutable)
	return all
}
