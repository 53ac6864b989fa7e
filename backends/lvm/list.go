package lvm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
)

// ListVolumes lists by ID; a token is the last ID of the page before, and so
// stands for a position that creates and deletes do not move. A VG that is not
// there fails the list: what is left out, the CO takes for gone.
func (b *Backend) ListVolumes(ctx context.Context, req backends.ListVolumesRequest) ([]*backends.Volume, string, error) {
	if err := b.serves(ControllerHalf); err != nil {
		return nil, "", err
	}
	page, next, err := b.page(ctx, kindVolume, "", req.Page, b.peek)
	if err != nil {
		return nil, "", err
	}
	var vols []*backends.Volume
	for _, v := range page {
		vols = append(vols, b.public(v))
	}
	return vols, next, nil
}

// page is a part of the finished LVs of one kind, made of one source or (with "")
// of any.
func (b *Backend) page(ctx context.Context, kind, source string, p backends.Page, look looker) (page []*volume, next string, err error) {
	if p.Token != "" {
		if _, _, ok := splitID(p.Token, kind); !ok {
			return nil, "", fmt.Errorf("%w: %q", backends.ErrStaleToken, p.Token)
		}
	}
	all, err := b.all(ctx, kind, look)
	if err != nil {
		return nil, "", err
	}
	all = slices.DeleteFunc(all, func(v *volume) bool { return source != "" && v.own.Source != source })
	start, found := slices.BinarySearchFunc(all, p.Token, func(v *volume, id string) int { return strings.Compare(v.id(), id) })
	if found {
		start++
	}
	page = all[start:]
	if p.Limit > 0 && len(page) > p.Limit {
		page = page[:p.Limit]
		next = page[p.Limit-1].id()
	}
	return page, next, nil
}

// looker is look or peek.
type looker func(ctx context.Context, c *Class) (*group, error)

// all are the finished LVs of one kind in all VGs, in the order of their IDs: also those
// of classes that are not configured any more. One whose tags cannot be read fails the
// list, as a VG that is not there does, and so do two of one ID.
func (b *Backend) all(ctx context.Context, kind string, look looker) ([]*volume, error) {
	var all []*volume
	for _, c := range b.groups() {
		g, err := look(ctx, c)
		if err != nil {
			return nil, err
		}
		for _, v := range g.lvs {
			switch {
			case v.bad != nil:
				return nil, v.bad
			case v.ours() && v.own.Kind == kind && v.stateOf() == stateReady && v.own.Pod == "":
				all = append(all, v)
			}
		}
	}
	slices.SortFunc(all, func(x, y *volume) int { return strings.Compare(x.id(), y.id()) })
	for i := 1; i < len(all); i++ {
		if all[i].id() == all[i-1].id() {
			return nil, twins(all[i-1], all[i])
		}
	}
	return all, nil
}

// has says whether the class of an LV is one of this process, in this VG.
func (b *Backend) has(v *volume) bool {
	c := b.classes[v.own.Class]
	return c != nil && c.VG == v.g.name
}
