package tree

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// What an earlier copy left is made use of, or removed.

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
