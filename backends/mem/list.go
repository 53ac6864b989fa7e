package mem

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/csikit/csikit/backends"
)

// ListsPublishedNodes marks the lists as complete.
func (b *Backend) ListsPublishedNodes() {}

// ListVolumes lists by ID. The maps and slices of its volumes are the store's own,
// to be read: copies would be what a long list costs.
func (b *Backend) ListVolumes(ctx context.Context, req backends.ListVolumesRequest) ([]*backends.Volume, string, error) {
	return list(ctx, b, Call{"ListVolumes", req.Page.Token, req}, func() ([]*backends.Volume, string, error) {
		s := b.store
		s.mu.Lock()
		defer s.mu.Unlock()
		ids, next, err := cut(s.volumes, &s.volumeIDs, req.Page, func(v *volume) bool { return !v.half })
		vols, values := make([]*backends.Volume, len(ids)), make([]backends.Volume, len(ids))
		for i, id := range ids {
			s.volumes[id].show(&values[i])
			vols[i] = &values[i]
		}
		return vols, next, err
	})
}

// ListSnapshots lists by ID.
func (b *Backend) ListSnapshots(ctx context.Context, req backends.ListSnapshotsRequest) ([]*backends.Snapshot, string, error) {
	return list(ctx, b, Call{"ListSnapshots", req.Page.Token, req}, func() ([]*backends.Snapshot, string, error) {
		s := b.store
		s.mu.Lock()
		defer s.mu.Unlock()
		ids, next, err := cut(s.snapshots, &s.snapshotIDs, req.Page, func(snap *snapshot) bool {
			return !snap.half && (req.VolumeID == "" || snap.VolumeID == req.VolumeID)
		})
		snaps := make([]*backends.Snapshot, len(ids))
		for i, id := range ids {
			snaps[i] = s.snapshots[id].answer()
		}
		return snaps, next, err
	})
}

// ListVolumeHealth lists the volumes that are ill.
func (b *Backend) ListVolumeHealth(ctx context.Context, req backends.ListVolumeHealthRequest) ([]backends.VolumeHealth, string, error) {
	return list(ctx, b, Call{"ListVolumeHealth", req.Page.Token, req}, func() ([]backends.VolumeHealth, string, error) {
		s := b.store
		s.mu.Lock()
		defer s.mu.Unlock()
		ids, next, err := cut(s.volumes, &s.volumeIDs, req.Page, func(v *volume) bool { return !v.half && len(v.health[""]) > 0 })
		vols := make([]backends.VolumeHealth, len(ids))
		for i, id := range ids {
			vols[i] = backends.VolumeHealth{ID: id, Health: slices.Clone(s.volumes[id].health[""])}
		}
		return vols, next, err
	})
}

// token is what cut gives: the last ID of a page. The list goes on behind it,
// whatever was made or deleted meanwhile, that ID too.
var token = regexp.MustCompile(`^[a-z]-[0-9a-f]{32}$`)

// room is how many IDs a page may have of those that are left.
func room(left, limit int) int {
	if limit > 0 {
		return min(left, limit)
	}
	return left
}

// cut gives one page of the IDs whose entries are wanted, in order.
func cut[T any](set map[string]T, order *[]string, page backends.Page, wanted func(T) bool) (ids []string, next string, err error) {
	if page.Token != "" && !token.MatchString(page.Token) {
		return nil, "", fmt.Errorf("%w: %q", backends.ErrStaleToken, page.Token)
	}
	all := inOrder(set, order)
	start, found := slices.BinarySearch(all, page.Token)
	if found {
		start++
	}
	ids = make([]string, 0, room(len(all)-start, page.Limit))
	for _, id := range all[start:] {
		if !wanted(set[id]) {
			continue
		}
		if page.Limit > 0 && len(ids) == page.Limit {
			return ids, ids[len(ids)-1], nil
		}
		ids = append(ids, id)
	}
	return ids, "", nil
}
