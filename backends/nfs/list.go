package nfs

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
)

// ordered are the configured shares in the order of their volumes' IDs.
func (b *Backend) ordered() []Share {
	shares := slices.Clone(b.o.Shares)
	slices.SortFunc(shares, func(x, y Share) int { return strings.Compare(x.Name+"#", y.Name+"#") })
	return shares
}

// pages lists the records of all shares by ID, so that a token, the last ID of the
// page before, stands for a position that creates and deletes do not move. A share
// that does not answer fails the whole list: to leave it out would say that its
// volumes are gone.
func (b *Backend) pages(ctx context.Context, tag, op string, page backends.Page, volume string, add func(Share, listed)) (next string, err error) {
	if err := b.serves(ControllerHalf); err != nil {
		return "", err
	}
	var after handle
	if page.Token != "" {
		if after, err = parseHandle(page.Token); err != nil || after.tag != tag || after.share.Name == "" {
			return "", fmt.Errorf("%w: %q", backends.ErrStaleToken, page.Token)
		}
	}
	left, last := page.Limit, ""
	for _, s := range b.ordered() {
		in := listIn{where: b.where(), Limit: left, VolumeID: volume}
		switch c := strings.Compare(s.Name+"#", after.share.Name+"#"); {
		case page.Token != "" && c < 0:
			continue
		case page.Token != "" && c == 0:
			in.After = after.key
		}
		if left == 0 {
			in.Limit = 1 // is there any?
		}
		out, err := onShare[listOut](ctx, b, s, "", op, in)
		if err != nil {
			return "", fmt.Errorf("share %s: %w", s, err)
		}
		if left == 0 && len(out.Entries) > 0 {
			return last, nil
		}
		for _, e := range out.Entries {
			add(s, e)
			last = handle{tag: tag, share: s, key: e.Key}.String()
		}
		left -= len(out.Entries)
		if out.More {
			return last, nil
		}
	}
	return "", nil
}

// ListVolumes lists the volumes of the configured shares. One whose marker cannot be
// read is listed by its ID: to leave it out would say that it is gone.
func (b *Backend) ListVolumes(ctx context.Context, req backends.ListVolumesRequest) (vols []*backends.Volume, next string, err error) {
	next, err = b.pages(ctx, volumeTag, opList, req.Page, "", func(s Share, e listed) {
		if e.Marker == nil {
			b.log.Error("volume cannot be read", "share", s.String(), "key", e.Key, "err", e.Why)
			vols = append(vols, &backends.Volume{ID: handle{tag: volumeTag, share: s, key: e.Key}.String()})
			return
		}
		vols = append(vols, b.public(e.Marker, s))
	})
	if err != nil {
		return nil, "", fmt.Errorf("list volumes: %w", err)
	}
	return vols, next, nil
}

// ListSnapshots lists the snapshots of the configured shares. One whose record cannot
// be read is left out, and named in the log.
func (b *Backend) ListSnapshots(ctx context.Context, req backends.ListSnapshotsRequest) (snaps []*backends.Snapshot, next string, err error) {
	next, err = b.pages(ctx, snapshotTag, opSnapList, req.Page, req.VolumeID, func(s Share, e listed) {
		if e.Snap == nil {
			b.log.Error("snapshot cannot be read", "share", s.String(), "key", e.Key, "err", e.Why)
			return
		}
		b.resume(s, e.Snap)
		snaps = append(snaps, b.snapshotOf(e.Snap, handle{share: s}))
	})
	if err != nil {
		return nil, "", fmt.Errorf("list snapshots: %w", err)
	}
	return snaps, next, nil
}

// Capacity is what the file system of a share has free. Without quota a volume may
// use all of it.
func (b *Backend) Capacity(ctx context.Context, req backends.CapacityRequest) (backends.Capacity, error) {
	if err := b.serves(ControllerHalf); err != nil {
		return backends.Capacity{}, err
	}
	p, err := b.parseParams(req.Parameters)
	if err != nil {
		return backends.Capacity{}, err
	}
	s, err := b.resolve(p)
	if err != nil {
		return backends.Capacity{}, err
	}
	free, err := onShare[freeOut](ctx, b, s, "", opFree, freeIn{b.where()})
	if err != nil {
		return backends.Capacity{}, fmt.Errorf("capacity of %s: %w", s, err)
	}
	c := backends.Capacity{Available: free.Available}
	if b.o.Quota != QuotaNone {
		c.MaxVolume, c.MinVolume = free.Total, Traits(b.o).SizeMin
	}
	return c, nil
}

var (
	_ backends.VolumeLister     = (*Backend)(nil)
	_ backends.SnapshotLister   = (*Backend)(nil)
	_ backends.CapacityReporter = (*Backend)(nil)
)
