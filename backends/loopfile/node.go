package loopfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/blockdev"
)

// OpenVolume attaches the volume to a loop device, or finds the one that it is
// attached to.
func (b *Backend) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	hint, err := decodeState(req.State)
	if err != nil {
		return nil, err
	}
	v, done, err := b.lockForNode(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := v.damaged(); err != nil {
		return nil, err
	}
	if err := b.attachedHere(v); err != nil {
		return nil, err
	}
	if err := b.noteRaw(v, req.Capability); err != nil {
		return nil, err
	}
	encryption, err := v.meta.encryption(req.Secrets)
	if err != nil {
		return nil, err
	}
	img, err := v.openImg()
	if err != nil {
		return nil, err
	}
	defer func() { _ = img.Close() }() // the loop device keeps the file
	b.refill(ctx, v, img)
	s, err := b.attach(ctx, v, img, hint)
	if err != nil {
		return nil, fmt.Errorf("open volume %s: %w", v.id, err)
	}
	b.step("loopfile.open.attached")
	b.opened.put(v.dir, *s)
	if err := b.prepare(v, s); err != nil {
		return nil, fmt.Errorf("open volume %s: %w", v.id, err)
	}
	b.step("loopfile.open.prepared")
	src, err := source(v, s)
	if err == nil {
		src.Device.Encryption = encryption
	}
	if err == nil && v.meta.Format == formatRaw && !req.Capability.Block {
		src.Device.Format, err = rawFormat(img)
	}
	return src, err
}

// rawFormat is what is known of a volume that was given away as a block device
// and is now to have a file system. Where the image holds data is known without
// reading it; a volume with any is never formatted, wherever its user put it.
func rawFormat(img *os.File) (backends.FormatState, error) {
	switch data, err := hasData(img); {
	case err != nil:
		return backends.FormatUnknown, unavailable("data of "+img.Name(), err)
	case data:
		return backends.FormatDone, nil
	}
	return backends.FormatUnknown, nil
}

// prepare sets what a loop device must have before anybody uses it.
func (b *Backend) prepare(v *volume, s *state) error {
	if v.meta.thick() {
		if err := stopDiscard(s.Loop); err != nil {
			return fmt.Errorf("%w: %s would punch holes into a thick volume: %w", backends.ErrPrecondition, s.Loop, err)
		}
	}
	// One that was attached already has the size of that time.
	if err := blockdev.ResizeLoop(s.Loop, s.Dev, s.Ino); err != nil {
		return err
	}
	return b.limit(v, s)
}

func source(v *volume, s *state) (*backends.Source, error) {
	st, err := s.encode()
	if err != nil {
		return nil, err
	}
	return &backends.Source{
		Device: &backends.Device{
			Path: s.Loop, Format: v.meta.format(), FSType: v.meta.FSType,
			Identity: backends.Identity{BackingDev: s.Dev, BackingIno: s.Ino, Size: v.img.Size() &^ 511},
		},
		State: st,
	}, nil
}

// noteRaw ends the promise that nobody wrote to the volume before mkfs does: a
// program that gets the device itself may write what no probe knows.
func (b *Backend) noteRaw(v *volume, c backends.Capability) error {
	// Of an encrypted one the engine says so, when it has made the header.
	if !c.Block || v.meta.encrypted() || v.meta.format() == backends.FormatUnknown || v.meta.format() == backends.FormatDone {
		return nil
	}
	m := *v.meta
	m.Format, m.FSType = formatRaw, ""
	return v.saveMeta(m)
}

// refill gives a thick volume back what was punched out of its file. Kernels
// before 6.17 do that when zeros are written by WRITE_ZEROES, discard or not.
// A pool that is full is no reason to keep the volume from its user.
func (b *Backend) refill(ctx context.Context, v *volume, img *os.File) {
	if !v.meta.thick() || allocated(v.img) >= v.img.Size() {
		return
	}
	if err := allocate(ctx, img, v.img.Size()); err != nil {
		b.log.Warn("thick volume has holes that cannot be filled", "id", v.id, "err", err)
	}
}

// lockForNode is pool.lock by ID; done ends the use of volume and pool.
func (b *Backend) lockForNode(ctx context.Context, id string) (v *volume, done func(), err error) {
	p, leave, err := b.enter(NodeHalf)
	if err != nil {
		return nil, nil, err
	}
	dir, err := p.decode(id)
	if err == nil {
		v, err = p.lock(ctx, dir)
	}
	if err != nil {
		leave()
		return nil, nil, err
	}
	return v, func() { v.unlock(); leave() }, nil
}

