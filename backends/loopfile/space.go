package loopfile

import (
	"context"
	"fmt"
	"path"
	"time"

	"github.com/csikit/csikit/backends"
)

// space is what a pool has left.
type space struct {
	free     int64   // on the file system, less the reserve
	promised int64   // Σ(size − allocated + shared) over all volumes
	ratio    float64 // how much may be promised for each free byte
}

// thin is the size of the biggest thin volume that may be made now.
func (s space) thin() int64 {
	return max(0, int64(min(float64(s.free)*s.ratio, maxSize))-s.promised)
}

// thick likewise: it takes its space at once, and what was promised must still
// be covered by what remains.
func (s space) thick() int64 {
	return max(0, s.free-int64(float64(s.promised)/s.ratio))
}

// space measures the pool. It stats every volume, those too that are being made:
// a thick one counts as well, for what was punched out of it is still promised.
func (b *Backend) space(p *pool) (space, error) {
	f, err := p.facts()
	if err != nil {
		return space{}, unavailable(p.dir, err)
	}
	reserve := b.o.Reserve
	switch reserve {
	case 0:
		reserve = f.Total / 50
	case -1:
		reserve = 0
	}
	s := space{free: max(0, f.Free-reserve), ratio: b.o.Overcommit}
	if p.reflinks() {
		s.promised = b.shared.total(p)
	}
	for _, parent := range []string{volumesDir, tmpDir} {
		names, err := readNames(p.root, parent)
		if err != nil {
			return s, unavailable(p.dir, err)
		}
		for _, n := range names {
			fi, err := p.root.Lstat(path.Join(parent, n, imgFile))
			if err != nil {
				continue // moved meanwhile, or none of ours
			}
			s.promised += max(0, fi.Size()-allocated(fi))
		}
	}
	return s, nil
}

// Capacity is what CreateVolume would grant now.
func (b *Backend) Capacity(_ context.Context, req backends.CapacityRequest) (backends.Capacity, error) {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return backends.Capacity{}, err
	}
	defer done()
	m, err := b.params(req.Parameters, nil)
	if err != nil {
		return backends.Capacity{}, err
	}
	c := backends.Capacity{MinVolume: Traits(b.o).SizeMin}
	for _, use := range req.Capabilities {
		c.MinVolume = max(c.MinVolume, use.LeastSize())
	}
	if !req.Topology.Within(b.segments()) {
		return c, nil
	}
	s, err := b.space(p)
	if err != nil {
		return c, err
	}
	c.Available = s.thin()
	if m.thick() {
		c.Available = s.thick()
	}
	c.Available = c.Available / sizeStep * sizeStep
	c.MaxVolume = c.Available
	return c, nil
}

// admit waits for its turn and grants size bytes, or says ErrNoSpace. Space is
// measured and taken by one call at a time, until release.
func (b *Backend) admit(ctx context.Context, p *pool, size int64, thick bool) (release func(), err error) {
	select {
	case b.alloc <- struct{}{}:
		release = func() { <-b.alloc }
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	err = b.grant(p, size, thick)
	if err != nil && b.purges.busy() {
		// What is being deleted will be free in a moment.
		backends.Progress(ctx, "wait for deleted volumes to be freed")
		b.purges.waitFor(ctx, purgeWait)
		err = b.grant(p, size, thick)
		if err != nil && b.purges.busy() {
			err = fmt.Errorf("%w: space is being freed: %w", backends.ErrUnavailable, err)
		}
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// purgeWait is how long a call waits for space that is being freed.
const purgeWait = 2 * time.Second

func (b *Backend) grant(p *pool, size int64, thick bool) error {
	s, err := b.space(p)
	if err != nil {
		return err
	}
	left := s.thin()
	if thick {
		left = s.thick()
	}
	if size > left {
		return fmt.Errorf("%w: %d bytes asked for, %d left in %s (%d free above the reserve, %d promised to volumes)",
			backends.ErrNoSpace, size, left, p.dir, s.free, s.promised)
	}
	return nil
}
