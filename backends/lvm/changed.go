package lvm

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
)

// ChangedBlocks says where two snapshots of one thin pool have chunks that they do not
// share, out of the pool's own metadata and without reading any of the data: what two
// of them share is the same, because a chunk that is shared is never written to. What
// is told is never too little, and more than what differs where a chunk was written
// with the bytes that it had. Of other snapshots nothing is tracked.
func (b *Backend) ChangedBlocks(ctx context.Context, req backends.ChangedBlocksRequest) (backends.BlockMap, error) {
	if err := b.serves(ControllerHalf); err != nil {
		return backends.BlockMap{}, err
	}
	c, target, err := b.tracked(ctx, req.Target)
	if err != nil {
		return backends.BlockMap{}, err
	}
	args, from := []string{"--metadata-snap", "--dev-id", strconv.FormatInt(target.thinID, 10)}, (*volume)(nil)
	tool := "thin_dump"
	if req.Base != "" {
		if _, from, err = b.tracked(ctx, req.Base); err != nil {
			return backends.BlockMap{}, err
		}
		if from.g.uuid != target.g.uuid || from.pool != target.pool {
			return backends.BlockMap{}, fmt.Errorf("%w: snapshots %s and %s are in different pools", backends.ErrPrecondition, req.Base, req.Target)
		}
		tool = "thin_delta"
		args = []string{"--metadata-snap", "--thin1", strconv.FormatInt(from.thinID, 10), "--thin2", strconv.FormatInt(target.thinID, 10)}
	}
	out, err := b.metadata(ctx, c, target, tool, args)
	if err != nil {
		return backends.BlockMap{}, fmt.Errorf("changed blocks of %s: %w", req.Target, err)
	}
	if err := b.remain(ctx, c, target, from); err != nil {
		return backends.BlockMap{}, err
	}
	m, err := decodeMappings(out)
	if err != nil {
		return backends.BlockMap{}, fmt.Errorf("%w: %s of %s: %w", backends.ErrUnavailable, tool, req.Target, err)
	}
	return backends.BlockMap{VolumeSize: target.size, Blocks: m.blocks(req.Offset, target.size)}, nil
}

// remain sees that snapshots are still there after the metadata was read: lvm gives the
// number of one that is gone to the next.
func (b *Backend) remain(ctx context.Context, c *Class, snaps ...*volume) error {
	g, err := b.look(ctx, c)
	if err != nil {
		return err
	}
	for _, v := range snaps {
		if v != nil && g.byUUID(v.uuid) == nil {
			return backends.SnapshotNotFound(v.id())
		}
	}
	return nil
}

// tracked is a snapshot of which the pool knows the chunks.
func (b *Backend) tracked(ctx context.Context, id string) (*Class, *volume, error) {
	c, v, err := b.ready(ctx, id, kindSnapshot)
	if err != nil {
		return nil, nil, err
	}
	if v.pool == "" || v.thinID == 0 {
		return nil, nil, fmt.Errorf("%w: snapshot %s is not in a thin pool: what changed is not tracked", backends.ErrPrecondition, id)
	}
	return c, v, nil
}

// metadata runs a tool on the metadata of a pool, which goes on changing meanwhile: so
// it reads a snapshot of that, of which a pool has one at most. That it is held is noted
// with the snapshot of the volume, so that it is released also when this process is
// killed.
func (b *Backend) metadata(ctx context.Context, c *Class, v *volume, tool string, args []string) (out []byte, err error) {
	end, err := b.begin(ctx, "metadata of "+v.g.uuid+"/"+v.pool)
	if err != nil {
		return nil, err
	}
	defer end()
	p, err := b.awake(ctx, c, v)
	if err != nil {
		return nil, err
	}
	if err := b.unheld(ctx, c, p); err != nil {
		return nil, err
	}
	if err := b.holds(ctx, c, v, addTags(tagHolds)); err != nil {
		return nil, err
	}
	b.step("changed:noted")
	defer func() {
		if e := b.unhold(context.WithoutCancel(ctx), c, p); e != nil {
			b.log.Error("the metadata of a pool stays held until the next list of changed blocks, or start", "pool", p.path(), "err", e)
		}
	}()
	if err := b.kernel.message(p.dmUUID(), "reserve_metadata_snap"); err != nil {
		return nil, err
	}
	b.step("changed:held")
	dev, _, err := b.kernel.metadataOf(p.dmUUID())
	if err != nil {
		return nil, err
	}
	res, err := b.tool.run.Run(ctx, command.Cmd{
		Path: tool, Args: append(args, dev), Scope: c.VG, Idle: readIdle, MaxOutput: maxMappings,
	})
	b.step("changed:read")
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	case res.Truncated:
		return nil, fmt.Errorf("%w: %s wrote more than %d bytes", backends.ErrUnavailable, tool, maxMappings)
	}
	return res.Stdout, nil
}

