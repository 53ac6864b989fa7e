package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/sparse"
)

const (
	// durable is the size from which a file is made durable before it gets its time,
	// so that a copy that goes on can tell it is whole.
	durable = 1 << 20
	// tries for a file that somebody writes to.
	tries = 3
)

// undelegated is the mode of a new file until it has its own: no server delegates
// writing to a set-uid file. With a delegation an NFS 4.2 client (Linux 6.17 and later)
// keeps times that are set to itself, and when it gives it back the server takes none
// that are earlier than the file.
const undelegated = 0o4600

// copyFile copies a regular file.
func (c *copier) copyFile(ctx context.Context, t task, dir *os.File, name string) (made bool, err error) {
	full := t.p.src.Name() + "/" + t.name
	src, err := openat2(int(t.p.src.Fd()), t.name, full, unix.O_RDONLY|unix.O_NONBLOCK, 0, beneath)
	switch {
	case errors.Is(err, unix.EXDEV):
		return false, fmt.Errorf("%s: %w", full, ErrMount)
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO): // replaced meanwhile
		return false, c.vanished(t.p, t.name, unix.ENOENT)
	case isGone(err):
		return false, c.vanished(t.p, t.name, unix.ENOENT)
	case err != nil:
		return false, err
	}
	defer func() { _ = src.Close() }() // read only
	before, err := statOf(src)
	if err != nil {
		return false, err
	}
	if !before.Regular() || before.Ino != t.info.Ino && c.still() {
		return false, c.vanished(t.p, t.name, unix.ENOENT)
	}
	if dir == c.links && before.Ino != t.info.Ino {
		return false, nil // what was renamed to this name is not what the other names are of
	}
	if err := c.settled(full, before); err != nil {
		return false, err
	}
	if dir == c.links && c.whole(name, before) {
		c.kept.Add(1)
		return true, nil
	}
	for try := 1; ; try++ {
		after, err := c.fileOnce(ctx, dir, name, src, before)
		switch {
		case err != nil:
			return false, err
		case after == before:
			c.files.Add(1)
			return true, nil
		case c.still():
			return false, fmt.Errorf("%s: %w", full, ErrChanged)
		case try == tries:
			c.files.Add(1)
			c.unsteady.Add(1)
			return true, nil
		}
		before = after
	}
}

// whole tells whether an earlier copy made the file, and ended. That nobody has changed
// the source since, and that it is the same, its name in links says.
func (c *copier) whole(name string, want Info) bool {
	have, err := statAt(int(c.links.Fd()), name)
	return err == nil && have.Regular() && want.Size >= durable && have.Size == want.Size && have.Mtime == want.Mtime &&
		have.Mode == want.Mode && have.UID == want.UID && have.GID == want.GID
}

// fileOnce copies the file once, and says what the source was afterwards but for its
// access time.
func (c *copier) fileOnce(ctx context.Context, dir *os.File, name string, src *os.File, info Info) (after Info, err error) {
	if err := c.clearName(ctx, dir, name); err != nil {
		return Info{}, err
	}
	dst, err := openat2(int(dir.Fd()), name, dir.Name()+"/"+name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, undelegated, beneath)
	if err != nil {
		return Info{}, err
	}
	shared, err := c.data(ctx, dst, src, info)
	if err == nil {
		after, err = statOf(src)
	}
	if shared && !c.still() {
		// Blocks are shared at one moment; who may read them then must be known.
		after.Size, after.Blocks, after.Mtime, after.Ctime = info.Size, info.Blocks, info.Mtime, info.Ctime
	}
	if err == nil && info.Size >= durable {
		err = dst.Sync()
	}
	if err == nil {
		err = c.dress(dst, src, info)
	}
	after.Atime, after.Nlink = info.Atime, info.Nlink
	return after, errors.Join(err, dst.Close())
}

// data copies the content; shared: its blocks are the source's.
func (c *copier) data(ctx context.Context, dst, src *os.File, info Info) (shared bool, err error) {
	if info.Size == 0 {
		return false, nil
	}
	if !c.noReflink.Load() {
		shared, err := sparse.Reflink(dst, src)
		if err != nil {
			return false, err
		}
		if shared {
			c.shared.Add(1)
			c.bytes.Add(info.Size)
			return true, nil
		}
		c.noReflink.Store(true)
	}
	return false, c.segments(ctx, dst, src, info)
}