// RecordFormat remembers with the volume that it was, or is being, formatted.
func (b *Backend) RecordFormat(ctx context.Context, req backends.RecordFormatRequest) error {
	if req.Format != backends.FormatStarted && req.Format != backends.FormatDone {
		return fmt.Errorf("%w: format state %v", backends.ErrInvalid, req.Format)
	}
	v, done, err := b.lockForNode(ctx, req.ID)
	if err != nil {
		return err
	}
	defer done()
	if v.meta.format() == backends.FormatDone {
		if req.Format == backends.FormatDone && v.meta.FSType == req.FSType {
			return nil
		}
		return fmt.Errorf("%w: volume %s was formatted with %s already", backends.ErrPrecondition, v.id, v.meta.FSType)
	}
	m := *v.meta
	m.Format, m.FSType = req.Format.String(), req.FSType
	return v.saveMeta(m)
}

// NodeExpandVolume makes the loop device as big as the image is by now.
func (b *Backend) NodeExpandVolume(ctx context.Context, req backends.NodeExpandVolumeRequest) error {
	hint, err := decodeState(req.State)
	if err != nil {
		return err
	}
	v, done, err := b.lockForNode(ctx, req.ID)
	if err != nil {
		return err
	}
	defer done()
	if req.Range.Required > v.img.Size() {
		return fmt.Errorf("%w: volume %s has %d bytes, %d are required: it must be expanded by the controller first",
			backends.ErrOutOfRange, v.id, v.img.Size(), req.Range.Required)
	}
	s, err := b.attached(ctx, v, hint)
	if err != nil {
		return err
	}
	if s == nil {
		return fmt.Errorf("%w: volume %s is not open on this node", backends.ErrPrecondition, v.id)
	}
	return blockdev.ResizeLoop(s.Loop, s.Dev, s.Ino)
}

// CloseVolume detaches the volume. A pool that is not there any more, a meta
// that is torn, and a volume that is gone are no hindrance where State says
// which loop device it was.
func (b *Backend) CloseVolume(ctx context.Context, req backends.CloseVolumeRequest) error {
	if _, _, ok := splitID(req.ID); !ok {
		return nil // never was one of ours
	}
	s, err := decodeState(req.State)
	if err != nil {
		return err
	}
	p, done, err := b.enter(NodeHalf)
	if err != nil {
		return b.closeAway(ctx, req.ID, s, err)
	}
	defer done()
	dir, err := p.decode(req.ID)
	if err != nil {
		return b.closeAway(ctx, req.ID, s, err)
	}
	v, err := p.lockDir(ctx, dir)
	if errors.Is(err, backends.ErrNotFound) {
		b.opened.drop(dir)
		return b.closeByState(ctx, s)
	}
	if err != nil {
		return err
	}
	defer v.unlock()
	if err := b.detachVolume(ctx, v, s); err != nil {
		return fmt.Errorf("close volume %s: %w", v.id, err)
	}
	b.opened.drop(dir)
	return nil
}

// closeAway closes a volume whose pool is not there. Without a State (an unstage is
// repeated, or the record was lost) what is attached tells: it carries the volume's
// ID, and no such loop device is nothing to close. One that is there waits for the
// pool, which alone can say whose it is.
func (b *Backend) closeAway(ctx context.Context, id string, s *state, away error) error {
	_, dir, _ := splitID(id)
	if known, open, _ := b.opened.get(dir); s == nil && open {
		s = &known
	}
	if s == nil {
		left, err := loopsNamed(id)
		if err != nil {
			return errors.Join(away, err)
		}
		if len(left) > 0 {
			return fmt.Errorf("%w: volume %s is open as %s", away, id, strings.Join(left, " "))
		}
	}
	if err := b.closeByState(ctx, s); err != nil {
		return err
	}
	b.opened.drop(dir)
	return nil
}

// closeByState detaches exactly the attachment that State speaks of. nil: none.
func (b *Backend) closeByState(ctx context.Context, s *state) error {
	if s == nil {
		return nil
	}
	is, err := blockdev.LoopIs(s.Loop, s.Dev, s.Ino)
	if err != nil || !is {
		return err
	}
	// An inode number may have been given to another file since.
	seq, err := diskSeq(ctx, s.Loop)
	if err != nil || seq != s.DiskSeq {
		return err
	}
	return b.detach(ctx, s.Loop, s.Dev, s.Ino)
}

// detachVolume detaches whatever loop device of ours the image is on.
func (b *Backend) detachVolume(ctx context.Context, v *volume, hint *state) error {
	var err error
	if v.img, err = v.root.Lstat(imgFile); err != nil {
		if notExist(err) {
			return b.closeByState(ctx, hint)
		}
		return unavailable(v.path(imgFile), err)
	}
	img, err := v.openImg()
	if err != nil {
		return err
	}
	defer func() { _ = img.Close() }() // nothing was written
	free, err := tryLock(img)
	if err != nil {
		return unavailable("flock "+v.path(imgFile), err)
	}
	if free {
		// This file has no loop device. The one that State speaks of may be left on
		// an earlier file: the image was restored, or its disk mounted anew.
		return b.closeByState(ctx, hint)
	}
	s, err := b.attached(ctx, v, hint)
	if s == nil || err != nil {
		return err
	}
	return b.detach(ctx, s.Loop, s.Dev, s.Ino)
}
