package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxCopyDepth bounds how many directories are open at a time.
const maxCopyDepth = 400

// ErrChanged says that a file was changed while the tree was copied.
var ErrChanged = errors.New("was changed while it was copied")

// ErrMount says that another file system is mounted inside of a tree.
var ErrMount = errors.New("another file system is mounted there")

// CopyOptions say how.
type CopyOptions struct {
	Workers  int          // files at a time; 0: 8
	Progress func(string) // called after each piece; nil ok
	Step     func(string) // a fault point; nil ok
	// Still is not zero: anything that was changed after it, by the clock of the source's
	// file system, is ErrChanged, so that the copy is the tree as it was then. Else each
	// file is as it was at one moment, if it stays unchanged for long enough.
	Still time.Time
}

// still tells whether the tree must not change.
func (c *copier) still() bool { return !c.o.Still.IsZero() }

// settled refuses what was changed since the moment that the copy is to be of. To look
// only whether a file changes while it is copied would not do: one that is written to
// after another one was copied, and before its own turn, is of a later moment.
func (c *copier) settled(name string, i Info) error {
	if c.still() && i.Changed().After(c.o.Still) {
		return fmt.Errorf("%s: %w", name, ErrChanged)
	}
	return nil
}

// Copied is what was done.
type Copied struct {
	Files, Bytes int64
	Shared       int64 // files whose blocks are shared with the source's
	Kept         int64 // files that an earlier copy had made whole
	Unsteady     int64 // files that were written to each time they were copied
}

// copier is a copy at work.
type copier struct {
	o     CopyOptions
	links *os.File // files of several names, and directories on their way out
	dev   uint64   // of the source
	tasks chan task
	stop  context.CancelCauseFunc

	files, bytes, shared, kept, unsteady atomic.Int64
	noReflink                            atomic.Bool

	mu     sync.Mutex
	linked map[inode]*linked
}

// pair is a directory of the source and its copy. It gets its mode and times when
// everything in it is there.
type pair struct {
	src, dst *os.File
	info     Info
	up       *pair
	users    atomic.Int64
}

type task struct {
	p    *pair
	name string
	info Info
}

// Copy makes dst, a directory, what src is: files with their holes, owners, modes,
// times, extended attributes and hard links; symbolic links, fifos, sockets and
// devices. links is an empty directory on the file system of dst, or what an earlier
// Copy of the same left there. What dst has already is kept where it is certainly
// whole, and made anew elsewhere; what src has no more is removed.
func Copy(ctx context.Context, dst, src, links *Root, o CopyOptions) (Copied, error) {
	if o.Workers <= 0 {
		o.Workers = 8
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.Step == nil {
		o.Step = func(string) {}
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c := &copier{o: o, links: links.f, tasks: make(chan task, o.Workers), stop: stop, linked: map[inode]*linked{}}
	var wg sync.WaitGroup
	for range o.Workers {
		wg.Go(func() {
			for t := range c.tasks {
				c.fail(c.copy(ctx, t))
				c.leave(ctx, t.p)
			}
		})
	}
	c.fail(c.walkRoot(ctx, dst, src))
	close(c.tasks)
	wg.Wait()
	done := Copied{c.files.Load(), c.bytes.Load(), c.shared.Load(), c.kept.Load(), c.unsteady.Load()}
	if ctx.Err() != nil {
		return done, context.Cause(ctx)
	}
	return done, syncfs(dst.f)
}

func syncfs(f *os.File) error {
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: f.Name(), Err: err}
	}
	return nil
}

func (c *copier) fail(err error) {
	if err != nil {
		c.stop(err)
	}
}

func (c *copier) walkRoot(ctx context.Context, dst, src *Root) error {
	// Descriptors of its own: those of the caller stay open.
	s, err := src.open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	d, err := dst.open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		_ = s.Close() // read only
		return err
	}
	p := &pair{src: s, dst: d}
	p.users.Store(1)
	if p.info, err = statOf(s); err == nil {
		c.dev = p.info.Dev
		err = c.settled(s.Name(), p.info)
	}
	if err == nil {
		err = c.prune(ctx, p)
	}
	if err == nil {
		err = c.walk(ctx, p, 0)
	}
	c.fail(err) // before leave asks
	c.leave(ctx, p)
	return err
}

// leave ends a use of a directory; the last one completes it, and is a use of the
// one above. In a copy that ends early a directory may lack files: it stays shut, and
// without a default access list, which the next copy's files in it would inherit.
func (c *copier) leave(ctx context.Context, p *pair) {
	for ; p != nil && p.users.Add(-1) == 0; p = p.up {
		if ctx.Err() == nil {
			c.fail(c.finish(p))
		}
		_, _ = p.src.Close(), p.dst.Close() // nothing was written by them
	}
}

// finish gives a complete directory what the source has.
func (c *copier) finish(p *pair) error {
	if c.still() {
		now, err := statOf(p.src)
		if err != nil {
			return err
		}
		if now.Mtime != p.info.Mtime || now.Ctime != p.info.Ctime {
			return fmt.Errorf("%s: %w", p.src.Name(), ErrChanged)
		}
	}
	return c.dress(p.dst, p.src, p.info)
}

