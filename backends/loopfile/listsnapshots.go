package loopfile

import (
	"context"
	"errors"
	"fmt"

	"github.com/csikit/csikit/backends"
)

// ListSnapshots lists by ID, members of groups among them; a token is the last ID
// of the page before, as ListVolumes's is.
//
// A set that cannot be read is left out, and named in the log: unlike a volume it
// cannot be listed by its directory's name, because a snapshot without its volume
// is no answer.
func (b *Backend) ListSnapshots(_ context.Context, req backends.ListSnapshotsRequest) ([]*backends.Snapshot, string, error) {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return nil, "", err
	}
	defer done()
	after := req.Page.Token
	if after != "" {
		if pool, _, _, _, ok := splitSnapshotID(after); !ok || pool != p.info.Name {
			return nil, "", fmt.Errorf("%w: %q", backends.ErrStaleToken, after)
		}
	}
	var snaps []*backends.Snapshot
	more := false
	err = p.eachSet(func(s *set) {
		// All members of a set come after its own ID, and before the next set's.
		if more || s.id() < setOf(after) || s.id() == after {
			return
		}
		if err := s.read(backends.SnapshotNotFound(s.id())); err != nil {
			if !errors.Is(err, backends.ErrNotFound) {
				b.log.Error("snapshot cannot be read", "err", err)
			}
			return
		}
		b.resume(p, s)
		for _, m := range s.meta.Members {
			id := s.memberID(m)
			if id <= after || req.VolumeID != "" && req.VolumeID != m.VolumeID {
				continue
			}
			if more = req.Page.Limit > 0 && len(snaps) == req.Page.Limit; more {
				return
			}
			snaps = append(snaps, b.snapshotOf(s, m))
		}
	})
	if err != nil || !more {
		return snaps, "", err
	}
	return snaps, snaps[len(snaps)-1].ID, nil
}

// setOf is the ID of the set that a snapshot is in.
func setOf(id string) string {
	pool, parent, dir, _, ok := splitSnapshotID(id)
	if !ok {
		return ""
	}
	return pool + "." + parent + "." + dir
}
