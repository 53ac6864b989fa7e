package lvm

import (
	"context"
	"fmt"
	"strings"

	"github.com/csikit/csikit/backends"
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
	page, _, err := b.page(ctx, kindVolume, "", p)
	if err != nil {
		return nil, "", err
	}
	for _, v := range page {
		h := b.health(v.g, b.classes[v.own.Class], v)
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
	h := lvHealth(v)
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
