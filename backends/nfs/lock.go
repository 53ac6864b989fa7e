package nfs

import (
	"context"
	"errors"
	"syscall"
	"time"
)

// What is being made is made by one process at a time. A controller that lost its lease
// goes on with a copy of which nobody told it to end, and would write into a volume that
// its successor has made ready. idempotency sees the calls of one process alone.

// lockWait is how long a call waits for one that was just ended to let go.
const lockWait = 2 * time.Second

// lock locks a record of what is being made. Without one there is nothing to lock.
func (s *site) lock(ctx context.Context, p, what string) (unlock func(), err error) {
	for end := time.Now().Add(lockWait); ; {
		unlock, err = s.root.Lock(s.at(p))
		switch {
		case err == nil:
			return unlock, nil
		case notExist(err):
			return func() {}, nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, err
		case time.Now().After(end):
			return nil, unavailable("%s is being made by another process", what)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(lockWait / 20):
		}
	}
}

// lockMarker locks a volume that is being made, and reads again what it is now.
func (s *site) lockMarker(ctx context.Context, m *marker) (unlock func(), err error) {
	if has, err := s.anothers(m); err != nil || has {
		return func() {}, err // nothing was made of it
	}
	unlock, err = s.lock(ctx, claimPath(dirClaims, m.SubDir), "volume "+m.Name)
	if err != nil {
		return nil, err
	}
	now, err := s.marker(m.Key)
	if err == nil && (now.State != stateCreating || !now.same(m)) || notExist(err) {
		err = unavailable("volume %q was made, or deleted, by another process meanwhile", m.Name)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	*m = *now
	return unlock, nil
}

// lockSnap is lockMarker for a snapshot. Without one the error is fs.ErrNotExist.
func (s *site) lockSnap(ctx context.Context, key string) (m *snapMark, unlock func(), err error) {
	if m, err = s.snap(key); err != nil {
		return nil, nil, err
	}
	unlock, err = s.lock(ctx, m.pendingPath(), "snapshot "+m.Name)
	if err != nil {
		return nil, nil, err
	}
	if m, err = s.snap(key); err != nil {
		unlock()
		return nil, nil, err
	}
	return m, unlock, nil
}
