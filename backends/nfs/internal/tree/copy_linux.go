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
	links *os.File // files that the next attempt may keep, or of several names
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
// Copy of the same left there: what is whole in it is kept, and its names are in dst,
// too, until the caller clears it. All else is made anew; what src has no more is removed.
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
		switch {
		case errors.Is(err, io.EOF) || err == nil && len(names) == 0:
			return nil
		case isGone(err):
			return c.vanished(p, ".", err)
		case err != nil:
			return err
		}
	}
}

// entry copies what a name is of. Where something else, or nothing, is found a moment
// later, it looks again: rename(2) leaves no moment without one of the two.
func (c *copier) entry(ctx context.Context, p *pair, name string, depth int) error {
	for range tries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		info, err := statAt(int(p.src.Fd()), name)
		if err != nil {
			return c.vanished(p, name, err)
		}
		if !info.Dir() {
			return c.hand(ctx, task{p, name, info})
		}
		sub, err := c.enter(ctx, p, name)
		if err != nil {
			return err
		}
		if sub != nil {
			err = c.walk(ctx, sub, depth+1)
			c.fail(err) // before leave asks
			c.leave(ctx, sub)
			return err
		}
	}
	return unsettled(p, name)
}

// hand gives a file to the workers.
func (c *copier) hand(ctx context.Context, t task) error {
	t.p.users.Add(1)
	select {
	case c.tasks <- t:
		return nil
	case <-ctx.Done():
		c.leave(ctx, t.p)
		return context.Cause(ctx)
	}
}

// unsettled is a name that is of something else each time. The next attempt may see it.
func unsettled(p *pair, name string) error {
	return &os.PathError{Op: "copy", Path: p.src.Name() + "/" + name, Err: unix.ESTALE}
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

// copy copies what is no directory.
func (c *copier) copy(ctx context.Context, t task) error {
	if ctx.Err() != nil {
		return nil // the cause is known
	}
	c.o.Step("nfs.copy.file")
	defer c.report()
	for range tries {
		made, err := c.copyName(ctx, t)
		if err != nil || made {
			return err
		}
		if t.info, err = statAt(int(t.p.src.Fd()), t.name); err != nil {
			return c.vanished(t.p, t.name, err)
		}
		if t.info.Dir() {
			break // which the walk has passed
		}
	}
	return unsettled(t.p, t.name)
}

// copyName copies a file. false: something else, or nothing, has its name by now.
func (c *copier) copyName(ctx context.Context, t task) (made bool, err error) {
	if t.info.Nlink > 1 || t.info.Regular() && t.info.Size >= durable {
		return c.copyLinked(ctx, t)
	}
	return c.copyOne(ctx, t, t.p.dst, t.name)
}

func (c *copier) report() {
	c.o.Progress("copied " + strconv.FormatInt(c.files.Load(), 10) + " files, " + strconv.FormatInt(c.bytes.Load(), 10) + " bytes")
}

// copyOne is copyName to a name of the copy.
func (c *copier) copyOne(ctx context.Context, t task, dir *os.File, name string) (bool, error) {
	if t.info.Regular() {
		return c.copyFile(ctx, t, dir, name)
	}
	return c.copySpecial(ctx, t, dir, name)
}