// walk copies what is in a directory: directories itself, the rest by tasks.
func (c *copier) walk(ctx context.Context, p *pair, depth int) error {
	if depth > maxCopyDepth {
		return fmt.Errorf("%s: %w: deeper than %d directories", p.src.Name(), unix.ENAMETOOLONG, maxCopyDepth)
	}
	for {
		names, err := p.src.Readdirnames(batch)
		for _, name := range names {
			if err := c.entry(ctx, p, name, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *copier) entry(ctx context.Context, p *pair, name string, depth int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	info, err := statAt(int(p.src.Fd()), name)
	if err != nil {
		return c.vanished(p, name, err)
	}
	if !info.Dir() {
		p.users.Add(1)
		select {
		case c.tasks <- task{p, name, info}:
			return nil
		case <-ctx.Done():
			c.leave(ctx, p)
			return context.Cause(ctx)
		}
	}
	sub, err := c.enter(ctx, p, name)
	if err != nil || sub == nil {
		return err
	}
	err = c.walk(ctx, sub, depth+1)
	c.fail(err) // before leave asks
	c.leave(ctx, sub)
	return err
}

// vanished: somebody removed it meanwhile.
func (c *copier) vanished(p *pair, name string, err error) error {
	if !isGone(err) {
		return &os.PathError{Op: "lstat", Path: p.src.Name() + "/" + name, Err: err}
	}
	if c.still() {
		return fmt.Errorf("%s/%s: %w", p.src.Name(), name, ErrChanged)
	}
	return nil
}

// enter opens a directory of the source, and makes its copy. nil: it is gone.
func (c *copier) enter(ctx context.Context, p *pair, name string) (*pair, error) {
	full := p.src.Name() + "/" + name
	src, err := openat2(int(p.src.Fd()), name, full, unix.O_RDONLY|unix.O_DIRECTORY, 0, beneath)
	switch {
	case errors.Is(err, unix.EXDEV):
		return nil, fmt.Errorf("%s: %w", full, ErrMount)
	case isGone(err), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP): // or replaced
		return nil, c.vanished(p, name, unix.ENOENT)
	case err != nil:
		return nil, err
	}
	sub, old := &pair{src: src, up: p}, false
	if sub.info, err = statOf(src); err == nil {
		err = c.settled(full, sub.info)
	}
	if err == nil {
		sub.dst, old, err = makeDir(p.dst, name)
	}
	if err != nil {
		_ = src.Close() // read only
		return nil, err
	}
	if old {
		if err := c.prune(ctx, sub); err != nil {
			_, _ = src.Close(), sub.dst.Close() // nothing was written by them
			return nil, err
		}
	}
	sub.users.Store(1)
	p.users.Add(1)
	return sub, nil
}

// isGone tells what a name that was just seen says when somebody has removed it.
func isGone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) }

// makeDir makes a directory, or takes the one that an earlier copy made.
func makeDir(parent *os.File, name string) (d *os.File, old bool, err error) {
	fd, full := int(parent.Fd()), parent.Name()+"/"+name
	for range 2 {
		err := again(func() error { return unix.Mkdirat(fd, name, 0o700) })
		old = err != nil
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, false, &os.PathError{Op: "mkdir", Path: full, Err: err}
		}
		d, err := openat2(fd, name, full, unix.O_RDONLY|unix.O_DIRECTORY, 0, beneath)
		if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			return d, old, err
		}
		if err := again(func() error { return unix.Unlinkat(fd, name, 0) }); err != nil {
			return nil, false, &os.PathError{Op: "unlink", Path: full, Err: err}
		}
	}
	return nil, false, &os.PathError{Op: "mkdir", Path: full, Err: unix.EEXIST}
}

// prune shuts a directory that an earlier copy made, which may have completed it, and
// removes from it what its source does not have any more.
func (c *copier) prune(ctx context.Context, p *pair) error {
	if err := again(func() error { return unix.Fchmod(int(p.dst.Fd()), 0o700) }); err != nil {
		return &os.PathError{Op: "chmod", Path: p.dst.Name(), Err: err}
	}
	for {
		names, err := p.dst.Readdirnames(batch)
		for _, name := range names {
			if _, err := statAt(int(p.src.Fd()), name); !isGone(err) {
				continue // what else is wrong with it, its copy says
			}
			if err := c.clearName(ctx, p.dst, name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// clearName makes a name of the copy free: what an earlier copy left there, and did not
// end. What lies too deep goes through links: in dir it could stay, or meet a file of
// the copy's.
func (c *copier) clearName(ctx context.Context, dir *os.File, name string) error {
	err := again(func() error { return unix.Unlinkat(int(dir.Fd()), name, 0) })
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM):
		return &os.PathError{Op: "unlink", Path: dir.Name() + "/" + name, Err: err}
	}
	// It was a directory when the copy before this one saw it.
	m := &remover{root: &Root{f: c.links, name: c.links.Name()}}
	err = m.remove(ctx, dir, name, 0)
	for err == nil && len(m.moved) > 0 {
		last := m.moved[len(m.moved)-1]
		m.moved = m.moved[:len(m.moved)-1]
		err = m.remove(ctx, c.links, last, 0)
	}
	return errors.Join(err, m.Err())
}

// copy copies what is no directory.
func (c *copier) copy(ctx context.Context, t task) error {
	if ctx.Err() != nil {
		return nil // the cause is known
	}
	c.o.Step("nfs.copy.file")
	defer c.report()
	if t.info.Nlink > 1 {
		return c.copyLinked(ctx, t)
	}
	_, err := c.copyOne(ctx, t, t.p.dst, t.name)
	return err
}

func (c *copier) report() {
	c.o.Progress("copied " + strconv.FormatInt(c.files.Load(), 10) + " files, " + strconv.FormatInt(c.bytes.Load(), 10) + " bytes")
}

// copyOne copies a file to a name. false: it was removed meanwhile.
func (c *copier) copyOne(ctx context.Context, t task, dir *os.File, name string) (bool, error) {
	if t.info.Regular() {
		return c.copyFile(ctx, t, dir, name)
	}
	return c.copySpecial(ctx, t, dir, name)
}
