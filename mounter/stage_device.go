package mounter

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/faultpoint"
	"github.com/csikit/csikit/mounter/mnt"
)

// device brings a device to the staging path. It is opened once, identified on
// that descriptor, and held until the mount stands.
func (s *staging) device(ctx context.Context) (err error) {
	if err := s.step(ctx, "open device"); err != nil {
		return err
	}
	d, err := s.openDevice(ctx, s.src.Device.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Verify(ctx, s.src.Device.Identity); err != nil {
		return err
	}
	faultpoint.Reach("mounter.stage.verified")
	unknown := s.rec.Device.Num == 0
	if err := s.rec.Device.describe(d); err != nil {
		return err
	}
	if unknown && s.req.Capability.Block {
		if err := s.ownFlag(s.rec.Device); err != nil {
			return err
		}
	}
	unlock, err := s.lockDevice(ctx, s.rec)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.notClaimed(s.store, s.rec); err != nil {
		return errors.Join(err, s.store.put(s.rec)) // for the close, which may come later
	}
	if s.src.Device.Encryption != nil {
		return s.encrypted(ctx, d)
	}
	if s.rec.Mapping != nil {
		return refuse("device %s is open as %s, and the backend does not say any more that it is encrypted", d.Path(), s.rec.Mapping.Path)
	}
	return s.use(ctx, d)
}

// use brings what the volume's user is to have to the staging path.
func (s *staging) use(ctx context.Context, d Device) error {
	switch {
	case s.req.Capability.Block:
		return s.block(ctx)
	case len(s.mounts) > 0:
		return s.adopt(ctx, d)
	}
	return s.mountDevice(ctx, d)
}

// block ends the stage of a raw block volume. Nothing is mounted, but whoever
// writes to it must not find it formatted later.
func (s *staging) block(ctx context.Context) error {
	if len(s.mounts) > 0 {
		return s.foreign()
	}
	if err := s.markUsed(ctx); err != nil {
		return err
	}
	if f := s.src.Device.Format; !s.readOnly && (f == backends.FormatNever || f == backends.FormatStarted) {
		if err := s.recordFormat(ctx, backends.FormatDone, ""); err != nil {
			return err
		}
	}
	if !s.readOnly {
		if err := s.forgetMkfs(); err != nil {
			return err
		}
	}
	return s.ready(nil)
}

// forgetMkfs takes the memory of an mkfs that was cut short out of every record of
// the volume: from now on what is on the device may be its user's.
func (s *staging) forgetMkfs() error {
	if f := s.rec.Format; f != nil && f.State == formatStarted {
		s.rec.Format = nil
	}
	for _, o := range s.store.of(s.req.ID) {
		if o.Kind != kindStage || o.Path == s.path || o.Format == nil || o.Format.State != formatStarted {
			continue
		}
		o.Format = nil
		if err := s.store.put(o); err != nil {
			return err
		}
	}
	return nil
}

// adopt takes over a mount whose record was lost, or was not finished.
func (s *staging) adopt(ctx context.Context, d Device) error {
	m := s.mounts[0]
	is, err := s.fromSource(m, s.path, s.rec)
	switch {
	case err != nil:
		return err
	case !is:
		return s.foreign()
	case s.req.Capability.FSType != "" && s.req.Capability.FSType != m.FSType:
		return fmt.Errorf("%w: %s is mounted there, and %s was asked for", backends.ErrIncompatible, m.FSType, s.req.Capability.FSType)
	case m.ReadOnly() != s.readOnly:
		return fmt.Errorf("%w: mounted with read-only %v, and asked for with %v", backends.ErrIncompatible, m.ReadOnly(), s.readOnly)
	}
	if err := s.checkOwners(m); err != nil {
		return err
	}
	if err := s.formatDone(ctx, m.FSType); err != nil {
		return err
	}
	return s.finish(ctx, d, m)
}

// mountDevice makes sure that there is a file system, and mounts it.
func (s *staging) mountDevice(ctx context.Context, d Device) error {
	fsType, err := s.prepare(ctx, d)
	if err != nil {
		return err
	}
	if err := s.makeStagingDir(); err != nil {
		return err
	}
	faultpoint.Reach("mounter.stage.directory")
	if err := s.step(ctx, "mount "+fsType); err != nil {
		return err
	}
	if err := s.mountFS(ctx, d, fsType); err != nil {
		return fmt.Errorf("mount %s (%s): %w", s.src.Device.Path, fsType, err)
	}
	faultpoint.Reach("mounter.stage.mounted")
	m, err := s.look(func(m mnt.Info) (bool, error) { return s.fromSource(m, s.path, s.rec) })
	if err != nil {
		return s.unmountAgain(err)
	}
	return s.finish(ctx, d, m)
}

// finish is what a mounted device still needs.
func (s *staging) finish(ctx context.Context, d Device, m mnt.Info) error {
	if err := s.growMounted(ctx, d, m.FSType); err != nil {
		return err
	}
	if err := s.setGroup(ctx); err != nil {
		return err
	}
	return s.ready(mountedAs(m))
}

// growMounted uses what the device has more than the file system spans: after an
// offline expansion, a restore or a clone.
func (s *staging) growMounted(ctx context.Context, d Device, fsType string) error {
	if s.readOnly || !s.kernel.GrowsOnline(fsType) {
		return nil
	}
	size, err := s.kernel.FSSize(ctx, d, fsType, s.path)
	if err != nil {
		return unavailable("size of the %s at %s: %w", fsType, s.path, err)
	}
	if !canGrow(size, s.rec.data().Size) {
		return nil
	}
	if err := s.step(ctx, "grow "+fsType); err != nil {
		return err
	}
	return s.growTo(ctx, d, fsType, s.path)
}

// growTo grows a mounted file system and looks whether it did.
func (e *Engine) growTo(ctx context.Context, d Device, fsType, path string) error {
	if err := e.kernel.Grow(ctx, d, fsType, path); err != nil {
		return fmt.Errorf("grow %s at %s: %w", fsType, path, err)
	}
	faultpoint.Reach("mounter.grow.mounted")
	got, err := e.kernel.FSSize(ctx, d, fsType, path)
	if err != nil {
		return unavailable("size of the %s at %s: %w", fsType, path, err)
	}
	size, err := d.Size()
	if err != nil {
		return unavailable("size of device %s: %w", d.Path(), err)
	}
	if canGrow(got, size) {
		return unavailable("the %s at %s spans %d bytes after growing it on a device of %d", fsType, path, got, size)
	}
	return nil
}

// growSlack is what a file system may leave unused at the end of its device: a
// last block group or allocation group that would be too small.
const growSlack = 4 << 20

func canGrow(fsSize, devSize int64) bool { return fsSize > 0 && devSize-fsSize > growSlack }

func (s *staging) makeStagingDir() error {
	if err := os.MkdirAll(s.path, 0o750); err != nil {
		return unavailable("staging directory: %w", err)
	}
	st, err := os.Lstat(s.path)
	if err != nil {
		return unavailable("staging directory: %w", err)
	}
	if !st.IsDir() {
		return refuse("staging path %s is no directory", s.path)
	}
	return nil
}

// look is the post-condition of a mount: the kernel has it, it is the right one,
// and it is writable or not as asked.
func (s *staging) look(right func(mnt.Info) (bool, error)) (mnt.Info, error) {
	mounts, err := s.mountsAt(s.path)
	if err != nil {
		return mnt.Info{}, err
	}
	if len(mounts) == 0 {
		return mnt.Info{}, unavailable("the kernel shows no mount at %s after mounting it", s.path)
	}
	is, err := right(mounts[0])
	switch {
	case err != nil:
		return mnt.Info{}, err
	case !is:
		return mnt.Info{}, unavailable("after mounting it, %s holds %s, which is not the volume", s.path, describeMount(mounts[0]))
	}
	if err := s.checkOwners(mounts[0]); err != nil {
		return mounts[0], err
	}
	return mounts[0], s.checkReadOnly(mounts[0])
}

// checkOwners: whether owners are mapped is all that the kernel shows.
func (s *staging) checkOwners(m mnt.Info) error {
	if s.src != nil && m.Mapped() != (len(s.src.IDMap) > 0) {
		return fmt.Errorf("%w: %s is mounted with owners mapped: %v, and asked for with %v", backends.ErrIncompatible, s.path, m.Mapped(), len(s.src.IDMap) > 0)
	}
	return nil
}

func (s *staging) checkReadOnly(m mnt.Info) error {
	if m.ReadOnly() != s.readOnly {
		return unavailable("%s is mounted with read-only %v, and %v was asked for (a file system that found errors makes itself read-only)", s.path, m.ReadOnly(), s.readOnly)
	}
	return nil
}

// unmountAgain takes back the mount that this call made.
func (s *staging) unmountAgain(err error) error {
	if _, undo := s.kernel.Unwind(s.path); undo != nil {
		return unavailable("%w (and it is still mounted: %w)", err, undo)
	}
	return err
}
