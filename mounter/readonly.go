package mounter

import (
	"context"
	"errors"
	"slices"

	"github.com/csikit/csikit/mounter/mnt"
)

// The read-only flag of a raw block device is the engine's while the volume is
// published read-only, and the record says so. Where that was lost, a read-only bind
// of the device's node is the evidence: nothing but a publish makes one.

// bindFinder is a Kernel that finds such binds.
type bindFinder interface {
	// BoundReadOnly reports whether the node of the device with this number is bound
	// read-only anywhere.
	BoundReadOnly(dev uint64) (bool, error)
}

func (e *Engine) boundReadOnly(dev uint64) (bool, error) {
	k, ok := e.kernel.(bindFinder)
	if !ok || dev == 0 {
		return false, nil
	}
	bound, err := k.BoundReadOnly(dev)
	if err != nil {
		return false, unavailable("look for binds of device %s: %w", devName(dev), err)
	}
	return bound, nil
}

// ownFlag knows the engine's own flag on a device of which there was no record.
func (e *Engine) ownFlag(r *deviceRecord) error {
	if !r.ReadOnly {
		return nil
	}
	bound, err := e.boundReadOnly(r.Num)
	if bound {
		r.ReadOnly = false // by itself
	}
	return err
}

// flagged is a device that was published read-only without a record of it.
type flagged struct {
	path string
	num  uint64
}

// flaggedTarget is the device at a target, nil unless there is no record of it and
// it is bound read-only.
func (e *Engine) flaggedTarget(r *record, path string, mounts []mnt.Info) *flagged {
	if r != nil || len(mounts) == 0 || mounts[0].Root == "/" || !slices.Contains(mounts[0].Options, "ro") {
		return nil
	}
	num, err := e.kernel.DeviceAt(path)
	if err != nil || num == 0 {
		return nil
	}
	node := "/dev" + mounts[0].Root
	if there, err := e.kernel.DeviceAt(node); err != nil || there != num {
		return nil // its node has gone, or lies elsewhere
	}
	return &flagged{node, num}
}

// dropFlag makes a device writable again when its last read-only bind is gone,
// unless a record says that it is read-only by itself.
func (e *Engine) dropFlag(ctx context.Context, s *store, f *flagged) error {
	if f == nil {
		return nil
	}
	if bound, err := e.boundReadOnly(f.num); bound || err != nil {
		return err
	}
	itself := s.list(func(r *record) bool {
		return r.Device != nil && r.Device.Num == f.num && r.Device.ReadOnly && r.BootID == e.boot
	})
	if len(itself) > 0 {
		return nil
	}
	d, err := e.openDevice(ctx, f.path)
	if err != nil {
		return nil //nolint:nilerr // gone, and with it its flag
	}
	if d.Num() == f.num {
		err = d.SetReadOnly(false)
	}
	return soften(errors.Join(err, d.Close()))
}
