package loopfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/faultpoint"
)

// DeleteVolume moves the volume to .trash, which is the moment it is gone, and
// frees its space. A volume that is open, or attached by anybody, stays.
func (b *Backend) DeleteVolume(ctx context.Context, req backends.DeleteVolumeRequest) error {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return err
	}
	defer done()
	dir, err := p.decode(req.ID)
	if err != nil {
		return err
	}
	if v, err := p.volume(dir); err == nil && v.meta.Ephemeral != "" {
		return fmt.Errorf("%w: volume %s goes with its pod", backends.ErrInUse, req.ID)
	}
	return b.deleteDir(ctx, p, dir)
}

// deleteDir deletes the volume in a directory of v.
func (b *Backend) deleteDir(ctx context.Context, p *pool, dir string) error {
	trash, err := b.trash(ctx, p, dir)
	if err != nil {
		return err
	}
	b.purges.start(func() { b.purge(p, trash) }, &p.users)
	b.purges.waitFor(ctx, purgeWait)
	return nil
}

// trash moves the volume away, durably.
func (b *Backend) trash(ctx context.Context, p *pool, dir string) (name string, err error) {
	v, err := p.lock(ctx, dir)
	if err != nil {
		return "", err
	}
	defer v.unlock()
	if a := v.meta.Attached; a != nil {
		return "", fmt.Errorf("delete volume %s: %w: it is attached to node %s", v.id, backends.ErrInUse, a.Node)
	}
	if snap := b.jobs.of(v.id); snap != "" {
		return "", fmt.Errorf("delete volume %s: %w: snapshot %s of it is still being copied", v.id, backends.ErrInUse, snap)
	}
	if err := b.idle(ctx, v); err != nil {
		return "", fmt.Errorf("delete volume %s: %w", v.id, err)
	}
	b.step("loopfile.delete.idle")
	name = dir + "." + randomName(8)
	if err := renameNew(p.vols, dir, p.trash, name); err != nil {
		return "", unavailable("delete volume "+v.id, err)
	}
	b.step("loopfile.delete.renamed")
	if err := errors.Join(p.vols.Sync(), p.trash.Sync()); err != nil {
		return "", unavailable(p.dir, err)
	}
	b.step("loopfile.delete.synced")
	return name, nil
}

// purge frees what is in the trash. What cannot be freed now is left for the
// next start.
func (b *Backend) purge(p *pool, name string) {
	b.step("loopfile.delete.purge")
	if err := p.discard(trashDir, name); err != nil {
		b.log.Warn("deleted volume is not freed yet", "path", filepath.Join(p.dir, trashDir, name), "err", err)
	}
}

// cutStep bounds one system call that frees space.
const cutStep = 64 << 30

// discard removes a directory of .tmp or .trash by the names that are in it, and
// never by descending: what else may stand there is not ours. A file that a loop
// device holds is left alone. Snapshots are never attached, and whoever reads one
// may go on.
func (p *pool) discard(parent, name string) error {
	at := path.Join(parent, name)
	root, err := p.root.OpenRoot(at)
	if notExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := discardImg(root); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(p.dir, at, imgFile), err)
	}
	faultpoint.Reach("loopfile.discard.image")
	members, err := memberFiles(root)
	if err != nil {
		return err
	}
	for _, f := range append(members, frozenFile, metaNew, metaFile) {
		if err := root.Remove(f); err != nil && !notExist(err) {
			return err
		}
	}
	faultpoint.Reach("loopfile.discard.files")
	if err := p.root.Remove(at); err != nil && !notExist(err) {
		return err
	}
	faultpoint.Reach("loopfile.discard.directory")
	return nil
}

func discardImg(root *os.Root) error {
	fi, err := root.Lstat(imgFile)
	if notExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().IsRegular() {
		if err := cut(root); err != nil {
			return err
		}
	}
	return root.Remove(imgFile)
}

// cut shortens the image in steps, so that no single call runs for long.
func cut(root *os.Root) error {
	f, err := root.OpenFile(imgFile, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written
	if ok, err := tryLock(f); err != nil || !ok {
		return errors.Join(err, errors.New("a loop device holds it"))
	}
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	for n := fi.Size() - cutStep; n > 0; n -= cutStep {
		if err := f.Truncate(n); err != nil {
			return err
		}
	}
	return nil
}

// purges are the deletions that go on after their call was answered.
type purges struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when n is 0; nil: nothing was started yet
}

// start runs f, and keeps the pool in use meanwhile.
func (p *purges) start(f func(), users *sync.WaitGroup) {
	p.mu.Lock()
	if p.n == 0 {
		p.idle = make(chan struct{})
	}
	p.n++
	p.mu.Unlock()
	users.Go(func() {
		defer p.end()
		f()
	})
}

func (p *purges) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n--; p.n == 0 {
		close(p.idle)
	}
}

func (p *purges) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n > 0
}

func (p *purges) done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n == 0 {
		c := make(chan struct{})
		close(c)
		return c
	}
	return p.idle
}

func (p *purges) wait() { <-p.done() }

// waitFor waits at most d.
func (p *purges) waitFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done():
	case <-t.C:
	case <-ctx.Done():
	}
}
