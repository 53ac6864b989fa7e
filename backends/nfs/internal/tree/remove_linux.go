package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// maxOpen directories are open at a time in a removal: what is deeper is moved up.
	maxOpen = 64
	batch   = 1024 // names
)

// Removal of what is in a directory.
type Removal struct {
	Removed int64  // names
	Left    string // "": nothing; else the first name that could not be removed
	why     error
}

// Err is nil when nothing is left.
func (r *Removal) Err() error {
	if r.Left == "" {
		return nil
	}
	return fmt.Errorf("remove %s: %w", r.Left, r.why)
}

func (r *Removal) left(name string, err error) {
	if r.Left == "" {
		r.Left, r.why = name, err
	}
}

// remover is a removal at work.
type remover struct {
	Removal
	root     *Root // where what is too deep is moved to
	deep     int
	moved    []string // and its names there
	progress func(string)
}

// Clear removes everything below the root, and not the root. What cannot be removed
// (a mount point, an immutable file) is left, and everything else is removed. It can be
// cut at any moment and begun again.
func (r *Root) Clear(ctx context.Context, progress func(string)) (Removal, error) {
	m := &remover{root: r, progress: progress}
	for {
		deep := m.deep
		if err := m.clear(ctx, r.f, 0); err != nil {
			return m.Removal, err
		}
		if m.deep == deep {
			return m.Removal, m.Err()
		}
		m.Left = ""
	}
}

// clear empties one directory. A pass that removes nothing ends it.
func (m *remover) clear(ctx context.Context, d *os.File, depth int) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, err := d.Seek(0, 0); err != nil {
			return err
		}
		before, seen := m.Removed, false
		if depth == 0 {
			m.Left = "" // of the pass before
		}
		for {
			names, err := d.Readdirnames(batch)
			for _, name := range names {
				seen = true
				if err := m.remove(ctx, d, name, depth); err != nil {
					return err
				}
			}
			if m.progress != nil && len(names) > 0 {
				m.progress("removed " + strconv.FormatInt(m.Removed, 10) + " files")
			}
			if err != nil && !errors.Is(err, io.EOF) {
				m.left(d.Name(), err)
			}
			if len(names) == 0 || err != nil {
				break
			}
		}
		if !seen || m.Removed == before {
			return nil
		}
	}
}

// remove removes one name. The error is of the whole removal.
func (m *remover) remove(ctx context.Context, d *os.File, name string, depth int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	dirfd, full := int(d.Fd()), d.Name()+"/"+name
	err := unlink(dirfd, name)
	switch {
	case err == nil:
		m.Removed++
		return nil
	case errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM):
		m.left(full, err)
		return nil
	}
	if again(func() error { return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR) }) == nil {
		m.Removed++
		return nil
	}
	if depth >= maxOpen {
		return m.moveUp(dirfd, name, full)
	}
	sub, err := openForRemoval(dirfd, name, full)
	if err != nil {
		m.left(full, err)
		return nil
	}
	err = m.clear(ctx, sub, depth+1)
	_ = sub.Close() // nothing was written by it
	if err != nil {
		return err
	}
	if err := again(func() error { return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR) }); err != nil {
		if !errors.Is(err, unix.ENOENT) {
			m.left(full, err)
		}
		return nil
	}
	m.Removed++
	return nil
}

// unlink removes a name, also out of a directory whose mode keeps its owner out.
func unlink(dirfd int, name string) error {
	err := again(func() error { return unix.Unlinkat(dirfd, name, 0) })
	if errors.Is(err, unix.EACCES) && unix.Fchmod(dirfd, 0o700) == nil {
		err = again(func() error { return unix.Unlinkat(dirfd, name, 0) })
	}
	return err
}

// moveUp brings a directory that lies too deep to the root of the removal, where
// the next pass finds it.
func (m *remover) moveUp(dirfd int, name, full string) error {
	for range 1000 {
		m.deep++
		free := ".deep." + strconv.Itoa(m.deep)
		err := renameFree(dirfd, name, m.root.fd(), free)
		switch {
		case err == nil:
			m.moved = append(m.moved, free)
			m.Removed++
			return nil
		case errors.Is(err, unix.EEXIST):
		default:
			m.left(full, err)
			return nil
		}
	}
	m.left(full, unix.EEXIST)
	return nil
}

// openForRemoval opens a directory, also one whose mode keeps its owner out.
func openForRemoval(dirfd int, name, full string) (*os.File, error) {
	f, err := openat2(dirfd, name, full, unix.O_RDONLY|unix.O_DIRECTORY, 0, beneath)
	if !errors.Is(err, unix.EACCES) {
		return f, err
	}
	p, err := openat2(dirfd, name, full, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, beneath)
	if err != nil {
		return nil, err
	}
	err = unix.Chmod(procPath(p), 0o700)
	_ = p.Close() // O_PATH
	if err != nil {
		return nil, &os.PathError{Op: "chmod", Path: full, Err: err}
	}
	return openat2(dirfd, name, full, unix.O_RDONLY|unix.O_DIRECTORY, 0, beneath)
}
