package mounter

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/faultpoint"
)

// closeVolume closes the volume of a staging record whose path holds nothing any
// more, unless another staging path needs it, and forgets the record. With it
// goes the memory of an mkfs that was cut short: who else uses the device from
// now on is not known here.
func (e *Engine) closeVolume(ctx context.Context, s *store, r *record) error {
	unlock, err := e.lockDevice(ctx, r)
	if err != nil {
		return err
	}
	defer unlock()
	if e.last(s, r) {
		claimed := e.notClaimed(s, r)
		if claimed == nil {
			if err := e.unheld(ctx, s, r); err != nil {
				return err
			}
			if err := e.mendLeft(ctx, r); err != nil {
				return err
			}
		}
		r.Phase = phaseClosing
		if err := s.put(r); err != nil {
			// A disk that is full must not keep the volume, which may be what fills
			// it. The older record leads to the same: its mount is gone.
			e.log.WarnContext(ctx, "volume is closed without a record of it", "volume", r.Volume, "path", r.Path, "err", err)
		}
		if claimed != nil {
			return claimed // and closing this one would take the device away from that one
		}
		if err := e.closeMapping(ctx, r); err != nil {
			return err
		}
		if r.Source == sourceFUSE {
			if err := e.stopServer(ctx, r.Volume); err != nil {
				return err
			}
		}
		if err := e.callClose(ctx, r.Volume, r.State); err != nil {
			return err
		}
	}
	for _, name := range s.names(r) {
		if o := s.get(kindStage, r.Volume, name); o != nil {
			if err := s.remove(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// callClose is CloseVolume, for which a volume that is gone is closed.
func (e *Engine) callClose(ctx context.Context, id string, state []byte) error {
	if err := e.step(ctx, "close volume"); err != nil {
		return err
	}
	err := e.node.CloseVolume(ctx, backends.CloseVolumeRequest{ID: id, State: state})
	faultpoint.Reach("mounter.close.closed")
	if goneVolume(err, id) {
		return nil
	}
	return err
}

// goneVolume reports whether err says that the volume itself is not found.
func goneVolume(err error, id string) bool {
	var missing *backends.NotFoundError
	return errors.As(err, &missing) && missing.Kind == backends.KindVolume && missing.ID == id
}

// last reports whether r is the volume's only staging path.
func (e *Engine) last(s *store, r *record) bool {
	names := s.names(r)
	for _, o := range s.of(r.Volume) {
		if o.Kind == kindStage && !slices.Contains(names, o.Path) {
			return false
		}
	}
	return true
}

// unheld makes sure that nobody is left on the device that is about to be taken
// away: no target, and no mount that the kernel knows of.
func (e *Engine) unheld(ctx context.Context, s *store, r *record) error {
	if r.BootID != e.boot || r.Source != sourceDevice {
		return nil
	}
	for _, p := range s.of(r.Volume) {
		if p.Kind != kindPublish {
			continue
		}
		if live, err := e.targetLives(s, p); err != nil || live {
			return errors.Join(err, inUse("it is published at %s", p.Path))
		}
	}
	return e.unclaimed(ctx, r, r.data())
}

// unmounted looks for mounts in this mount namespace.
func (e *Engine) unmounted(r *record) error {
	devs := []uint64{r.Device.Num, r.data().Num}
	if r.Mounted != nil {
		devs = append(devs, r.Mounted.Dev) // btrfs has a number of its own
	}
	for _, dev := range devs {
		if dev == 0 {
			continue
		}
		mounts, err := e.kernel.MountsOf(dev)
		if err != nil {
			return unavailable("mounts of device %s: %w", devName(dev), err)
		}
		if len(mounts) > 0 {
			return inUse("device %s is still mounted at %s", r.Device.Path, mounts[0].Point)
		}
	}
	return nil
}

// unclaimed finds the users of a device. A mount of it claims it, in whatever
// namespace, where its file system would lose what it has not written yet; so does
// a device on top. Only to name them is the mount table looked through. A device
// that is gone can still have mounts here.
func (e *Engine) unclaimed(ctx context.Context, r *record, dev *deviceRecord) error {
	if dev.Num == 0 {
		return e.unmounted(r)
	}
	d, err := e.openRecorded(ctx, dev)
	if err != nil && final(err) {
		return nil //nolint:nilerr // the number is another disk's by now, and so are its mounts
	}
	if err != nil {
		return e.unmounted(r)
	}
	claimed, err := d.Claimed()
	if claimed && err == nil {
		e.settle(ctx, r.Volume)
		claimed, err = d.Claimed()
	}
	switch err = errors.Join(err, d.Close()); {
	case err != nil:
		return unavailable("device %s: %w", dev.Path, err)
	case !claimed:
		return nil
	}
	if err := e.unmounted(r); err != nil {
		return err
	}
	return inUse("device %s is mounted in another mount namespace, or held by another device or program%s", dev.Path, e.usersOf(dev.Num))
}

// userFinder is a Kernel that can name who uses a device.
type userFinder interface{ UsersOf(dev uint64) []string }

// usersOf is the end of a message about a device that is in use.
func (e *Engine) usersOf(dev uint64) string {
	k, ok := e.kernel.(userFinder)
	if !ok {
		return ""
	}
	who := k.UsersOf(dev)
	if len(who) == 0 {
		return ""
	}
	return ": " + strings.Join(who, ", ")
}
