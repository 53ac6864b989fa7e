package loopfile

import (
	"errors"
	"iter"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// extent is a range of a file and where it is on the disk.
type extent struct {
	Off, Len, Phys int64
	Flags          uint32
}

// Flags of an extent, of linux/fiemap.h.
const (
	extentLast      = 0x1
	extentUnwritten = 0x800 // allocated, and reads as zeros
	extentShared    = 0x2000
	// extentVague is unknown, delayed, encoded, encrypted, not aligned, inline or a
	// tail: Phys does not say where the bytes are.
	extentVague = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400
)

const (
	fiemapRequest = 0xC020660B // FS_IOC_FIEMAP
	fiemapSync    = 0x1
	fiemapBatch   = 256
)

// fiemap is struct fiemap with room for a batch of struct fiemap_extent.
type fiemap struct {
	start, length        uint64
	flags, mapped, count uint32
	_                    uint32
	extents              [fiemapBatch]struct {
		logical, physical, length uint64
		_                         [2]uint64
		flags                     uint32
		_                         [3]uint32
	}
}

// extents are those of f from from on, in order; written data is on disk before
// the first one when sync is set. errors.ErrUnsupported: this file system does
// not tell.
func extents(f *os.File, from int64, sync bool) iter.Seq2[extent, error] {
	return func(yield func(extent, error) bool) {
		var m fiemap
		for pos := uint64(from); ; {
			m.start, m.length, m.flags, m.count, m.mapped = pos, ^uint64(0)-pos, 0, fiemapBatch, 0
			if sync {
				m.flags, sync = fiemapSync, false
			}
			if err := m.ask(f); err != nil {
				yield(extent{}, err)
				return
			}
			for _, e := range m.extents[:m.mapped] {
				x := extent{int64(e.logical), int64(e.length), int64(e.physical), e.flags}
				if !yield(x, nil) || e.flags&extentLast != 0 {
					return
				}
				pos = e.logical + e.length
			}
			if m.mapped == 0 {
				return
			}
		}
	}
}

func (m *fiemap) ask(f *os.File) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fiemapRequest, uintptr(unsafe.Pointer(m)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		case unix.EOPNOTSUPP, unix.ENOTTY:
			return errors.ErrUnsupported
		default:
			return &os.PathError{Op: "fiemap", Path: f.Name(), Err: errno}
		}
	}
}
