package mounter

import (
	"context"
	"errors"
)

// closeMapping closes the mapping of a record, so that the device below is free,
// and looks. One that is not there, or not any more, is closed.
func (e *Engine) closeMapping(ctx context.Context, r *record) error {
	if r.Mapping == nil || r.BootID != e.boot {
		return nil
	}
	name := r.mappingName()
	m, err := e.mapping(name)
	if err != nil {
		return err
	}
	if m != nil {
		if err := m.check(r.Mapping.DMUUID, r.Device.Num); err != nil {
			return inUse("%w", err) // and the device below it stays
		}
		if err := e.step(ctx, "luksClose"); err != nil {
			return err
		}
		if err := e.luksClose(ctx, name); err != nil {
			return err
		}
	}
	return e.unclaimed(ctx, r, r.Device)
}

func (e *Engine) luksClose(ctx context.Context, name string) error {
	if err := e.kernel.LUKSClose(ctx, name); err != nil {
		return unavailable("close mapping %s: %w", name, err)
	}
	m, err := e.mapping(name)
	if err == nil && m != nil {
		err = unavailable("mapping %s is still there after closing it", name)
	}
	return err
}

// closeLeftMappings closes what is open of a volume of which there is no record.
// The kernel refuses one that is in use.
func (e *Engine) closeLeftMappings(ctx context.Context, id string) error {
	all, err := e.kernel.LUKSMappings(mappingName(id, ""))
	if err != nil {
		return unavailable("look for mappings: %w", err)
	}
	for _, m := range all {
		d, err := e.openDevice(ctx, m.Path)
		if err != nil {
			return err
		}
		claimed, err := d.Claimed()
		switch err = errors.Join(err, d.Close()); {
		case err != nil:
			return unavailable("device %s: %w", m.Path, err)
		case claimed:
			return inUse("device %s is mounted, or held by another device or program", m.Path)
		}
		if err := e.step(ctx, "luksClose"); err != nil {
			return err
		}
		if err := e.luksClose(ctx, m.Name); err != nil {
			return err
		}
	}
	return nil
}
