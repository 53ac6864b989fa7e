package sparse

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// piece is how much is copied between two looks at the context.
const piece = 1 << 20

// noCOW is FS_NOCOW_FL.
const noCOW = 0x00800000

// Reflink makes dst, which is empty, share all blocks of src, as they are at one
// moment. false: this file system cannot, or not for these two files.
func Reflink(dst, src *os.File) (bool, error) {
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

// copyFlags gives dst, which is empty, what it must have in common with src to
// share its blocks: on btrfs that both are written in place, or neither.
func copyFlags(dst, src *os.File) error {
	flags, err := unix.IoctlGetInt(int(src.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&noCOW == 0 {
		return nil //nolint:nilerr // a file system without flags
	}
	return SetNoCOW(dst)
}

// SetNoCOW has btrfs write an empty file in place.
func SetNoCOW(f *os.File) error {
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&noCOW == 0 {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|noCOW)
	}
	if err != nil {
		return &os.PathError{Op: "set NOCOW", Path: f.Name(), Err: err}
	}
	return nil
}

// Copy copies what src holds from from on; dst reads as zeros there, and gets src's
// length. each, if it is not nil, is told after each piece how far everything is
// copied, and of how much.
func Copy(ctx context.Context, dst, src *os.File, from int64, each func(done, size int64) error) error {
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	size := fi.Size()
	if err := dst.Truncate(size); err != nil {
		return err
	}
	buf := make([]byte, min(piece, size))
	for off, end, err := Segment(src, from); ; off, end, err = Segment(src, end) {
		switch {
		case err != nil || off >= size:
			return err
		case off == end:
			return &os.PathError{Op: "copy", Path: src.Name(), Err: io.ErrUnexpectedEOF} // it was cut short
		}
		for off < end {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n, err := copyAt(dst, src, buf[:min(piece, end-off, size-off)], off)
			if err != nil {
				return err
			}
			if off += n; off >= size {
				end = off
			}
			if each != nil {
				if err := each(off, size); err != nil {
					return err
				}
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

// Segment is the next range of f that is no hole, from off on; both are the
// file's end when there is none, also where that was further away before. A range
// that is not empty has something of f beyond off, so that who goes on from its end
// comes to an end.
func Segment(f *os.File, off int64) (start, end int64, err error) {
	for {
		start, err = seek(f, off, unix.SEEK_DATA)
		if err != nil || start < 0 {
			fi, statErr := f.Stat()
			if err = errors.Join(err, statErr); err != nil {
				return 0, 0, err
			}
			return fi.Size(), fi.Size(), nil
		}
		end, err = seek(f, start, unix.SEEK_HOLE)
		if err != nil || end > start {
			return start, end, err
		}
		// Between the two looks it was cut short, or a hole was made.
	}
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
