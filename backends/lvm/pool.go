package lvm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/csikit/csikit/backends"
)

// errNoPool is a thin pool that is not there.
var errNoPool = errors.New("thin pool is not there")

// metadataGuess is what the metadata of a pool that is to be made may take of the
// VG, twice, for lvm keeps as much for a repair: its own rule is 64 bytes for each
// chunk of 64 KiB.
func (c *Class) metadataGuess() int64 {
	if c.PoolMetadata > 0 {
		return c.PoolMetadata
	}
	return min(max(c.PoolSize/1024, 2<<20), 16<<30)
}

// poolCost is how many extents making the pool takes.
func poolCost(g *group, c *Class) int64 {
	up := func(n int64) int64 { return (n + g.extent - 1) / g.extent }
	return up(c.PoolSize) + 2*up(c.metadataGuess())
}

// checkPools refuses classes that say different things of one pool.
func checkPools(bad *complaints, classes []Class) {
	type key struct{ vg, pool string }
	type terms struct{ size, meta, most int64 }
	seen := map[key]terms{}
	for _, c := range classes {
		if !c.thin() {
			continue
		}
		k, is := key{c.VG, c.ThinPool}, terms{c.PoolSize, c.PoolMetadata, c.PoolMax}
		was, twice := seen[k]
		bad.when(twice && was != is, "class %s: another class of thin pool %s/%s has other sizes of it", c.Name, c.VG, c.ThinPool)
		seen[k] = is
	}
}

// readyPool makes the pool of a class if it is to be made, and active, so that lvm tells
// how full it is. The caller has the VG's turn, and looks again when it is done.
func (b *Backend) readyPool(ctx context.Context, g *group, c *Class) (done bool, err error) {
	if !c.thin() {
		return false, nil
	}
	p, err := pool(g, c)
	switch {
	case errors.Is(err, errNoPool) && c.PoolSize > 0:
		return true, b.createPool(ctx, g, c)
	case err != nil:
		return false, err
	case p.data < 0:
		return true, b.activatePool(ctx, c, p)
	}
	return b.extendPool(ctx, g, c, p)
}

// activatePool also gets a pool going over which lvm was killed when it had a part
// of it active by itself, to wipe it or to repair it.
func (b *Backend) activatePool(ctx context.Context, c *Class, p *volume) error {
	on := []string{"lvchange", "--activate", "y", p.path()}
	err := b.tool.change(ctx, c.VG, on...)
	if !said(err, "prohibited while") {
		return err
	}
	for _, part := range []string{"_tmeta", "_tdata"} {
		if err := b.tool.change(ctx, c.VG, "lvchange", "--activate", "n", p.path()+part); err != nil {
			b.log.Warn("part of a thin pool stays active", "lv", p.path()+part, "err", err)
		}
	}
	return b.tool.change(ctx, c.VG, on...)
}

// createPool makes the pool of a class. A pool that lvm was killed over is an LV
// that is none yet: it has the driver's tag, no volume is in it, and it is removed.
func (b *Backend) createPool(ctx context.Context, g *group, c *Class) error {
	if need, free := poolCost(g, c), g.free-extentsUp(g, c.Spare); need > free {
		return fmt.Errorf("%w: thin pool %s/%s takes %d bytes, and there is room for %d", backends.ErrNoSpace, g.name, c.ThinPool, need*g.extent, max(0, free)*g.extent)
	}
	if torn := b.tornPool(g, c); torn != nil {
		b.log.Warn("remove what is left of a thin pool that was being made", "lv", torn.path())
		if err := b.tool.change(ctx, c.VG, "lvremove", torn.path()); err != nil {
			return classify(err)
		}
	}
	args := []string{
		"lvcreate", "--type", "thin-pool", "--name", c.ThinPool, "--size", sizeArg(c.PoolSize),
		"--zero", "y", "--addtag", tagPool + b.o.Driver,
	}
	if c.PoolMetadata > 0 {
		args = append(args, "--poolmetadatasize", sizeArg(c.PoolMetadata))
	}
	err := b.tool.change(ctx, c.VG, append(args, g.name)...)
	b.step("pool:made")
	if noSpace(err) {
		return fmt.Errorf("%w: %w", backends.ErrNoSpace, err)
	}
	if err != nil {
		return classify(fmt.Errorf("make thin pool %s/%s: %w", c.VG, c.ThinPool, err))
	}
	return nil
}

// tornPool is an LV with the name of the pool that this driver began to make.
func (b *Backend) tornPool(g *group, c *Class) *volume {
	i := slices.IndexFunc(g.lvs, func(v *volume) bool { return v.name == c.ThinPool })
	if i < 0 || !g.lvs[i].unfinished() || !slices.Contains(g.lvs[i].tags, tagPool+b.o.Driver) {
		return nil
	}
	return g.lvs[i]
}