const (
	readIdle    = 5 * time.Minute
	maxMappings = 1 << 30
)

// awake is the pool of a thin LV, which is activated if it is not: what is not active
// shows no metadata.
func (b *Backend) awake(ctx context.Context, c *Class, v *volume) (*volume, error) {
	g, leave, err := b.lookInTurn(ctx, c, b.look)
	if err != nil {
		return nil, err
	}
	defer leave()
	p := g.named(v.pool)
	if p == nil {
		return nil, fmt.Errorf("%w: thin pool %s/%s is not there", backends.ErrUnavailable, g.name, v.pool)
	}
	if dev, _, err := b.kernel.metadataOf(p.dmUUID()); dev != "" || err != nil {
		return p, err
	}
	return p, b.tool.change(ctx, c.VG, "lvchange", "--activate", "y", p.path())
}

// unheld sees that nobody holds the metadata of a pool. What an earlier process of ours
// held is released; of somebody else's, the pool has no second one to give.
func (b *Backend) unheld(ctx context.Context, c *Class, p *volume) error {
	_, held, err := b.kernel.metadataOf(p.dmUUID())
	if err != nil || !held {
		return err
	}
	if slices.ContainsFunc(p.g.lvs, func(o *volume) bool { return o.holdsOf(p) }) {
		return b.unhold(ctx, c, p)
	}
	return fmt.Errorf("%w: somebody else holds the metadata of thin pool %s (release_metadata_snap)", backends.ErrUnavailable, p.path())
}

// holdsOf says that the metadata of the pool was held for this snapshot, by its tags.
func (v *volume) holdsOf(pool *volume) bool { return v.ours() && v.own.Holds && v.pool == pool.name }

// holds changes the tag of a snapshot.
func (b *Backend) holds(ctx context.Context, c *Class, v *volume, change []string) error {
	leave, err := b.turn(ctx, c)
	if err != nil {
		return err
	}
	defer leave()
	if err := b.tool.change(ctx, c.VG, append(append([]string{"lvchange"}, change...), v.path())...); err != nil {
		return classify(err)
	}
	return nil
}

// unhold releases the metadata of a pool, and then takes the tags away that said so.
func (b *Backend) unhold(ctx context.Context, c *Class, p *volume) error {
	_, held, err := b.kernel.metadataOf(p.dmUUID())
	if err == nil && held {
		err = b.kernel.message(p.dmUUID(), "release_metadata_snap")
	}
	if err != nil {
		return err
	}
	b.step("changed:released")
	g, err := b.look(ctx, c)
	if err != nil {
		return err
	}
	for _, v := range g.lvs {
		if v.holdsOf(p) {
			if err := b.holds(ctx, c, v, delTags(tagHolds)); err != nil {
				return err
			}
		}
	}
	return nil
}

// releaseLeft releases what an earlier process held.
func (b *Backend) releaseLeft(ctx context.Context, c *Class) error {
	g, err := b.look(ctx, c)
	if err != nil {
		return err
	}
	for _, p := range g.lvs {
		left := slices.IndexFunc(g.lvs, func(o *volume) bool { return o.holdsOf(p) })
		if left < 0 {
			continue
		}
		if _, err := b.awake(ctx, c, g.lvs[left]); err != nil {
			return err
		}
		if err := b.unhold(ctx, c, p); err != nil {
			return err
		}
	}
	return nil
}
