package mounter

import (
	"context"
	"errors"
	"fmt"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/faultpoint"
	"github.com/csikit/csikit/mounter/blockdev"
)

// prepare makes sure that the device holds a file system that can be mounted,
// and says which. This is where a device is formatted, and nowhere else.
func (s *staging) prepare(ctx context.Context, d Device) (fsType string, err error) {
	if err := s.idle(d); err != nil {
		return "", err
	}
	if err := s.step(ctx, "probe device"); err != nil {
		return "", err
	}
	content, err := s.probe(ctx, d)
	if err != nil {
		return "", err
	}
	e := s.crypt.inside(s.evidence(content))
	v, err := decide(e)
	if err != nil {
		return "", err
	}
	if v.Format {
		err = s.format(ctx, d, v.FSType)
	} else {
		s.uuid = content.UUID
		if err = s.onlyHere(ctx, d, v.FSType); err == nil { // a check writes, too
			err = s.repair(ctx, d, content, e.started() != "" || s.crypt.unused())
		}
	}
	if err != nil {
		return "", err
	}
	// Before anyone sees the mount: from here on there may be data.
	return v.FSType, s.formatDone(ctx, v.FSType)
}

// idle makes sure that nobody works on the device: an mkfs has a process
// group of its own and outlives a driver that is killed, and what is read while
// it runs says nothing. A mounted one is known for what it is.
func (s *staging) idle(d Device) error {
	claimed, err := d.Claimed()
	if err != nil {
		return unavailable("device %s: %w", d.Path(), err)
	}
	if !claimed {
		return nil
	}
	mounts, err := s.kernel.MountsOf(d.Num())
	if err != nil {
		return unavailable("mounts of device %s: %w", d.Path(), err)
	}
	if len(mounts) > 0 {
		return nil
	}
	if s.live = s.leftMounted(d); !s.live {
		return unavailable("device %s is held by another program (an mkfs or fsck that is still running?), by another device, or by a mount that is not to be seen from here",
			d.Path())
	}
	return nil
}

func (s *staging) probe(ctx context.Context, d Device) (blockdev.Content, error) {
	content, err := d.Probe(ctx)
	if err != nil {
		return content, unavailable("device %s cannot be read, so nobody knows what is on it, and it is left alone: %w", d.Path(), err)
	}
	return content, nil
}

func (s *staging) evidence(c blockdev.Content) evidence {
	dev := s.src.Device
	e := evidence{
		Device: s.rec.data().Path, Content: c, Backend: dev.Format, BackendFSType: dev.FSType, Record: s.rec.Format,
		Size: s.rec.data().Size, ReadOnly: s.readOnly, Want: s.req.Capability.FSType, DefaultFS: s.opts.DefaultFS,
	}
	e.SameInstance = s.rec.sameInstance(s.boot)
	if e.Backend != backends.FormatDone && s.features.FormatRecorder == nil {
		// It could not take Never or Started back once there is data.
		e.Backend = backends.FormatUnknown
	}
	return e
}

// format makes the file system. That it was begun is durable before the first
// byte is written, so that an mkfs that is cut short can be told from data.
func (s *staging) format(ctx context.Context, d Device, fsType string) error {
	dev := s.src.Device
	s.setFormat(formatStarted, fsType)
	if err := s.store.put(s.rec); err != nil {
		return err
	}
	if dev.Format != backends.FormatStarted || dev.FSType != fsType {
		if err := s.recordFormat(ctx, backends.FormatStarted, fsType); err != nil {
			return soften(err)
		}
	}
	faultpoint.Reach("mounter.format.started")
	if err := s.step(ctx, "mkfs."+fsType); err != nil {
		return err
	}
	err := s.tools.do(ctx, "mkfs."+fsType, func() error { return s.kernel.Mkfs(ctx, d, fsType, dev.MkfsOptions) })
	if err != nil {
		return unavailable("mkfs.%s on %s: %w", fsType, d.Path(), err)
	}
	faultpoint.Reach("mounter.format.made")
	if err := s.step(ctx, "probe device"); err != nil {
		return err
	}
	content, err := s.probe(ctx, d)
	if err != nil {
		return err
	}
	if content.State != blockdev.Filesystem || content.Type != fsType || content.InProgress || content.Errors {
		return unavailable("mkfs.%s on %s ended well, and the device holds %s", fsType, d.Path(), content)
	}
	return nil
}

