package lvm

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
)

// A group snapshot is snapshots with the group's name in their tags, and how many they
// are. They are cut one after the other while what is mounted of their volumes is
// frozen, and made ready one after the other when all are cut: the group, and each of
// its members, exists when the last one is ready. Whoever is killed before leaves
// snapshots that the next call, or the next start, takes away.

var groupName = regexp.MustCompile(`^g-[a-z2-7]{26}$`)

// groupID follows from the name.
func groupID(name string) string { return nameOf("g", name) }

// memberName is the name of a member's snapshot. No CO gives such names: CSI forbids NUL.
func memberName(group, volumeID string) string { return group + "\x00" + volumeID }

// GroupSnapshotID follows from the name.
func (b *Backend) GroupSnapshotID(req backends.CreateGroupSnapshotRequest) (string, error) {
	return groupID(req.Name), nil
}

// members are the LVs of a group, whatever their state.
func (b *Backend) members(ctx context.Context, id string) ([]*volume, error) {
	var all []*volume
	for _, c := range b.groups() {
		g, err := b.look(ctx, c)
		if err != nil {
			return nil, err
		}
		for _, v := range g.lvs {
			switch {
			case !v.inGroup(id):
			case v.bad != nil:
				return nil, v.bad
			case !b.has(v):
				return nil, fmt.Errorf("%w: logical volume %s of group snapshot %s is of class %q, which is not configured for it on node %s",
					backends.ErrUnavailable, v.path(), id, v.own.Class, b.o.Node)
			default:
				all = append(all, v)
			}
		}
	}
	slices.SortFunc(all, func(x, y *volume) int { return strings.Compare(x.id(), y.id()) })
	return all, nil
}

// inGroup says that an LV of this driver names the group, also one whose tags cannot be
// read as a whole.
func (v *volume) inGroup(id string) bool {
	if v.own == nil && v.bad == nil {
		return false
	}
	return slices.ContainsFunc(v.tags, func(t string) bool {
		text, ok := strings.CutPrefix(t, tagGroup)
		raw, err := base64.RawURLEncoding.DecodeString(text)
		return ok && err == nil && groupID(string(raw)) == id
	})
}

// groupState is that of a group with these members: the least advanced one's, and
// deleting when one is.
func groupState(members []*volume) string {
	state := stateReady
	for _, v := range members {
		if v.own.State == stateDeleting {
			return stateDeleting
		}
		if v.own.State == stateCreating {
			state = stateCreating
		}
	}
	return state
}

// stateOf is the state of an LV, which as a member of a group is the group's.
func (v *volume) stateOf() string {
	if v.own.Group == "" {
		return v.own.State
	}
	var members []*volume
	for _, o := range v.g.lvs {
		if o.ours() && o.own.Group == v.own.Group {
			members = append(members, o)
		}
	}
	return groupState(members)
}

// GroupSnapshot looks a group up by ID.
func (b *Backend) GroupSnapshot(ctx context.Context, req backends.GroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	if !groupName.MatchString(req.ID) {
		return nil, backends.GroupNotFound(req.ID)
	}
	all, err := b.members(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, b.absentGroup(ctx, req.ID)
	}
	if s := groupState(all); s != stateReady {
		return nil, fmt.Errorf("%w: group snapshot %s is %s", backends.ErrUnavailable, req.ID, s)
	}
	return b.publicGroup(all), nil
}

// FindGroupSnapshot looks a group up by name.
func (b *Backend) FindGroupSnapshot(ctx context.Context, req backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	all, err := b.members(ctx, groupID(req.Name))
	if err != nil {
		return nil, err
	}
	if len(all) == 0 || groupState(all) != stateReady {
		return nil, backends.GroupNotFound(req.Name)
	}
	return b.publicGroup(all), nil
}

func (b *Backend) publicGroup(members []*volume) *backends.GroupSnapshot {
	first := members[0].own
	g := &backends.GroupSnapshot{ID: groupID(first.Group), Name: first.Group, Created: first.Created, Fingerprint: first.Fingerprint}
	for _, v := range members {
		g.Snapshots = append(g.Snapshots, *b.publicSnapshot(v))
	}
	return g
}

