package loopfile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/csikit/csikit/backends"
)

// maxCuts is how often a group is cut until nobody wrote meanwhile. With reflinks
// that takes less than most writes.
const maxCuts = 100

// errMoments is a group of which nobody knows whether it shows one moment.
var errMoments = fmt.Errorf("%w: several volumes of the group are in use and cannot be frozen (raw devices, or mounts that this process does not see), and are written to while they are cut: close them, or try again when nobody writes", backends.ErrPrecondition)

// atOnce gives the copies what the images hold at one moment.
func (c *cutting) atOnce(ctx context.Context, q *quiet) error {
	for n := 1; ; n++ {
		unwritten, err := c.watch(ctx, q)
		if err != nil {
			return err
		}
		c.meta.Created = time.Now().UTC().Round(time.Microsecond)
		if err := c.fill(ctx, q); err != nil {
			return err
		}
		err = unwritten()
		if !errors.Is(err, errMoments) || n == maxCuts || !c.s.p.reflinks() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
	}
}

func (c *cutting) fill(ctx context.Context, q *quiet) error {
	whole, err := c.reflink()
	if err == nil && !whole {
		err = c.copy(ctx, q)
	}
	return err
}

// watch looks after the volumes that can be written to while the set is cut. One
// of them makes the moment. With two, what was written between their cuts would be
// in the later one, and what was written before it in neither: so nobody may
// write, and unwritten says that nobody did.
func (c *cutting) watch(ctx context.Context, q *quiet) (unwritten func() error, err error) {
	stamps := map[int]stamp{}
	for i, v := range c.locked {
		if len(q.loose) < 2 || !slices.Contains(q.loose, v) {
			continue
		}
		if stamps[i], err = c.s.p.stampNow(ctx, c.srcs[i]); err != nil {
			return nil, ofMoments(err)
		}
	}
	return func() error {
		for i, s := range stamps {
			if err := s.same(c.srcs[i]); err != nil {
				return ofMoments(err)
			}
		}
		return nil
	}, nil
}

// ofMoments makes a write an errMoments.
func ofMoments(err error) error {
	if errors.Is(err, errWritten) {
		err = fmt.Errorf("%w: %w", errMoments, err)
	}
	return err
}
