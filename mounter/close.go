package mounter

import (
	"context"
	"errors"

	"github.com/csikit/csikit/backends"
)

// closeVolume closes the volume of a staging record whose path holds nothing any
// more, unless another staging path needs it, and forgets the record.
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
	return e.forget(s, r)
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

// forget removes the record. One that remembers an mkfs that was cut short on
// this instance of the disk stays for that alone: without it the device could
// never be formatted again.
func (e *Engine) forget(s *store, r *record) error {
	if r.Format == nil || r.Format.State != formatStarted || r.Format.BootID != e.boot || r.Format.DiskSeq == 0 {
		return s.remove(r)
	}
	return s.put(&record{
		Kind: r.Kind, Volume: r.Volume, Path: r.Path, BootID: e.boot, Phase: phaseClosed,
		Access: r.Access, Mode: r.Mode, Format: r.Format,
	})
}

// last reports whether r is the volume's only staging path.
func (e *Engine) last(s *store, r *record) bool {
	for _, o := range s.of(r.Volume) {
		if o.Kind == kindStage && o.Path != r.Path && o.Phase != phaseClosed {
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
