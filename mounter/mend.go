package mounter

import (
	"context"
	"errors"
	"io/fs"

	"github.com/csikit/csikit/internal/faultpoint"
	"github.com/csikit/csikit/mounter/blockdev"
)

// An e2fsck or resize2fs that is cut short (the container ends, and its tools with
// it) leaves an ext file system that e2fsck -p refuses, at nearly each of their
// writes: what it finds looks like damage, or the superblock is torn. Where nothing
// else can have been wrong, it may be repaired all the same: before a growth, in a
// file system that was clean, and after an mkfs of which nobody has used anything.
// So that a growth is known, the record says which file system is being grown, from
// before the first write until the end.

// Mender is a [Kernel] that can mend a file system in which tools of the engine were
// cut short, and nothing else is wrong. Without it a person has to.
type Mender interface {
	// Mend repairs all that it finds in an unmounted file system. An error is
	// Check's.
	Mend(ctx context.Context, d Device, fsType string) error
}

// growing is the UUID of the file system whose growth was begun and is not known to
// have ended; "": none.
func (r *record) growing() string {
	if r.Format == nil {
		return ""
	}
	return r.Format.Growing
}

// beginGrowth records that the file system, which is clean, is about to be grown.
func (s *staging) beginGrowth(c blockdev.Content) error {
	if _, ok := s.kernel.(Mender); !ok || c.UUID == "" || !c.Clean || c.Errors {
		return nil
	}
	s.setFormat(formatDone, c.Type)
	s.rec.Format.Growing = c.UUID
	if err := s.store.put(s.rec); err != nil {
		return err
	}
	faultpoint.Reach("mounter.grow.recorded")
	return nil
}

// endGrowth takes the memory of a growth back for which the file system was not good
// enough: what is wrong with it is not the growth's.
func (s *staging) endGrowth(fsType string, err error) error {
	if !final(err) || s.rec.growing() == "" {
		return nil
	}
	s.setFormat(formatDone, fsType)
	return s.store.put(s.rec)
}

// check is Kernel.Check. Of an mkfs that was cut short nobody has data.
func (s *staging) check(ctx context.Context, d Device, fsType string, unfinished bool) error {
	if k, ok := s.kernel.(Mender); ok && unfinished && isExt(fsType) {
		return k.Mend(ctx, d, fsType)
	}
	return s.kernel.Check(ctx, d, fsType, unfinished)
}

// mend repairs what a growth that was cut short has left, if c is what it left.
func (s *staging) mend(ctx context.Context, d Device, c blockdev.Content) (after blockdev.Content, did bool, err error) {
	k, ok := s.kernel.(Mender)
	if !ok || s.rec.growing() == "" || s.rec.growing() != c.UUID {
		return c, false, nil
	}
	if err := s.step(ctx, "mend "+c.Type); err != nil {
		return c, false, err
	}
	s.log.WarnContext(ctx, "growth of a file system was cut short, and is mended", "volume", s.req.ID, "device", d.Path())
	err = s.tools.do(ctx, "fsck."+c.Type, func() error { return k.Mend(ctx, d, c.Type) })
	if err != nil {
		return c, true, errors.Join(err, s.endGrowth(c.Type, err))
	}
	faultpoint.Reach("mounter.grow.mended")
	after, err = s.probe(ctx, d)
	return after, true, err
}

// mendLeft is mend for a volume that is about to be closed: with its record goes
// the memory of the growth.
func (e *Engine) mendLeft(ctx context.Context, r *record) error {
	k, ok := e.kernel.(Mender)
	if !ok || r.growing() == "" || r.data() == nil {
		return nil
	}
	d, err := e.openRecorded(ctx, r.data())
	switch {
	case errors.Is(err, fs.ErrNotExist) || final(err):
		return nil // gone, or another disk by now
	case err != nil:
		return err
	}
	c, err := d.Probe(ctx)
	if err == nil && c.UUID == r.growing() {
		if err = e.step(ctx, "mend "+c.Type); err == nil {
			err = e.tools.do(ctx, "fsck."+c.Type, func() error { return k.Mend(ctx, d, c.Type) })
		}
		faultpoint.Reach("mounter.close.mended")
	}
	if err = errors.Join(err, d.Close()); err != nil && final(err) {
		e.log.ErrorContext(ctx, "growth of a file system was cut short, and could not be mended", "volume", r.Volume, "err", err)
		return nil // a stage says so too
	}
	return err
}
