package csidriver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
	"github.com/csikit/csikit/idempotency"
)

// groupController serves the GroupController service.
type groupController struct {
	csi.UnimplementedGroupControllerServer
	*controller
}

func (g *groupController) GroupControllerGetCapabilities(context.Context, *csi.GroupControllerGetCapabilitiesRequest) (*csi.GroupControllerGetCapabilitiesResponse, error) {
	return &csi.GroupControllerGetCapabilitiesResponse{Capabilities: g.features.groupCapabilities()}, nil
}

func (g *groupController) CreateVolumeGroupSnapshot(ctx context.Context, in *csi.CreateVolumeGroupSnapshotRequest) (*csi.CreateVolumeGroupSnapshotResponse, error) {
	req, err := g.groupRequest(in)
	if err != nil {
		return nil, err
	}
	a, keys := asked{message: in}, []idempotency.Key{groupNameKey(req.Name)}
	for _, id := range req.VolumeIDs {
		keys = append(keys, sharedIDKey(id))
	}
	if g.can.GroupSnapshotIDer != nil {
		if a.id, err = g.can.GroupSnapshotIDer.GroupSnapshotID(groupCopy(req)); err != nil {
			return nil, err
		}
		keys = append(keys, groupKey(a.id))
	}
	op := operation("CreateVolumeGroupSnapshot", req.Name, a, keys...)
	group, err := do(ctx, g.Driver, op, func(ctx context.Context) (*backends.GroupSnapshot, error) {
		return g.createGroup(ctx, req, a.id)
	})
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: g.answerGroup(group)}, nil
}

func (g *groupController) groupRequest(in *csi.CreateVolumeGroupSnapshotRequest) (*backends.CreateGroupSnapshotRequest, error) {
	if err := g.validator.check(in); err != nil {
		return nil, err
	}
	if slices.Contains(in.GetSourceVolumeIds(), "") {
		return nil, invalid("source_volume_ids has an empty ID")
	}
	req := pbconv.CreateGroupSnapshot(in)
	req.Fingerprint = fingerprint(req.Parameters)
	return &req, nil
}

// createGroup looks the name up first, and then whether all volumes are there.
func (g *groupController) createGroup(ctx context.Context, req *backends.CreateGroupSnapshotRequest, id string) (*backends.GroupSnapshot, error) {
	group, err := g.findGroup(ctx, req, id)
	if group != nil || err != nil {
		return group, err
	}
	for _, volume := range req.VolumeIDs {
		if _, err := g.volumeToUse(ctx, volume, req.Secrets); err != nil {
			return nil, fmt.Errorf("source_volume_ids: %w", err)
		}
	}
	group, err = g.can.GroupSnapshotter.CreateGroupSnapshot(ctx, groupCopy(req))
	if errors.Is(err, backends.ErrExists) {
		return g.findGroupAgain(ctx, req, id, err)
	}
	if err != nil {
		return nil, aboutGroup(err, "")
	}
	if err := checkGroup(&g.traits, group); err != nil {
		return nil, err
	}
	if !slices.Equal(volumesOf(group), req.VolumeIDs) {
		return nil, badAnswer("group snapshot %q is not of the volumes that were asked for", group.ID)
	}
	return group, nil
}

// findGroup gives the group of that name if it is what is asked for, nil if the
// name is free.
func (g *groupController) findGroup(ctx context.Context, req *backends.CreateGroupSnapshotRequest, id string) (*backends.GroupSnapshot, error) {
	group, err := g.can.GroupSnapshotter.FindGroupSnapshot(ctx, groupCopy(req))
	if gone(err, backends.KindGroup, namesOf(req.Name, id)...) {
		return nil, nil
	}
	if err != nil {
		return nil, unseen(aboutGroup(err, ""), silent)
	}
	if err := checkGroup(&g.traits, group); err != nil {
		return nil, err
	}
	if field, detail := groupDiffers(group, req); field != "" {
		return nil, incompatible("group snapshot", req.Name, field, detail)
	}
	return group, nil
}

// findGroupAgain finds what another replica has made meanwhile.
func (g *groupController) findGroupAgain(ctx context.Context, req *backends.CreateGroupSnapshotRequest, id string, cause error) (*backends.GroupSnapshot, error) {
	group, err := g.findGroup(ctx, req, id)
	if err == nil && group == nil {
		return nil, fmt.Errorf("group snapshot %q is being made by somebody else: %w", req.Name, cause)
	}
	return group, err
}

func groupCopy(req *backends.CreateGroupSnapshotRequest) backends.CreateGroupSnapshotRequest {
	r := *req
	r.Parameters, r.VolumeIDs = maps.Clone(req.Parameters), slices.Clone(req.VolumeIDs)
	return r
}

func (g *groupController) answerGroup(group *backends.GroupSnapshot) *csi.VolumeGroupSnapshot {
	out := pbconv.GroupSnapshot(group)
	if !g.features.snapshotTopology() {
		for _, s := range out.GetSnapshots() {
			s.AccessibleTopology = nil
		}
	}
	return out
}

