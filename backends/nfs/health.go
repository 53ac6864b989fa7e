package nfs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
)

// What the controller says of a volume. docs/nfs.md lists them.
const (
	reasonMissing = "DirectoryMissing"
	reasonForeign = "NotTheVolume"
	reasonSize    = "OverSize"
)

// VolumeHealth looks at a volume's directory from the controller. A server that does
// not answer is a condition of the volume, and nothing of it is touched then.
func (b *Backend) VolumeHealth(ctx context.Context, req backends.VolumeRequest) ([]backends.Health, error) {
	h, err := b.open(req.ID, req.Secrets)
	if err != nil {
		return nil, err
	}
	if h.legacy() {
		_, err := b.legacyVolume(ctx, req.ID, h)
		return unreachable(ctx, err)
	}
	out, err := onShare[lookOut](ctx, b, h.share, "", opInspect, lookIn{b.where(), h.key})
	if err != nil {
		return unreachable(ctx, err)
	}
	if out.Marker == nil {
		return nil, backends.VolumeNotFound(req.ID)
	}
	return b.healthOf(req.ID, out), nil
}

// unreachable is the health of a volume that nobody can look at.
func unreachable(ctx context.Context, err error) ([]backends.Health, error) {
	if err == nil || ctx.Err() != nil || !errors.Is(err, backends.ErrUnavailable) {
		return nil, err
	}
	return []backends.Health{{Status: backends.HealthInaccessible, Reason: reasonServer, Message: err.Error()}}, nil
}

func (b *Backend) healthOf(id string, out lookOut) []backends.Health {
	var list []backends.Health
	switch out.Trouble {
	case "":
	case reasonMissing:
		list = append(list, backends.Health{Status: backends.HealthDataLoss, Reason: out.Trouble, Message: out.Detail})
	default:
		list = append(list, backends.Health{Status: backends.HealthInaccessible, Reason: out.Trouble, Message: out.Detail})
	}
	if u, ok := b.usage.get(id); ok && u.bytes > out.Marker.Size && out.Marker.Size > 0 {
		list = append(list, backends.Health{
			Status: backends.HealthDegraded, Reason: reasonSize,
			Message: fmt.Sprintf("it holds %d bytes, and its size is %d (measured %s)", u.bytes, out.Marker.Size, u.when.UTC().Format(time.RFC3339)),
		})
	}
	return list
}

// ListVolumeHealth lists the volumes of the configured shares with which something is
// wrong. A page is one of ListVolumes without the healthy ones.
func (b *Backend) ListVolumeHealth(ctx context.Context, req backends.ListVolumeHealthRequest) (vols []backends.VolumeHealth, next string, err error) {
	all, next, err := b.ListVolumes(ctx, backends.ListVolumesRequest{Page: req.Page})
	if err != nil {
		return nil, "", err
	}
	for _, v := range all {
		h, err := b.VolumeHealth(ctx, backends.VolumeRequest{ID: v.ID, Secrets: req.Secrets})
		switch {
		case errors.Is(err, backends.ErrNotFound): // deleted meanwhile
		case err != nil:
			return nil, "", err
		case len(h) > 0:
			vols = append(vols, backends.VolumeHealth{ID: v.ID, Health: h})
		}
	}
	return vols, next, nil
}

// usages is what QuotaGuard has measured, by volume.
type usages struct {
	mu sync.Mutex
	m  map[string]measured
}

type measured struct {
	bytes int64
	when  time.Time // when it was begun
}

func (u *usages) get(id string) (measured, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	m, ok := u.m[id]
	return m, ok
}

// set notes a measurement, unless one that was begun later has ended before it.
func (u *usages) set(id string, m measured) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.m == nil {
		u.m = map[string]measured{}
	}
	if !u.m[id].when.After(m.when) {
		u.m[id] = m
	}
}

func (u *usages) forget(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.m, id)
}

// guardEvery is how long the guard rests between two rounds.
const guardEvery = time.Hour

// startGuard measures all volumes, again and again.
func (b *Backend) startGuard() {
	if b.o.Quota != QuotaGuard {
		return
	}
	b.wg.Go(func() {
		for {
			for _, s := range b.o.Shares {
				if err := b.measureShare(b.ctx, s); err != nil && b.ctx.Err() == nil {
					b.log.Warn("volumes are not measured", "share", s.String(), "err", err)
				}
			}
			select {
			case <-time.After(guardEvery):
			case <-b.ctx.Done():
				return
			}
		}
	})
}

func (b *Backend) measureShare(ctx context.Context, s Share) error {
	for after := ""; ; {
		out, err := onShare[listOut](ctx, b, s, "", opList, listIn{where: b.where(), After: after, Limit: 1000})
		if err != nil {
			return err
		}
		for _, e := range out.Entries {
			after = e.Key
			if e.Marker == nil {
				continue
			}
			if err := b.measure(ctx, s, e.Key); err != nil {
				return err
			}
		}
		if !out.More {
			return nil
		}
	}
}

// measure measures one volume.
func (b *Backend) measure(ctx context.Context, s Share, key string) error {
	begun := time.Now()
	out, err := onShare[lookOut](ctx, b, s, "guard", opUsage, lookIn{b.where(), key})
	if err != nil || out.Marker == nil || out.Trouble != "" {
		return err
	}
	id := handle{tag: volumeTag, share: s, key: key}.String()
	b.usage.set(id, measured{out.Bytes, begun})
	if out.Bytes > out.Marker.Size && out.Marker.Size > 0 {
		b.log.Warn("volume holds more than its size", "id", id, "bytes", out.Bytes, "size", out.Marker.Size)
	}
	return nil
}

var (
	_ backends.HealthChecker = (*Backend)(nil)
	_ backends.HealthLister  = (*Backend)(nil)
)
