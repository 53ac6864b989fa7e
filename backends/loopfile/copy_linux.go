package loopfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/sparse"
)

// reflinks says whether the pool's file system can share blocks, once found out.
func (p *pool) reflinks() bool {
	p.tryReflink.Do(func() { p.canReflink = p.probeReflink() })
	return p.canReflink
}

// probeReflink shares a block between two files without names, which nothing can
// leave behind.
func (p *pool) probeReflink() bool {
	var files [2]*os.File
	for i := range files {
		fd, err := unix.Openat(int(p.tmp.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return false
		}
		files[i] = os.NewFile(uintptr(fd), filepath.Join(p.dir, tmpDir))
		defer func() { _ = files[i].Close() }() // it has no name
	}
	if _, err := files[0].Write(make([]byte, sizeStep)); err != nil {
		return false
	}
	ok, err := sparse.Reflink(files[1], files[0])
	return ok && err == nil
}

// copySparse copies what src holds from from on; dst reads as zeros there, and
// gets src's length. note, unless it is zero, is told how far everything is
// copied.
func copySparse(ctx context.Context, dst, src *os.File, from int64, note checkpoint) error {
	next := from + note.every
	return sparse.Copy(ctx, dst, src, from, func(done, size int64) error {
		backends.Progress(ctx, fmt.Sprintf("copied up to %d of %d bytes", done, size))
		if note.every == 0 || done < next {
			return nil
		}
		next = done + note.every
		return note.f(done)
	})
}

// reserve allocates in dst the blocks that a copy of src will take, where the
// file system can: it fails before the copy begins and not at its end.
func reserve(ctx context.Context, dst, src *os.File) error {
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	for off, end, err := sparse.Segment(src, 0); ; off, end, err = sparse.Segment(src, end) {
		if err != nil || off == end || off >= fi.Size() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		err := unix.Fallocate(int(dst.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, end-off)
		switch {
		case errors.Is(err, unix.EOPNOTSUPP):
			return nil
		case errors.Is(err, unix.EINTR):
			end = off // once more
		case err != nil:
			return &os.PathError{Op: "fallocate", Path: dst.Name(), Err: err}
		}
	}
}

// changeTime is a file's ctime.
func changeTime(fi os.FileInfo) time.Time {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return time.Unix(int64(st.Ctim.Sec), int64(st.Ctim.Nsec)).UTC() //nolint:unconvert // 32 bits on some platforms
	}
	return time.Time{}
}
