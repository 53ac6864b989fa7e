package blockdev

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// ReadEnds reads a page at both ends of the device, past the page cache: does the
// disk answer, and does it have all of its size?
func (d *Device) ReadEnds(ctx context.Context) error {
	size, err := d.Size()
	if err != nil {
		return err
	}
	r, err := d.fresh()
	if err != nil {
		return err
	}
	for _, off := range []int64{0, max(0, (size-1)&^(pageSize-1))} {
		b := aligned(int(min(pageSize, size-off)))
		if err = ctx.Err(); err == nil {
			_, err = r.ReadAt(b, off)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			err = fmt.Errorf("read %d bytes at %d: %w", len(b), off, err)
			break
		}
	}
	return errors.Join(err, r.Close())
}
