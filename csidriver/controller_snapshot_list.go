package csidriver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

func (c *controller) ListSnapshots(ctx context.Context, in *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	req := backends.ListSnapshotsRequest{VolumeID: in.GetSourceVolumeId(), Secrets: pbconv.Secrets(in.GetSecrets(), nil)}
	if id := in.GetSnapshotId(); id != "" {
		if in.GetStartingToken() != "" {
			return nil, backends.ErrStaleToken // there is no second page
		}
		return c.listOne(ctx, id, req)
	}
	list := listing[*csi.ListSnapshotsResponse]{
		pager: &c.snapshotPages,
		name:  "ListSnapshots of " + req.VolumeID,
		page: func(page backends.Page) (*csi.ListSnapshotsResponse, error) {
			req.Page = page
			return c.listSnapshots(ctx, req)
		},
		look: func(r *csi.ListSnapshotsResponse) (int, *string) { return len(r.Entries), &r.NextToken },
	}
	return list.answer(ctx, in.GetStartingToken(), in.GetMaxEntries())
}

// listOne answers a list of one snapshot by its ID, or of none.
func (c *controller) listOne(ctx context.Context, id string, req backends.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	snap, err := c.snapshot(ctx, id, req.Secrets)
	switch {
	case gone(err, backends.KindSnapshot, id):
		return &csi.ListSnapshotsResponse{}, nil
	case err != nil:
		return nil, err
	case req.VolumeID != "" && req.VolumeID != snap.VolumeID:
		return &csi.ListSnapshotsResponse{}, nil
	}
	return &csi.ListSnapshotsResponse{Entries: []*csi.ListSnapshotsResponse_Entry{{Snapshot: c.answerSnapshot(snap)}}}, nil
}

// listSnapshots answers one page. Whatever the backend makes of the volume, only
// snapshots of it are sent on.
func (c *controller) listSnapshots(ctx context.Context, req backends.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	snaps, next, err := c.can.SnapshotLister.ListSnapshots(ctx, req)
	if err != nil {
		return nil, aboutSnapshot(err)
	}
	if err := checkPage(req.Page, len(snaps), next); err != nil {
		return nil, err
	}
	resp := &csi.ListSnapshotsResponse{NextToken: next, Entries: make([]*csi.ListSnapshotsResponse_Entry, 0, len(snaps))}
	for _, s := range snaps {
		if err := checkSnapshot(&c.traits, s); err != nil {
			return nil, err
		}
		if req.VolumeID == "" || req.VolumeID == s.VolumeID {
			resp.Entries = append(resp.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: c.answerSnapshot(s)})
		}
	}
	return resp, nil
}
