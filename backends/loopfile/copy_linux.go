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
)

const copyPiece = 1 << 20

// reflink makes dst, which is empty, share all blocks of src, as they are at one
// moment. false: this file system cannot, or not for these two files.
func reflink(dst, src *os.File) (bool, error) {
	if err := copyFlags(dst, src); err != nil {
		return false, err
	}
	for {
		err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.ENOSYS),
			errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL):
			return false, nil
		default:
			return false, &os.PathError{Op: "reflink", Path: src.Name(), Err: err}
		}
	}
}

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
	ok, err := reflink(files[1], files[0])
	return ok && err == nil
}

// copyFlags gives dst, which is empty, what it must have in common with src to
// share its blocks: on btrfs that both are written in place, or neither.
func copyFlags(dst, src *os.File) error {
	flags, err := unix.IoctlGetInt(int(src.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&fsNoCOW == 0 {
		return nil //nolint:nilerr // a file system without flags
	}
	return setNoCOW(dst)
}

func setNoCOW(f *os.File) error {
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&fsNoCOW == 0 {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|fsNoCOW)
	}
	if err != nil {
		return &os.PathError{Op: "set NOCOW", Path: f.Name(), Err: err}
	}
	return nil
}

// copySparse copies what src holds from from on; dst reads as zeros there, and
// gets src's length. note, unless it is zero, is told how far everything is
// copied.
func copySparse(ctx context.Context, dst, src *os.File, from int64, note checkpoint) error {
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	size := fi.Size()
	if err := dst.Truncate(size); err != nil {
		return err
	}
	buf := make([]byte, copyPiece)
	next := from + note.every
	for off, end, err := segment(src, from); ; off, end, err = segment(src, end) {
		if err != nil || off >= size {
			return err
		}
		for off < end {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			n, err := copyAt(dst, src, buf[:min(copyPiece, end-off)], off)
			if err != nil {
				return err
			}
			off += n
			backends.Progress(ctx, fmt.Sprintf("copied up to %d of %d bytes", off, size))
			if note.every > 0 && off >= next {
				if err := note.f(off); err != nil {
					return err
				}
				next = off + note.every
			}
		}
	}
}

func copyAt(dst, src *os.File, buf []byte, off int64) (int64, error) {
	if _, err := src.ReadAt(buf, off); err != nil {
		return 0, err
	}
	_, err := dst.WriteAt(buf, off)
	return int64(len(buf)), err
}

// segment is the next range of f that is no hole, from off on; both are the
// file's end when there is none.
func segment(f *os.File, off int64) (start, end int64, err error) {
	start, err = seek(f, off, unix.SEEK_DATA)
	if err != nil || start < 0 {
		fi, statErr := f.Stat()
		if err = errors.Join(err, statErr); err != nil {
			return 0, 0, err
		}
		return fi.Size(), fi.Size(), nil
	}
	end, err = seek(f, start, unix.SEEK_HOLE)
	return start, end, err
}

// seek is lseek(2); -1: beyond the last data.
func seek(f *os.File, off int64, whence int) (int64, error) {
	n, err := unix.Seek(int(f.Fd()), off, whence)
	if errors.Is(err, unix.ENXIO) {
		return -1, nil
	}
	if err != nil {
		return 0, &os.PathError{Op: "lseek", Path: f.Name(), Err: err}
	}
	return n, nil
}

// reserve allocates in dst the blocks that a copy of src will take, where the
// file system can: it fails before the copy begins and not at its end.
func reserve(ctx context.Context, dst, src *os.File) error {
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	for off, end, err := segment(src, 0); ; off, end, err = segment(src, end) {
		if err != nil || off >= fi.Size() {
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
