package lvm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/csikit/csikit/backends"
)

var errNoReason = errors.New("lvm gave no reason")

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// admit refuses n more extents in a class: before lvm is asked, and with a kind.
func admit(g *group, c *Class, n int64) error {
	room, err := room(g, c)
	if err != nil {
		return err
	}
	if n > room.most || room.closed {
		return fmt.Errorf("%w: %d bytes in class %s of volume group %s, and there is room for %d", backends.ErrNoSpace,
			n*g.extent, c.Name, g.name, room.most*g.extent)
	}
	return nil
}

// space is what a class has room for, in extents that a user sees.
type space struct {
	all  int64 // in volumes of any size
	most int64 // in one volume
	// closed is a pool in which nothing may be made, however small.
	closed bool
}

func room(g *group, c *Class) (space, error) {
	if c.thin() {
		return poolRoom(g, c)
	}
	spare := extentsUp(g, c.Spare)
	legs, data := c.legs()
	if legs == 1 {
		n := max(0, g.free-spare)
		return space{all: n, most: n}, nil
	}
	free := make([]int64, 0, len(g.disks))
	total := int64(0)
	for _, d := range g.disks {
		free = append(free, d.free)
		total += d.free
	}
	n := striped(free, legs)
	s := space{all: n, most: n}
	if c.raid() {
		s.most = nth(free, legs) - 1 // one image a disk, with an extent of metadata each
	}
	s.all, s.most = max(0, s.all)*int64(data), max(0, s.most)*int64(data)
	// What is left free is left of what this class could take.
	cut := max(0, spare-max(0, total-s.all*int64(legs)/int64(data)))
	cut = cut * int64(data) / int64(legs)
	s.all = max(0, s.all-cut)
	s.most = min(max(0, s.most), s.all)
	s.most = s.most / int64(data) * int64(data)
	return s, nil
}

// nth is the least of the n disks with the most room: what a volume gets on each.
func nth(free []int64, n int) int64 {
	if len(free) < n {
		return 0
	}
	free = slices.Sorted(slices.Values(free))
	return free[len(free)-n]
}

// striped is how long stripes over n disks at a time can become, segment by
// segment: lvm takes the n disks with the most room until one of them is full.
func striped(free []int64, n int) (sum int64) {
	free = slices.Clone(free)
	for {
		slices.Sort(free)
		if len(free) < n || free[len(free)-n] == 0 {
			return sum
		}
		take := free[len(free)-n]
		sum += take
		for i := len(free) - n; i < len(free); i++ {
			free[i] -= take
		}
	}
}

// pool finds the thin pool of a class, and refuses one that gives away chunks as
// they are: a volume would show what others wrote.
func pool(g *group, c *Class) (*volume, error) {
	for _, v := range g.lvs {
		if v.name != c.ThinPool || c.PoolSize > 0 && v.unfinished() {
			continue
		}
		if v.pool != "" || v.layout != "thin,pool" {
			return nil, fmt.Errorf("%w: logical volume %s is %s, and not a thin pool", backends.ErrPrecondition, v.path(), v.layout)
		}
		if !v.zero {
			return nil, fmt.Errorf("%w: thin pool %s does not zero new chunks (lvchange --zero y %s)", backends.ErrPrecondition, v.path(), v.path())
		}
		return v, nil
	}
	return nil, fmt.Errorf("%w: %s/%s: %w", backends.ErrUnavailable, g.name, c.ThinPool, errNoPool)
}

// poolRoom is what may still be promised. A pool that is nearly full, or whose
// metadata is, has room for nothing: when that is full no volume of the pool can be
// written to any more.
func poolRoom(g *group, c *Class) (space, error) {
	p, err := pool(g, c)
	if errors.Is(err, errNoPool) && c.PoolSize > 0 {
		// It is made when the first volume needs it.
		if poolCost(g, c) > g.free-extentsUp(g, c.Spare) {
			return space{}, nil
		}
		p = &volume{g: g, size: c.PoolSize, data: -1, meta: -1}
	} else if err != nil {
		return space{}, err
	}
	// Of one that is not active nothing is known; who creates activates it first.
	if p.data >= c.DataLimit || p.meta >= c.MetaLimit || p.health != "" {
		return space{closed: true}, nil
	}
	promised := int64(0)
	for _, v := range g.lvs {
		if v.pool == p.name {
			promised += v.size
		}
	}
	most := int64(float64(p.size) * c.Overcommit)
	n := max(0, most-promised) / g.extent
	return space{all: n, most: n}, nil
}

// Capacity is what is free of the class. MaxVolume is what one volume can have as
// the free space lies now, which for stripes and mirrors is less than all of it.
func (b *Backend) Capacity(ctx context.Context, req backends.CapacityRequest) (backends.Capacity, error) {
	c, err := b.class(req.Parameters)
	if err != nil {
		return backends.Capacity{}, err
	}
	if !req.Topology.Within(b.segments()) {
		return backends.Capacity{}, nil
	}
	g, err := b.peekForSpace(ctx, c)
	if err != nil {
		return backends.Capacity{}, err
	}
	s, err := room(g, c)
	if err != nil {
		return backends.Capacity{}, err
	}
	_, data := c.legs()
	return backends.Capacity{
		Available: s.all * g.extent,
		MaxVolume: s.most * g.extent,
		MinVolume: int64(data) * g.extent,
	}, nil
}