// CreateGroupSnapshot cuts several volumes of one volume group at one moment.
func (b *Backend) CreateGroupSnapshot(ctx context.Context, req backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	if err := b.serves(ControllerHalf); err != nil {
		return nil, err
	}
	if err := checkName(req.Name, req.Fingerprint); err != nil {
		return nil, err
	}
	id := groupID(req.Name)
	end, err := b.begin(ctx, id)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := b.clearGroup(ctx, id); err != nil {
		return nil, err
	}
	plans, err := b.groupPlans(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := b.cutGroup(ctx, plans); err != nil {
		return nil, b.groupLeft(ctx, id, fmt.Errorf("create group snapshot %q: %w", req.Name, err))
	}
	g, err := b.GroupSnapshot(context.WithoutCancel(ctx), backends.GroupSnapshotRequest{ID: id})
	if err != nil || len(g.Snapshots) != len(plans) {
		return nil, fmt.Errorf("%w: group snapshot %q is not whole after it was made: %w", backends.ErrUnavailable, req.Name, firstOf(err, errNoReason))
	}
	return g, nil
}

// clearGroup takes away what an earlier call left of a group.
func (b *Backend) clearGroup(ctx context.Context, id string) error {
	all, err := b.members(ctx, id)
	if err != nil || len(all) == 0 {
		return err
	}
	switch groupState(all) {
	case stateReady:
		return fmt.Errorf("%w: group snapshot %q", backends.ErrExists, all[0].own.Group)
	case stateDeleting:
		return fmt.Errorf("%w: group snapshot %s is still being deleted", backends.ErrPending, id)
	}
	return b.eraseMembers(ctx, all)
}

// groupPlans are the snapshots of a group.
func (b *Backend) groupPlans(ctx context.Context, req backends.CreateGroupSnapshotRequest) ([]*plan, error) {
	var plans []*plan
	created := b.now()
	for _, id := range slices.Compact(slices.Sorted(slices.Values(req.VolumeIDs))) {
		c, origin, err := b.ready(ctx, id, kindVolume)
		if err != nil {
			return nil, err
		}
		space, err := snapshotSpace(req.Parameters, origin)
		if err != nil {
			return nil, err
		}
		p := &plan{c: c, size: origin.size, origin: origin, space: space, m: meta{
			Class: c.Name, Kind: kindSnapshot, Name: memberName(req.Name, id), State: stateCreating, Fingerprint: req.Fingerprint,
			Source: id, Created: created, lineage: lineage{Group: req.Name},
		}}
		if err := p.inherit(origin); err != nil {
			return nil, err
		}
		if plans = append(plans, p); p.c.VG != plans[0].c.VG {
			return nil, fmt.Errorf("%w: volumes %s and %s are in different volume groups, %s and %s", backends.ErrPrecondition,
				plans[0].m.Source, id, plans[0].c.VG, p.c.VG)
		}
	}
	if len(plans) == 0 {
		return nil, fmt.Errorf("%w: no volumes", backends.ErrInvalid)
	}
	for _, p := range plans {
		p.m.Members = len(plans)
	}
	return plans, nil
}

// maxCuts is how often a group of devices that cannot be frozen is cut until nobody
// wrote meanwhile.
const maxCuts = 3

// cutGroup makes the snapshots, and when all are there makes them ready.
func (b *Backend) cutGroup(ctx context.Context, plans []*plan) error {
	for n := 1; ; n++ {
		err := b.cutAtOnce(ctx, plans)
		if !errors.Is(err, errMoments) || n == maxCuts {
			return err
		}
		if err := b.eraseGroup(ctx, groupID(plans[0].m.Group)); err != nil {
			return err
		}
	}
}

func (b *Backend) cutAtOnce(ctx context.Context, plans []*plan) error {
	leave, err := b.turn(ctx, plans[0].c)
	if err != nil {
		return err
	}
	defer leave()
	vols, err := b.admitGroup(ctx, plans)
	if err != nil {
		return err
	}
	q, err := b.quiesce(ctx, vols)
	if err == nil {
		err = b.cutQuiet(ctx, plans)
	}
	if err == nil {
		err = b.unwritten(q)
	}
	// Who was let go on before his time wrote while others were still to be cut.
	if err := errors.Join(err, q.set.End()); err != nil {
		return err
	}
	b.step("group:cut")
	for _, p := range plans {
		if err := b.settle(ctx, p); err != nil {
			return err
		}
	}
	for _, p := range plans {
		if err := b.commit(ctx, p); err != nil {
			return err
		}
		b.step("group:member ready")
	}
	return nil
}

// cutQuiet cuts one after the other.
func (b *Backend) cutQuiet(ctx context.Context, plans []*plan) error {
	g := &group{name: plans[0].c.VG, extent: plans[0].origin.g.extent}
	for _, p := range plans {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := b.lvcreate(ctx, p, g); err != nil {
			return err
		}
		b.step("group:member cut")
	}
	return nil
}

// admitGroup refuses what there is no room for all together.
func (b *Backend) admitGroup(ctx context.Context, plans []*plan) (vols []*volume, err error) {
	g, err := b.look(ctx, plans[0].c)
	if err != nil {
		return nil, err
	}
	thick := int64(0)
	promised := map[string]int64{}
	for _, p := range plans {
		if err := p.refind(g); err != nil {
			return nil, err
		}
		v := p.origin
		vols = append(vols, v)
		if _, err := taken(g, p); err != nil {
			return nil, err
		}
		if v.pool == "" {
			thick += g.extentsOf(p.space)
			if err := admitSpace(g, p.c, thick); err != nil {
				return nil, err
			}
			continue
		}
		woken, err := b.readyPool(ctx, g, p.c)
		if err == nil && woken {
			g, err = b.look(ctx, p.c)
		}
		if err != nil {
			return nil, err
		}
		promised[v.pool] += v.size / g.extent
		if err := admit(g, p.c, promised[v.pool]); err != nil {
			return nil, err
		}
	}
	return vols, nil
}

// groupLeft takes away what a failed call left. Only when nothing is left may the
// answer be a final one.
func (b *Backend) groupLeft(ctx context.Context, id string, failed error) error {
	if err := b.eraseGroup(context.WithoutCancel(ctx), id); err != nil {
		return fmt.Errorf("%w: %w, and then: %w", backends.ErrUnavailable, failed, err)
	}
	if noSpace(failed) {
		return fmt.Errorf("%w: %w", backends.ErrNoSpace, failed)
	}
	return classify(failed)
}

func (b *Backend) eraseGroup(ctx context.Context, id string) error {
	all, err := b.members(ctx, id)
	if err != nil {
		return err
	}
	if len(all) > 0 && groupState(all) == stateReady {
		return fmt.Errorf("%w: group snapshot %s is ready", backends.ErrUnavailable, id)
	}
	return b.eraseMembers(ctx, all)
}

// eraseMembers takes snapshots away, of which nobody sees any any more, or yet. First
// all are marked: one that is left alone and ready would look like a group.
func (b *Backend) eraseMembers(ctx context.Context, all []*volume) error {
	for _, v := range all {
		if _, _, err := b.mark(ctx, v.id(), kindSnapshot, []func(*volume) error{sameAs(v)}); gone(err) != nil {
			return err
		}
		b.step("group:member marked")
	}
	for _, v := range all {
		if err := gone(b.delete(ctx, v.id(), kindSnapshot, sameAs(v))); err != nil {
			return err
		}
		b.step("group:member gone")
	}
	return nil
}

// finishGroup takes away what is left of a group, after a start.
func (b *Backend) finishGroup(id string) {
	end, err := b.begin(b.ctx, id)
	if err != nil {
		return
	}
	defer end()
	all, err := b.members(b.ctx, id)
	if err == nil && len(all) > 0 && groupState(all) != stateReady {
		err = b.eraseMembers(b.ctx, all)
	}
	if err != nil && b.ctx.Err() == nil {
		b.log.Warn("group snapshot is not deleted yet", "id", id, "err", err)
	}
}

// DeleteGroupSnapshot marks all members as being deleted, with which the group is gone,
// and deletes them then.
func (b *Backend) DeleteGroupSnapshot(ctx context.Context, req backends.DeleteGroupSnapshotRequest) error {
	if err := b.serves(ControllerHalf); err != nil {
		return err
	}
	if !groupName.MatchString(req.ID) {
		return backends.GroupNotFound(req.ID)
	}
	end, err := b.begin(ctx, req.ID)
	if err != nil {
		return err
	}
	defer end()
	all, err := b.members(ctx, req.ID)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return b.absentGroup(ctx, req.ID)
	}
	if err := b.eraseMembers(ctx, all); err != nil {
		return fmt.Errorf("delete group snapshot %s: %w", req.ID, err)
	}
	var uuids []string
	for _, v := range all {
		uuids = append(uuids, v.uuid)
	}
	b.orphans(ctx, uuids...)
	return nil
}
