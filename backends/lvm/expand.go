package lvm

import (
	"context"
	"errors"
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
	if c.zeroesNew() {
		end, err := b.begin(ctx, growthKey(req.ID))
		if err != nil {
			return 0, err
		}
		defer end()
		if err := b.prepareGrowth(ctx, c, req); err != nil {
			return 0, fmt.Errorf("expand volume %s: %w", req.ID, classify(err))
		}
	}
	n, err := b.expand(ctx, c, req)
	if used, ok := errors.AsType[*activeError](err); ok {
		// Nobody may use it: a volume is active from its making to its first unstaging.
		if ok, rest := b.inactive(ctx, c, used.v); ok && rest == nil {
			n, err = b.expand(ctx, c, req)
		}
	}
	if err != nil && c.zeroesNew() {
		err = b.growthFailed(ctx, c, req.ID, err)
	}
	return n, err
}

func (b *Backend) expand(ctx context.Context, c *Class, req backends.ExpandVolumeRequest) (int64, error) {
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
	if err := b.growable(v, g); err != nil {
		return err
	}
	more := n - v.size/g.extent
	argv := []string{"lvextend", "--extents", strconv.FormatInt(n, 10), v.path()}
	switch {
	case c.zeroesNew():
		where, err := b.handOver(ctx, c, v, more)
		if err != nil {
			return err
		}
		argv = append(argv, where...)
	case c.raid(): // of its legs lvm knows best where there is room for more
	default:
		if err := admit(g, c, more); err != nil {
			return err
		}
	}
	err := b.tool.change(ctx, c.VG, argv...)
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

// growable refuses to grow in use what has thick snapshots, because lvm does. What is
// not in use grows; its snapshots keep the size that it had.
func (b *Backend) growable(v *volume, g *group) error {
	for _, o := range g.lvs {
		if !dependsOn(o, v) {
			continue
		}
		if !o.ours() || !o.thick() {
			return fmt.Errorf("%w: logical volume %s is a snapshot of %s, which cannot grow before that is gone", backends.ErrPrecondition, o.path(), v.path())
		}
		dev, err := b.kernel.device(v.dmUUID())
		if err != nil {
			return err
		}
		if dev != "" {
			return &activeError{v, o}
		}
	}
	return nil
}

// activeError is a volume with a thick snapshot that is active.
type activeError struct{ v, by *volume }

func (e *activeError) Error() string {
	return fmt.Sprintf("%v: logical volume %s has a snapshot, %s, and cannot grow while it is in use: unpublish it, or delete its snapshots first",
		backends.ErrPrecondition, e.v.path(), e.by.path())
}

func (e *activeError) Unwrap() error { return backends.ErrPrecondition }
