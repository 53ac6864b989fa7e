package blockdev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

// Probe reads the device and says what it holds. It reads past the page cache
// through a descriptor of its own, so that stale pages cannot lie; where direct
// I/O is refused it asks the kernel to drop the pages first.
//
// Blank means that 128 KiB at the head and at the tail and every place of a known
// signature were read and are zero. A file system that lost all of its head is seen by
// a backup of its superblock, where its mkfs puts one by default: ext in its second
// block group, xfs in its second allocation group, for the number of groups that
// mkfs.xfs chooses by size, stripes or processors. One that was made with groups of
// another size (mkfs.xfs -d agsize, mkfs.ext4 -g) and lost its head is not seen: for that
// there is what backend and node remember. A device of no size and a read that fails are
// errors (backends.ErrUnavailable).
func (d *Device) Probe(ctx context.Context) (Content, error) {
	size, err := d.Size()
	if err != nil {
		return Content{}, err
	}
	r, err := d.fresh()
	if err != nil {
		return Content{}, err
	}
	c, err := probe(ctx, r, size)
	if err = errors.Join(err, r.Close()); err != nil {
		return Content{}, fmt.Errorf("probe %s: %w", d.path, err)
	}
	// Whoever resized it meanwhile moved the tail.
	after, err := d.Size()
	if err != nil {
		return Content{}, err
	}
	if after != size {
		return Content{}, fmt.Errorf("probe %s: the size changed from %d to %d: %w", d.path, size, after, backends.ErrUnavailable)
	}
	return c, nil
}

// freshReader reads what the device holds and not what was read before.
type freshReader struct {
	direct   *Device // nil: refused
	buffered *os.File
}

func (d *Device) fresh() (*freshReader, error) {
	r := &freshReader{buffered: d.f}
	direct, err := reopen(d.f, d.path, d.num, unix.O_RDONLY|unix.O_DIRECT)
	if errors.Is(err, unix.EINVAL) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	r.direct = direct
	if err := sameInstance(d, direct); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// sameInstance makes sure that the second descriptor is of the same disk: the
// first one pins it, and this is where that is believed.
func sameInstance(a, b *Device) error {
	seqA, errA := a.DiskSeq()
	seqB, errB := b.DiskSeq()
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	if seqA != seqB {
		return fmt.Errorf("%s: another disk took its place (disk sequence %d, then %d): %w", a.path, seqA, seqB, backends.ErrUnavailable)
	}
	return nil
}

// ReadAt reads p, whose memory and place are aligned, in full.
func (r *freshReader) ReadAt(p []byte, off int64) (int, error) {
	if r.direct != nil {
		n, err := r.direct.f.ReadAt(p, off)
		// EINVAL: the device's blocks are larger than our alignment, or its end is
		// not the end of a block.
		if n == len(p) || (err != nil && !errors.Is(err, unix.EINVAL)) {
			return n, err
		}
	}
	if err := unix.Fadvise(int(r.buffered.Fd()), off, int64(len(p)), unix.FADV_DONTNEED); err != nil {
		return 0, &os.PathError{Op: "fadvise", Path: r.buffered.Name(), Err: err}
	}
	return r.buffered.ReadAt(p, off)
}

// Close closes the second descriptor.
func (r *freshReader) Close() error {
	if r.direct == nil {
		return nil
	}
	return r.direct.Close()
}

var _ io.ReaderAt = (*freshReader)(nil)