// formatDone makes it durable that the device, of which all is known by now,
// holds a file system.
func (s *staging) formatDone(ctx context.Context, fsType string) error {
	if err := s.markUsed(ctx); err != nil {
		return err
	}
	s.setFormat(formatDone, fsType)
	if err := s.store.put(s.rec); err != nil {
		return err
	}
	faultpoint.Reach("mounter.format.recorded")
	// A read-only user brings no data, and may not be allowed to change anything.
	if s.readOnly || s.src.Device.Format == backends.FormatDone {
		return nil
	}
	return soften(s.recordFormat(ctx, backends.FormatDone, fsType))
}

func (s *staging) setFormat(state, fsType string) {
	s.rec.Format = &formatRecord{State: state, FSType: fsType, BootID: s.boot, DiskSeq: s.rec.Device.DiskSeq}
}

// recordFormat tells the backend, if it wants to know.
func (s *staging) recordFormat(ctx context.Context, f backends.FormatState, fsType string) error {
	if s.features.FormatRecorder == nil {
		return nil
	}
	if err := s.step(ctx, "record format "+f.String()); err != nil {
		return err
	}
	err := s.features.FormatRecorder.RecordFormat(ctx, backends.RecordFormatRequest{
		ID: s.req.ID, Format: f, FSType: fsType, State: s.rec.State, Secrets: s.req.Secrets,
	})
	if err != nil {
		return fmt.Errorf("record format %s: %w", f, err)
	}
	faultpoint.Reach("mounter.format.told")
	return nil
}

// repair checks a file system that asks for it, and grows one that can be grown
// only while it is not mounted.
//
// One whose mkfs is not known to have ended is looked at in full: after a power
// cut its superblock may be there and the rest of it not.
func (s *staging) repair(ctx context.Context, d Device, c blockdev.Content, unfinished bool) error {
	reader, err := s.isReader(d)
	switch {
	case err != nil:
		return err
	case reader:
		return s.readAsIs(ctx, d, c, unfinished)
	case s.live && (needsCheck(c) || unfinished):
		return unavailable("%s on %s asks for a check, and a container has it mounted yet; it is not mounted%s", c.Type, d.Path(), s.usersOf(d.Num()))
	case s.live:
		return nil
	}
	c, mended, err := s.mend(ctx, d, c)
	if err != nil {
		return fmt.Errorf("%s on %s was being grown when that was cut short; it is not mounted: %w", c.Type, d.Path(), err)
	}
	if !mended && (needsCheck(c) || unfinished) {
		if err := s.step(ctx, "check "+c.Type); err != nil {
			return err
		}
		err := s.tools.do(ctx, "fsck."+c.Type, func() error { return s.check(ctx, d, c.Type, unfinished) })
		if err != nil {
			return fmt.Errorf("%s on %s asks for a check, and that failed; it is not mounted: %w", c.Type, d.Path(), err)
		}
		faultpoint.Reach("mounter.fsck.done")
	}
	if s.readOnly || !isExt(c.Type) || s.kernel.GrowsOnline(c.Type) || !canGrow(c.Size, s.rec.data().Size) {
		return nil
	}
	if err := s.step(ctx, "grow "+c.Type); err != nil {
		return err
	}
	err = s.tools.do(ctx, "resize2fs", func() error { return s.growOffline(ctx, d, c) })
	if err != nil {
		return err
	}
	after, err := s.probe(ctx, d)
	if err == nil && (after.State != blockdev.Filesystem || after.Type != c.Type || canGrow(after.Size, s.rec.data().Size)) {
		err = unavailable("after growing it, %s of %d bytes holds %s of %d bytes", d.Path(), s.rec.data().Size, after, after.Size)
	}
	return err
}

func (s *staging) growOffline(ctx context.Context, d Device, c blockdev.Content) error {
	if err := s.beginGrowth(c); err != nil {
		return err
	}
	// resize2fs believes only a file system that was checked since it was mounted.
	if err := s.kernel.Check(ctx, d, c.Type, true); err != nil {
		err = fmt.Errorf("check %s on %s before growing it: %w", c.Type, d.Path(), err)
		return errors.Join(err, s.endGrowth(c.Type, err))
	}
	if err := s.kernel.Grow(ctx, d, c.Type, ""); err != nil {
		return soften(fmt.Errorf("grow %s on %s: %w", c.Type, d.Path(), err))
	}
	faultpoint.Reach("mounter.grow.unmounted")
	return nil
}

// needsCheck: a journal is replayed by the kernel at mount, and xfs and btrfs
// look after themselves. What is left is an ext file system that recorded
// errors, or one without a journal that was not unmounted.
func needsCheck(c blockdev.Content) bool {
	return isExt(c.Type) && (c.Errors || !c.Clean && !c.Journal)
}

func isExt(fsType string) bool { return fsType == "ext2" || fsType == "ext3" || fsType == "ext4" }
