package lvm

import (
	"context"
	"fmt"

	"github.com/csikit/csikit/backends"
)

// A class names a volume group, and that may be changed in the configuration; an
// administrator may move LVs to another one (vgsplit, vgmerge). What is then not in
// the VG of its class is not gone: whoever took it for gone would forget the volume, or
// make a second one of its ID.

// absent is the answer to who asks by ID for what is not in g, which has all of its
// disks: "not found" only when no other VG of the node has it either. One command more,
// for what hardly ever is asked for; nobody has the VG's turn meanwhile, for it looks at
// disks that are none of ours, and one of them may hang.
func (b *Backend) absent(ctx context.Context, g *group, kind, id string) error {
	if kind != kindVolume && kind != kindSnapshot {
		return notFound(kind, id) // what the driver has made for itself goes where it is seen
	}
	class, lv, _ := splitID(id, kind)
	all, err := b.everywhere(ctx)
	if err != nil {
		return fmt.Errorf("%s is not in volume group %s, and whether it is in another is not known: %w", id, g.name, err)
	}
	for _, v := range all {
		switch {
		case v.g.uuid == g.uuid: // made meanwhile
		case v.bad != nil && (v.name == lv || v.says(lv)):
			return v.bad
		case v.ours() && v.own.Class == class && v.lvName() == lv:
			return b.elsewhere(v)
		}
	}
	return notFound(kind, id)
}

// absentGroup is absent for a group snapshot of which no VG of the configuration has a
// member.
func (b *Backend) absentGroup(ctx context.Context, id string) error {
	all, err := b.everywhere(ctx)
	if err != nil {
		return fmt.Errorf("whether another volume group has group snapshot %s is not known: %w", id, err)
	}
	for _, v := range all {
		if !v.inGroup(id) {
			continue
		}
		if v.bad != nil {
			return v.bad
		}
		return b.elsewhere(v)
	}
	return backends.GroupNotFound(id)
}

// elsewhere says of an LV why it is not served.
func (b *Backend) elsewhere(v *volume) error {
	c := b.classes[v.own.Class]
	if c == nil {
		return fmt.Errorf("%w: %s is logical volume %s, and its class %q is not configured on node %s", backends.ErrUnavailable, v.id(), v.path(), v.own.Class, b.o.Node)
	}
	return fmt.Errorf("%w: %s is logical volume %s, and class %s is configured for volume group %s: a class keeps its volume group as long as it has volumes there; give %s a class of its own",
		backends.ErrUnavailable, v.id(), v.path(), c.Name, c.VG, c.VG)
}

// astray refuses a name that an LV has whose class is not configured, or not for this
// VG. It looks at what was read anyway; nil: there is none.
func (b *Backend) astray(g *group, kind, name string) error {
	for _, v := range g.lvs {
		if v.ours() && !b.has(v) && v.own.Kind == kind && v.own.Name == name && v.own.State != stateCreating {
			return b.elsewhere(v)
		}
	}
	return nil
}

// everywhere are this driver's LVs in all VGs of the node, with their tags alone. It
// takes no locks: others may be at work in VGs that are none of ours.
func (b *Backend) everywhere(ctx context.Context) (all []*volume, err error) {
	rows, err := b.tool.rows(ctx, "", "lv", "--readonly", "-o", "vg_name,vg_uuid,lv_name,lv_tags")
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		in := reader{row: r}
		v := &volume{g: &group{name: in.text("vg_name"), uuid: in.text("vg_uuid")}, name: in.text("lv_name"), tags: tagsOf(in.text("lv_tags"))}
		if in.err != nil {
			return nil, in.err
		}
		if v.decodeOwn(b.o.Driver); v.own != nil || v.bad != nil {
			all = append(all, v)
		}
	}
	return all, nil
}

// warnElsewhere tells at the start of LVs that nobody serves any more.
func (b *Backend) warnElsewhere(ctx context.Context) {
	all, err := b.everywhere(ctx)
	if err != nil {
		b.log.Warn("volume groups that are not configured are not looked at", "err", err)
		return
	}
	for _, v := range all {
		if v.ours() && !b.has(v) {
			b.log.Error("a logical volume of this driver is not served", "err", b.elsewhere(v))
		}
	}
}