// segments copies what is no hole.
func (c *copier) segments(ctx context.Context, dst, src *os.File, info Info) error {
	if err := dst.Truncate(info.Size); err != nil {
		return err
	}
	for off, end, err := sparse.Segment(src, 0); ; off, end, err = sparse.Segment(src, end) {
		if err != nil || off == end || off >= info.Size { // the source may have been cut short
			return err
		}
		end = min(end, info.Size)
		// A file system that does not tell where holes are (NFS before 4.2) says that
		// all is data: then zeros are looked for.
		blind := off == 0 && end == info.Size && info.Blocks*512 < info.Size
		if err := c.span(ctx, dst, src, off, end, blind); err != nil {
			return err
		}
	}
}

// piece is how much is copied between two signs of life.
const piece = 1 << 20

// span copies the bytes of a range.
func (c *copier) span(ctx context.Context, dst, src *os.File, off, end int64, blind bool) error {
	var buf []byte
	for off < end {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		want := min(end-off, piece)
		if !blind {
			n, err := c.server(dst, src, off, int(want))
			switch {
			case err == nil && n > 0:
				off += int64(n)
				c.bytes.Add(int64(n))
				c.report()
				continue
			case err == nil:
				return nil // the source was cut short
			case !cannotRange(err):
				return &os.PathError{Op: "copy_file_range", Path: src.Name(), Err: err}
			}
			blind = true
		}
		if buf == nil {
			buf = make([]byte, piece)
		}
		n, err := src.ReadAt(buf[:want], off)
		if n > 0 && !zeros(buf[:n]) {
			if _, err := dst.WriteAt(buf[:n], off); err != nil {
				return err
			}
		}
		off += int64(n)
		c.bytes.Add(int64(n))
		c.report()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil // the source was cut short
			}
			return err
		}
	}
	return nil
}

// server has the kernel copy, which has an NFS server copy by itself where it can.
func (c *copier) server(dst, src *os.File, off int64, n int) (copied int, err error) {
	err = again(func() error {
		in, out := off, off
		copied, err = unix.CopyFileRange(int(src.Fd()), &in, int(dst.Fd()), &out, n, 0)
		return err
	})
	return copied, err
}

// cannotRange tells the ways in which copy_file_range says that it is not for these
// files.
func cannotRange(err error) bool {
	for _, e := range []error{unix.ENOSYS, unix.EXDEV, unix.EINVAL, unix.EOPNOTSUPP, unix.EPERM, unix.ETXTBSY, unix.EBADF} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func zeros(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// copySpecial makes what has no content of its own.
func (c *copier) copySpecial(ctx context.Context, t task, dir *os.File, name string) (made bool, err error) {
	if err := c.settled(t.p.src.Name()+"/"+t.name, t.info); err != nil {
		return false, err
	}
	if err := c.clearName(ctx, dir, name); err != nil {
		return false, err
	}
	fd, full := int(dir.Fd()), dir.Name()+"/"+name
	if t.info.Mode&unix.S_IFMT == unix.S_IFLNK {
		target, err := readlink(int(t.p.src.Fd()), t.name)
		if errors.Is(err, unix.EINVAL) {
			err = unix.ENOENT // it is no link any more
		}
		if err != nil {
			return false, c.vanished(t.p, t.name, err)
		}
		if now, err := statAt(int(t.p.src.Fd()), t.name); err != nil || now.Ino != t.info.Ino {
			return false, c.vanished(t.p, t.name, unix.ENOENT) // or another one
		}
		err = again(func() error { return unix.Symlinkat(target, fd, name) })
		if err != nil {
			return false, &os.PathError{Op: "symlink", Path: full, Err: err}
		}
	} else if err := again(func() error {
		return unix.Mknodat(fd, name, t.info.Mode&unix.S_IFMT|0o600, int(t.info.Rdev))
	}); err != nil {
		return false, &os.PathError{Op: "mknod", Path: full, Err: err}
	}
	c.files.Add(1)
	return true, c.dressAt(t, dir, name)
}

func readlink(dirfd int, name string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(dirfd, name, buf)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}