// unfinished says that an LV was to become a thin pool of a driver and has not.
func (v *volume) unfinished() bool {
	return v.layout != "thin,pool" && slices.ContainsFunc(v.tags, func(t string) bool { return strings.HasPrefix(t, tagPool) })
}

func extentsUp(g *group, bytes int64) int64 { return (bytes + g.extent - 1) / g.extent }

// extendPool makes a pool that is nearly used up bigger, as far as its class and the
// VG allow. That it cannot is no error here: whether there is room for a volume is
// admit's to say.
func (b *Backend) extendPool(ctx context.Context, g *group, c *Class, p *volume) (done bool, err error) {
	if c.PoolMax == 0 || p.data < 0 {
		return false, nil
	}
	free := g.free - extentsUp(g, c.Spare)
	if n := poolStep(g, c, p, free); n > 0 {
		// To a size, and not by one: should an administrator extend it meanwhile, it stays
		// below the cap.
		if err := b.extendBy(ctx, c, p, "--extents", strconv.FormatInt(p.size/g.extent+n, 10)); err != nil {
			return false, err
		}
		done, free = true, free-n
	}
	if p.meta >= c.PoolExtendAt && free > 0 {
		n := min(max(1, p.metaSize/g.extent/5), free)
		if err := b.extendBy(ctx, c, p, "--poolmetadatasize", "+"+sizeArg(n*g.extent)); err != nil {
			return done, err
		}
		done = true
	}
	return done, nil
}

// poolStep is by how many extents a pool is to grow: a fifth, and so far that it is
// below the line, but not above what the class and the VG have.
func poolStep(g *group, c *Class, p *volume, free int64) int64 {
	if p.data < c.PoolExtendAt {
		return 0
	}
	have := p.size / g.extent
	used := int64(math.Ceil(float64(have) * p.data / 100))
	want := max(have+max(1, have/5), int64(float64(used)*100/c.PoolExtendAt)+1)
	return max(0, min(want, c.PoolMax/g.extent, have+free)-have)
}

func (b *Backend) extendBy(ctx context.Context, c *Class, p *volume, how ...string) error {
	err := b.tool.change(ctx, c.VG, append(append([]string{"lvextend"}, how...), p.path())...)
	b.step("pool:extended")
	if err != nil {
		return classify(fmt.Errorf("extend thin pool %s: %w", p.path(), err))
	}
	b.log.Info("thin pool is extended", "pool", p.path(), "to", how[1])
	return nil
}

// watchPools extends pools in the background, for what fills them is writing, of
// which no RPC tells. One process does it: that of the controller half.
func (b *Backend) watchPools() {
	var list []*Class
	for _, c := range b.order {
		if c.PoolMax > 0 && !slices.ContainsFunc(list, func(o *Class) bool { return o.VG == c.VG && o.ThinPool == c.ThinPool }) {
			list = append(list, c)
		}
	}
	if len(list) == 0 {
		return
	}
	b.watches.Go(func() {
		tick := time.NewTicker(b.o.PoolInterval)
		defer tick.Stop()
		for {
			select {
			case <-b.ctx.Done():
				return
			case <-tick.C:
			}
			for _, c := range list {
				if err := b.tendPool(b.ctx, c); err != nil && b.ctx.Err() == nil {
					b.log.Warn("thin pool is not looked after", "pool", c.VG+"/"+c.ThinPool, "err", err)
				}
			}
		}
	})
}

func (b *Backend) tendPool(ctx context.Context, c *Class) error {
	g, leave, err := b.lookInTurn(ctx, c, b.peek)
	if err != nil {
		return err
	}
	defer leave()
	p, err := pool(g, c)
	if errors.Is(err, errNoPool) {
		return nil
	}
	if err == nil {
		_, err = b.extendPool(ctx, g, c, p)
	}
	return err
}

// warnPools tells of what an administrator's pool does that its users will not like.
func (b *Backend) warnPools(g *group) {
	for _, c := range b.order {
		if !c.thin() || c.VG != g.name {
			continue
		}
		p, err := pool(g, c)
		switch {
		case errors.Is(err, errNoPool) && c.PoolSize > 0:
		case err != nil:
			b.log.Warn("thin pool cannot be used", "class", c.Name, "err", err)
		case strings.HasPrefix(p.whenFull, "queue"):
			b.log.Warn("writes to this thin pool wait, a minute by default, when it is full (lvchange --errorwhenfull y)", "pool", p.path())
		}
	}
}
