package loopfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/sparse"
)

// cutting makes one set: of one volume, or of several at one moment.
type cutting struct {
	b                 *Backend
	s                 *set
	name, fingerprint string
	volumes           []string // IDs, sorted: two that lock the same volumes do so in one order

	locked []*volume
	srcs   []*os.File
	dsts   []*os.File
	meta   setMeta
	root   *os.Root // of the directory in .tmp
}

// run makes the set in .tmp and lets it appear by one rename, as CreateVolume
// does. The volumes stay locked until it is there, so that none of them is
// opened, grown or deleted meanwhile.
func (c *cutting) run(ctx context.Context) error {
	if err := checkName("snapshot", c.name); err != nil {
		return err
	}
	free := backends.SnapshotNotFound(c.name)
	if err := c.s.exists(free); err == nil {
		return fmt.Errorf("%w: %q", backends.ErrExists, c.name)
	} else if !errors.Is(err, backends.ErrNotFound) {
		return err
	}
	defer c.close()
	if err := c.lock(ctx); err != nil {
		return err
	}
	p, tmp := c.s.p, c.s.dir+"."+randomName(8)
	c.meta = setMeta{Version: setVersion, ID: c.s.id(), Name: c.name, Fingerprint: c.fingerprint}
	if err := c.build(ctx, tmp); err != nil {
		return c.b.undo(p, tmp, err)
	}
	c.b.step("loopfile.cut.built")
	if err := c.b.appear(p, tmp, p.handle(c.s.parent), c.s.dir); err != nil {
		if errors.Is(err, backends.ErrUnavailable) {
			return err // it may be there after a crash, or not
		}
		return c.b.undo(p, tmp, err)
	}
	c.b.step("loopfile.cut.synced")
	if !c.meta.ready() {
		own := p.newSet(c.s.parent, c.s.dir)
		own.meta = &c.meta
		c.b.startCopy(own, c.srcs)
		c.srcs = nil // the job's
	}
	return nil
}

func (c *cutting) lock(ctx context.Context) error {
	for _, id := range c.volumes {
		dir, err := c.s.p.decode(id)
		if err != nil {
			return err
		}
		v, err := c.s.p.lock(ctx, dir)
		if err != nil {
			return err
		}
		c.locked = append(c.locked, v)
		if err := v.damaged(); err != nil {
			return err
		}
	}
	return nil
}

func (c *cutting) close() {
	for _, f := range append(c.srcs, c.dsts...) {
		_ = f.Close() // synced where it matters
	}
	for _, v := range c.locked {
		v.unlock()
	}
	if c.root != nil {
		_ = c.root.Close()
	}
}

// build makes the directory of the set in .tmp.
func (c *cutting) build(ctx context.Context, tmp string) (err error) {
	p := c.s.p
	if err := p.root.Mkdir(path.Join(tmpDir, tmp), 0o700); err != nil {
		return err
	}
	if c.root, err = p.root.OpenRoot(path.Join(tmpDir, tmp)); err != nil {
		return err
	}
	if err := c.files(); err != nil {
		return err
	}
	c.b.step("loopfile.cut.files")
	release, err := c.admit(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := c.cut(ctx); err != nil {
		return err
	}
	for _, f := range c.dsts {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	c.b.step("loopfile.cut.filled")
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return writeJSON(c.root, &c.meta)
}

// files opens the images and makes their copies, empty.
func (c *cutting) files() error {
	for _, v := range c.locked {
		src, err := v.openImg()
		if err != nil {
			return err
		}
		c.srcs = append(c.srcs, src)
		m := memberOf(v)
		dst, err := c.root.OpenFile(c.s.file(m), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		c.dsts = append(c.dsts, dst)
		c.meta.Members = append(c.meta.Members, m)
	}
	return nil
}

// admit grants the space that the set may come to need: a copy at once, a
// reflink when its volumes are overwritten.
func (c *cutting) admit(ctx context.Context) (release func(), err error) {
	var need int64
	for _, v := range c.locked {
		need += min(allocated(v.img), v.img.Size())
		if c.s.p.reflinks() {
			need -= c.b.shared.bytes(c.s.p, v.dir)
		}
	}
	return c.b.admit(ctx, c.s.p, max(0, need), !c.s.p.reflinks())
}

// cut is the moment itself.
func (c *cutting) cut(ctx context.Context) error {
	q, err := c.b.quiesce(ctx, c.locked)
	if err != nil {
		return errors.Join(err, q.end())
	}
	c.b.step("loopfile.cut.quiet")
	err = c.atOnce(ctx, q)
	c.b.step("loopfile.cut.cut")
	// A volume that was thawed before its time was written to while others, or
	// the rest of it, were still to be cut.
	if err := errors.Join(err, q.end()); err != nil {
		return err
	}
	return c.measure()
}

// reflink shares the blocks of all images with their copies. false: this file
// system cannot.
func (c *cutting) reflink() (whole bool, err error) {
	for i, dst := range c.dsts {
		if ok, err := sparse.Reflink(dst, c.srcs[i]); !ok || err != nil {
			return false, err
		}
		c.b.shared.add(c.locked[i].dir)
		c.b.step("loopfile.cut.linked")
	}
	return true, nil
}

// copy copies the images: now, when somebody uses one of the volumes; by a job
// that goes on after this call when nobody does.
func (c *cutting) copy(ctx context.Context, q *quiet) error {
	for i, dst := range c.dsts {
		if err := dst.Truncate(0); err != nil { // of a group, some may have been linked
			return err
		}
		if err := reserve(ctx, dst, c.srcs[i]); err != nil {
			return err
		}
	}
	if q.closed {
		return c.later()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.b.o.FreezeLimit, errTooLong)
	defer cancel()
	for i, dst := range c.dsts {
		if err := copyUsed(ctx, dst, c.srcs[i]); err != nil {
			return fmt.Errorf("volume %s: %w", c.locked[i].id, err)
		}
	}
	return nil
}

// errTooLong ends the copy of a volume that is in use.
var errTooLong = fmt.Errorf("%w: a volume in use cannot be copied within Options.FreezeLimit: close it, or put the pool on xfs or btrfs", backends.ErrPrecondition)

// later leaves the copy to a job. It locks the images, and so keeps the volumes
// from being opened, but not other snapshots from being made of them.
func (c *cutting) later() error {
	for i, src := range c.srcs {
		if ok, err := tryShare(src); err != nil || !ok {
			return errors.Join(err, fmt.Errorf("%w: %s is locked", backends.ErrInUse, c.locked[i].path(imgFile)))
		}
		fi, err := src.Stat()
		if err != nil {
			return err
		}
		if err := c.dsts[i].Truncate(fi.Size()); err != nil {
			return err
		}
		c.meta.Members[i].Copy = &copied{Inode: inode(fi), Changed: changeTime(fi)}
	}
	return nil
}

// measure notes how big the members are.
func (c *cutting) measure() error {
	for i, dst := range c.dsts {
		fi, err := dst.Stat()
		if err != nil {
			return err
		}
		if fi.Size() < c.locked[i].meta.Size {
			return fmt.Errorf("copy of volume %s has %d bytes, the volume %d", c.locked[i].id, fi.Size(), c.locked[i].meta.Size)
		}
		c.meta.Members[i].Size = fi.Size()
	}
	return nil
}

// sortedIDs are the IDs in order, each once.
func sortedIDs(ids []string) []string { return slices.Compact(slices.Sorted(slices.Values(ids))) }
