package lvm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit"
)

// VolumeHealth says what lvm and the kernel report of the volume and of its pool.
// A VG that lacks disks is no error here as long as the volume is in its metadata:
// that is what the caller wants to hear.
func (b *Backend) VolumeHealth(ctx context.Context, req backends.VolumeRequest) ([]backends.Health, error) {
	c, v, err := b.volume(ctx, req.ID, kindVolume)
	if err != nil {
		return nil, err
	}
	return b.health(v.g, c, v), nil
}

// ListVolumeHealth lists the volumes that are not healthy.
func (b *Backend) ListVolumeHealth(ctx context.Context, req backends.ListVolumeHealthRequest) ([]backends.VolumeHealth, string, error) {
	p := req.Page
	limit := p.Limit
	var list []backends.VolumeHealth
	p.Limit = 0
	page, _, err := b.page(ctx, kindVolume, "", p, b.look)
	if err != nil {
		return nil, "", err
	}
	for _, v := range page {
		var h []backends.Health
		if b.has(v) {
			h = b.health(v.g, b.classes[v.own.Class], v)
		} else {
			h = []backends.Health{{Status: backends.HealthInaccessible, Reason: "NotConfigured", Message: b.elsewhere(v).Error()}}
		}
		if len(h) == 0 {
			continue
		}
		if limit > 0 && len(list) == limit {
			return list, list[limit-1].ID, nil
		}
		list = append(list, backends.VolumeHealth{ID: v.id(), Health: h})
	}
	return list, "", nil
}

func (b *Backend) health(g *group, c *Class, v *volume) []backends.Health {
	h := append(lvHealth(v), snapshotHealth(g, v)...)
	if v.pool == "" {
		return h
	}
	for _, p := range g.lvs {
		if p.name == v.pool {
			h = append(h, poolHealth(p, c)...)
		}
	}
	return h
}

func lvHealth(v *volume) (h []backends.Health) {
	add := func(s backends.HealthStatus, reason, format string, args ...any) {
		h = append(h, backends.Health{Status: s, Reason: reason, Message: fmt.Sprintf(format, args...)})
	}
	raid := strings.Contains(v.layout, "raid")
	switch {
	case v.health == "":
	case strings.Contains(v.health, "partial") && raid, strings.Contains(v.health, "refresh needed"), strings.Contains(v.health, "mismatches exist"):
		add(backends.HealthDegraded, "RAIDDegraded", "lvm reports %q of %s", v.health, v.path())
	case strings.Contains(v.health, "partial"), strings.Contains(v.health, "failed"):
		add(backends.HealthInaccessible, "DisksMissing", "lvm reports %q of %s", v.health, v.path())
	default:
		add(backends.HealthDegraded, "LVMHealth", "lvm reports %q of %s", v.health, v.path())
	}
	if raid && v.active && v.sync >= 0 && v.sync < 100 {
		add(backends.HealthDegraded, "RAIDSyncing", "%s is in sync to %.2f %%", v.path(), v.sync)
	}
	return h
}

// The percentages from which a pool is worth a word, before nothing can be created
// in it any more.
const (
	poolDataWarn = 80
	poolMetaWarn = 70
)

func poolHealth(p *volume, c *Class) (h []backends.Health) {
	add := func(s backends.HealthStatus, reason, format string, args ...any) {
		h = append(h, backends.Health{Status: s, Reason: reason, Message: fmt.Sprintf(format, args...)})
	}
	switch {
	case strings.Contains(p.health, "out_of_data"):
		add(backends.HealthInaccessible, "ThinPoolFull", "thin pool %s is full: what is written fails", p.path())
	case p.health != "":
		add(backends.HealthInaccessible, "ThinPoolFailed", "lvm reports %q of thin pool %s", p.health, p.path())
	case p.data >= poolDataWarn:
		add(backends.HealthDegraded, "ThinPoolNearlyFull", "thin pool %s is filled to %.2f %%; nothing is created from %.0f %% on", p.path(), p.data, c.DataLimit)
	}
	if p.meta >= poolMetaWarn {
		add(backends.HealthDegraded, "ThinPoolMetadataNearlyFull", "the metadata of thin pool %s is filled to %.2f %%; nothing is created from %.0f %% on", p.path(), p.meta, c.MetaLimit)
	}
	return h
}

// NodeVolumeHealth says whether the I/O limits of an open volume hold: a cgroup that
// was made anew has none.
func (b *Backend) NodeVolumeHealth(ctx context.Context, req backends.NodeHealthRequest) ([]backends.Health, error) {
	_, v, err := b.ready(ctx, req.ID, kindVolume)
	if err != nil {
		return nil, err
	}
	want := limits(v.own.Mutable)
	path, err := b.kernel.device(v.dmUUID())
	if b.throttle == nil || path == "" || err != nil || want == (iolimit.Limits{}) {
		return nil, err
	}
	dev, err := b.kernel.number(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	have, err := b.throttle.Get(dev)
	text := fmt.Sprintf("has %q", have)
	switch {
	case err != nil:
		text = err.Error()
	case have == want:
		return nil, nil
	}
	return []backends.Health{{
		Status: backends.HealthDegraded, Reason: "LimitsNotApplied",
		Message: fmt.Sprintf("%s is to have %q in cgroup %s: %s; restart the driver, or modify the volume", path, want, b.o.Cgroup, text),
	}}, nil
}

// StorageHealth says what is wrong with the VGs and pools, as this node sees them.
func (b *Backend) StorageHealth(ctx context.Context, _ backends.StorageHealthRequest) (h []backends.StorageHealth, _ error) {
	for _, c := range b.groups() {
		g, missing, err := b.lookPartial(ctx, c)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			h = append(h, backends.StorageHealth{Status: backends.StorageUnreachable, Reason: "VolumeGroupUnavailable", Message: err.Error()})
			continue
		case missing != nil:
			h = append(h, backends.StorageHealth{Status: backends.StorageDegraded, Reason: "DisksMissing", Message: missing.Error()})
		}
		h = append(h, b.poolsHealth(g)...)
	}
	return oneOfEach(h), nil
}

// poolsHealth is what is wrong with the pools of classes in a VG.
func (b *Backend) poolsHealth(g *group) (h []backends.StorageHealth) {
	seen := map[string]bool{}
	for _, c := range b.order {
		if !c.thin() || c.VG != g.name || seen[c.ThinPool] {
			continue
		}
		seen[c.ThinPool] = true
		p, err := pool(g, c)
		if errors.Is(err, errNoPool) && c.PoolSize > 0 {
			continue
		}
		if err != nil {
			h = append(h, backends.StorageHealth{Status: backends.StorageDegraded, Reason: "ThinPoolUnusable", Message: err.Error()})
			continue
		}
		for _, bad := range poolHealth(p, c) {
			h = append(h, backends.StorageHealth{Status: backends.StorageDegraded, Reason: bad.Reason, Message: bad.Message})
		}
	}
	return h
}

// oneOfEach has one entry for each status and reason, with all that was to be said.
func oneOfEach(list []backends.StorageHealth) (h []backends.StorageHealth) {
	for _, n := range list {
		i := slices.IndexFunc(h, func(o backends.StorageHealth) bool { return o.Status == n.Status && o.Reason == n.Reason })
		if i < 0 {
			h = append(h, n)
			continue
		}
		h[i].Message += "; " + n.Message
	}
	return h
}
