package lvm

import (
	"context"
	"fmt"
	"strconv"

	"github.com/csikit/csikit/backends"
)

// ExpandVolume grows the LV, in use or not: lvm changes its metadata and the
// device's table in one command, and finishes at the next activation what was cut
// short. The file system is the node's.
func (b *Backend) ExpandVolume(ctx context.Context, req backends.ExpandVolumeRequest) (int64, error) {
	if err := b.serves(ControllerHalf); err != nil {
		return 0, err
	}
	if req.Size < 0 || req.Size > maxSize {
		return 0, fmt.Errorf("%w: %d bytes", backends.ErrOutOfRange, req.Size)
	}
	c, _, err := b.locate(req.ID, kindVolume)
	if err != nil {
		return 0, err
	}
	leave, err := b.turn(ctx, c)
	if err != nil {
		return 0, err
	}
	defer leave()
	g, err := b.lookForSpace(ctx, c)
	if err != nil {
		return 0, err
	}
	c, v, err := b.ready(ctx, req.ID, kindVolume)
	if err != nil {
		return 0, err
	}
	if l := req.Range.Limit; l > 0 && v.size > l {
		return 0, fmt.Errorf("%w: volume %s has %d bytes, above the limit %d", backends.ErrOutOfRange, req.ID, v.size, l)
	}
	if req.Size <= v.size {
		return v.size, nil
	}
	n, err := extentsFor(g, c, req.Size, req.Range.Limit)
	if err != nil {
		return 0, err
	}
	if err := b.extend(ctx, g, c, v, n); err != nil {
		return 0, fmt.Errorf("expand volume %s: %w", req.ID, err)
	}
	_, v, err = b.ready(context.WithoutCancel(ctx), req.ID, kindVolume)
	if err != nil {
		return 0, err
	}
	if v.size < req.Size {
		return 0, fmt.Errorf("%w: volume %s has %d bytes after it was expanded to %d", backends.ErrUnavailable, req.ID, v.size, req.Size)
	}
	return v.size, nil
}

// extend gives an LV n extents. The caller has the VG's turn.
func (b *Backend) extend(ctx context.Context, g *group, c *Class, v *volume, n int64) error {
	if err := growable(v, g); err != nil {
		return err
	}
	// Of RAID legs lvm knows best where there is room for more.
	if !c.raid() {
		if err := admit(g, c, n-v.size/g.extent); err != nil {
			return err
		}
	}
	err := b.tool.change(ctx, c.VG, "lvextend", "--extents", strconv.FormatInt(n, 10), v.path())
	b.step("expand:grown")
	if err == nil {
		return nil
	}
	now, again := b.look(context.WithoutCancel(ctx), c)
	if again != nil {
		return classify(err)
	}
	for _, o := range now.lvs {
		if o.uuid == v.uuid && o.size == v.size && noSpace(err) {
			return fmt.Errorf("%w: %w", backends.ErrNoSpace, err)
		}
	}
	return classify(err)
}

// growable refuses to grow what has an old kind of snapshot, which lvm would do
// without saying that the snapshot has another size from then on.
func growable(v *volume, g *group) error {
	for _, o := range g.lvs {
		if dependsOn(o, v) {
			return fmt.Errorf("%w: logical volume %s is a snapshot of %s, which cannot grow before that is gone", backends.ErrPrecondition, o.path(), v.path())
		}
	}
	return nil
}
