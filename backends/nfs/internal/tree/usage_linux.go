package tree

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Usage is how many bytes are allocated below the root: each file once, and what is
// mounted inside not at all. Directories that go deeper than a copy does are left
// out.
func (r *Root) Usage(ctx context.Context, progress func(string)) (int64, error) {
	u := &usage{seen: map[inode]bool{}, progress: progress}
	d, err := r.open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = d.Close() }() // read only
	err = u.walk(ctx, d, 0)
	return u.bytes, err
}

type usage struct {
	bytes, files int64
	seen         map[inode]bool // files of several names
	progress     func(string)
}

func (u *usage) walk(ctx context.Context, d *os.File, depth int) error {
	for {
		names, err := d.Readdirnames(batch)
		for _, name := range names {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := u.entry(ctx, d, name, depth); err != nil {
				return err
			}
		}
		if u.progress != nil {
			u.progress("measured " + strconv.FormatInt(u.files, 10) + " files")
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (u *usage) entry(ctx context.Context, d *os.File, name string, depth int) error {
	i, err := statAt(int(d.Fd()), name)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return &os.PathError{Op: "lstat", Path: d.Name() + "/" + name, Err: err}
	}
	u.files++
	if i.Dir() && depth < maxCopyDepth {
		sub, err := openat2(int(d.Fd()), name, d.Name()+"/"+name, unix.O_RDONLY|unix.O_DIRECTORY, 0, beneath)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EXDEV), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
			return nil
		case err != nil:
			return err
		}
		err = u.walk(ctx, sub, depth+1)
		_ = sub.Close() // read only
		if err != nil {
			return err
		}
	}
	if i.Nlink > 1 && !i.Dir() {
		key := inode{i.Dev, i.Ino}
		if u.seen[key] {
			return nil
		}
		u.seen[key] = true
	}
	u.bytes += i.Blocks * 512
	return nil
}
