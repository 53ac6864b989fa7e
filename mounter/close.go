package mounter

import (
	"context"
	"errors"

	"github.com/csikit/csikit/backends"
)

// closeVolume closes the volume of a staging record whose path holds nothing any
// more, unless another staging path needs it, and forgets the record. With it
// goes the memory of an mkfs that was cut short: who else uses the device from
// now on is not known here.
func (e *Engine) closeVolume(ctx context.Context, s *store, r *record) error {
	if e.last(s, r) {
		if err := e.unheld(r); err != nil {
			return err
		}
		r.Phase = phaseClosing
		if err := s.put(r); err != nil {
			return err
		}
		if err := e.callClose(ctx, r.Volume, r.State); err != nil {
			return err
		}
	}
	return s.remove(r)
}

// callClose is CloseVolume, for which a volume that is gone is closed.
func (e *Engine) callClose(ctx context.Context, id string, state []byte) error {
	if err := e.step(ctx, "close volume"); err != nil {
		return err
	}
	err := e.node.CloseVolume(ctx, backends.CloseVolumeRequest{ID: id, State: state})
	var missing *backends.NotFoundError
	if errors.As(err, &missing) && missing.Kind == backends.KindVolume && missing.ID == id {
		return nil
	}
	return err
}

// last reports whether r is the volume's only staging path.
func (e *Engine) last(s *store, r *record) bool {
	for _, o := range s.of(r.Volume) {
		if o.Kind == kindStage && o.Path != r.Path {
			return false
		}
	}
	return true
}

// unheld makes sure that the kernel has no mount left of the device that is about
// to be taken away.
func (e *Engine) unheld(r *record) error {
	if r.BootID != e.boot || r.Source != sourceDevice {
		return nil
	}
	devs := []uint64{r.Device.Num}
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