func (g *groupController) GetVolumeGroupSnapshot(ctx context.Context, in *csi.GetVolumeGroupSnapshotRequest) (*csi.GetVolumeGroupSnapshotResponse, error) {
	if err := g.validator.check(in); err != nil {
		return nil, err
	}
	group, err := g.group(ctx, backends.GroupSnapshotRequest{
		ID:          in.GetGroupSnapshotId(),
		SnapshotIDs: slices.Clone(in.GetSnapshotIds()),
		Secrets:     pbconv.Secrets(in.GetSecrets(), nil),
	})
	if err != nil {
		return nil, err
	}
	return &csi.GetVolumeGroupSnapshotResponse{GroupSnapshot: g.answerGroup(group)}, nil
}

// group looks a group up, and compares its members with those that the CO knows.
func (g *groupController) group(ctx context.Context, req backends.GroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	group, err := g.can.GroupSnapshotter.GroupSnapshot(ctx, req)
	if err != nil {
		return nil, aboutGroup(err, req.ID)
	}
	if err := checkGroup(&g.traits, group); err != nil {
		return nil, err
	}
	if group.ID != req.ID {
		return nil, badAnswer("asked for group snapshot %q, it gave %q", req.ID, group.ID)
	}
	return group, sameMembers(group, req.SnapshotIDs)
}

// sameMembers refuses a list of members that is not the group's. csi-sanity sends
// none (W-5).
func sameMembers(group *backends.GroupSnapshot, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	given := slices.Sorted(slices.Values(ids))
	if !slices.Equal(slices.Compact(given), membersOf(group)) {
		return invalid("snapshot_ids are not the members of group snapshot %q", group.ID)
	}
	return nil
}

func (g *groupController) DeleteVolumeGroupSnapshot(ctx context.Context, in *csi.DeleteVolumeGroupSnapshotRequest) (*csi.DeleteVolumeGroupSnapshotResponse, error) {
	if err := g.validator.check(in); err != nil {
		return nil, err
	}
	req := backends.DeleteGroupSnapshotRequest{
		ID:          in.GetGroupSnapshotId(),
		SnapshotIDs: slices.Clone(in.GetSnapshotIds()),
		Secrets:     pbconv.Secrets(in.GetSecrets(), nil),
	}
	// What goes wrong here is no answer: an equal call may be at work on the group.
	// The operation looks again.
	held, _, err := g.members(ctx, req)
	if err != nil {
		held = req.SnapshotIDs
	}
	op := operation("DeleteVolumeGroupSnapshot", req.ID, asked{message: in, id: req.ID}, groupKeys(req.ID, held)...)
	if err := run(ctx, g.Driver, op, func(ctx context.Context) error { return g.deleteGroup(ctx, req, held) }); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeGroupSnapshotResponse{}, nil
}

// groupKeys hold the group and its members against everything else.
func groupKeys(id string, members []string) []idempotency.Key {
	keys := []idempotency.Key{groupKey(id)}
	for _, id := range members {
		keys = append(keys, snapshotKey(id), readKey(id))
	}
	return keys
}

// members looks up and compares the members, so that they can be held. A group
// that is not there has none but those that the CO names; of one that cannot be
// looked up, because it is half-made, the backend knows them.
func (g *groupController) members(ctx context.Context, req backends.DeleteGroupSnapshotRequest) (ids []string, found bool, err error) {
	group, err := g.group(ctx, backends.GroupSnapshotRequest(req))
	switch {
	case errors.Is(err, backends.ErrUnavailable), gone(err, backends.KindGroup, req.ID):
		return req.SnapshotIDs, false, nil
	case err != nil:
		return nil, false, err
	}
	return membersOf(group), true, nil
}

// deleteGroup looks again, now that the group is held, and with it the members
// that were known before.
func (g *groupController) deleteGroup(ctx context.Context, req backends.DeleteGroupSnapshotRequest, held []string) error {
	ids, found, err := g.members(ctx, req)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if !slices.Contains(held, id) {
			return fmt.Errorf("%w: member %q of group snapshot %q was not known when it was locked", backends.ErrUnavailable, id, req.ID)
		}
	}
	if req.SnapshotIDs = held; found {
		req.SnapshotIDs = ids
	}
	err = g.can.GroupSnapshotter.DeleteGroupSnapshot(ctx, req)
	if err != nil && !gone(err, backends.KindGroup, req.ID) {
		return aboutGroup(err, req.ID)
	}
	return g.membersGone(ctx, req)
}

// membersGone looks whether a member outlived its group: nobody could delete it
// any more. What a CO calls a member and belongs to no group, or to another, is
// none of this group's.
func (g *groupController) membersGone(ctx context.Context, req backends.DeleteGroupSnapshotRequest) error {
	for _, id := range req.SnapshotIDs {
		snap, err := g.snapshot(ctx, id, req.Secrets)
		switch {
		case gone(err, backends.KindSnapshot, id):
		case err != nil:
			return afterwards("group snapshot %q was deleted, and its member cannot be looked up: %w", req.ID, err)
		case snap.GroupID == req.ID:
			return badAnswer("group snapshot %q was deleted, and its member %q is there", req.ID, id)
		}
	}
	return nil
}
