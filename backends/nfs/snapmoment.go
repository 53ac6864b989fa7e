package nfs

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/csikit/csikit/backends/nfs/internal/tree"
)

// unmoved tells whether an open directory still has its name.
func (s *site) unmoved(d *tree.Root, p string) error {
	held, err := d.Stat()
	if err != nil {
		return err
	}
	if now, err := s.root.Lstat(p); err != nil || now.Ino != held.Ino {
		return unavailable("%q was moved while it was copied: %w", p, errors.Join(err, syscall.ESTALE))
	}
	return nil
}

// moment is when a snapshot with consistency=volume was asked for, by the clock of the
// share: when its record was made. Every file that was changed later is known by that. It
// waits until that clock has gone on: what is written at the same tick comes before the
// first file is copied, too, and not between two of them.
func (s *site) moment(ctx context.Context, m *snapMark) (time.Time, error) {
	if !m.Still {
		return time.Time{}, nil
	}
	info, err := s.root.Lstat(s.at(snapPath(m.Key)))
	if err != nil {
		return time.Time{}, err
	}
	tick := 20 * time.Millisecond
	if info.Changed().Nanosecond() == 0 {
		tick = 1100 * time.Millisecond // a file system that knows seconds alone
	}
	select {
	case <-time.After(tick):
		return info.Changed(), nil
	case <-ctx.Done():
		return time.Time{}, context.Cause(ctx)
	}
}
