package blockdev

import (
	"context"
	"errors"
	"fmt"
)

// NeedsReplay reports whether mounting the file system that [Device.Probe] found
// would write to the device, even read-only: its journal was not emptied, because
// it was not unmounted, is mounted now, or is a copy of one in use. It knows ext,
// xfs and btrfs, and says yes where it is not sure.
func (d *Device) NeedsReplay(ctx context.Context, c Content) (bool, error) {
	size, err := d.Size()
	if err != nil {
		return false, err
	}
	r, err := d.fresh()
	if err != nil {
		return false, err
	}
	needs, err := needsReplay(ctx, r, size, c)
	if err = errors.Join(err, r.Close()); err != nil {
		return false, fmt.Errorf("journal on %s: %w", d.path, err)
	}
	return needs, nil
}
