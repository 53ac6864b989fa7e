package mounter

import (
	"context"
	"fmt"
)

// Release unstages a volume that was staged when the node went down, and that nobody
// has staged or unstaged since. A CO that lost what it knew in the reboot, or that had
// removed the pod before, never unstages it, and the record would keep the volume from
// being deleted for ever. All that was staged in this boot stays as it is.
func (e *Engine) Release(ctx context.Context, id string) error {
	s := e.records()
	if s == nil {
		return nil
	}
	for _, r := range s.of(id) {
		if err := e.release(ctx, id, r.Path); err != nil {
			return fmt.Errorf("give back volume %q, which was staged at %s before a reboot: %w", id, r.Path, err)
		}
	}
	return nil
}

func (e *Engine) release(ctx context.Context, id, path string) error {
	s, done, err := e.begin(ctx, id, path)
	if err != nil {
		return unfinished(err)
	}
	defer done()
	r := s.get(kindStage, id, path)
	if r == nil || !r.Rebooted || r.Phase != phaseOpening || r.For != "" {
		return nil
	}
	mounts, err := e.mountsAt(path)
	if err != nil || len(mounts) > 0 {
		return err // somebody has mounted something there: whoever did may need it
	}
	e.log.InfoContext(ctx, "volume was staged before a reboot and is deleted now: it is closed", "volume", id, "path", path)
	return e.unstage(ctx, s, id, path)
}
