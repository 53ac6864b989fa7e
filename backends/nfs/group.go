package nfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/csikit/csikit/backends"
)

// Names of tasks.
const (
	opSetFind = "set-find"
	opSetSave = "set-save"
	opSetDrop = "set-drop"
)

const dirGroups = "g"

// setMark is the record of a group snapshot: the hook's, with a record of each
// member.
type setMark struct {
	Version     int       `json:"version"`
	Nonce       string    `json:"nonce"`
	Key         string    `json:"key"`
	Name        string    `json:"name"`
	Members     []string  `json:"members"` // keys
	Fingerprint string    `json:"fingerprint,omitempty"`
	Created     time.Time `json:"created"`
	Ready       bool      `json:"ready"`
}

func setPath(key string) string { return dirGroups + "/" + key + ".json" }

type setIn struct {
	where
	Set setMark `json:"set"`
}

type setOut struct {
	Set   *setMark   `json:"set,omitempty"`
	Snaps []snapMark `json:"snaps,omitempty"`
}

func taskSetFind(_ context.Context, s *site, in setIn) (out setOut, err error) {
	if err := s.need(); err != nil {
		return out, err
	}
	var m setMark
	err = s.read(setPath(in.Set.Key), &m)
	if notExist(err) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	if m.Version != markerVersion || m.Key != in.Set.Key {
		return out, unavailable("the record of group %s is damaged, or of another version", in.Set.Key)
	}
	out.Set = &m
	for _, key := range m.Members {
		switch snap, err := s.snap(key); {
		case notExist(err):
		case err != nil:
			return out, err
		default:
			out.Snaps = append(out.Snaps, *snap)
		}
	}
	return out, nil
}

func taskSetSave(_ context.Context, s *site, in setIn) (bool, error) {
	if err := s.need(); err != nil {
		return false, err
	}
	if err := s.root.Mkdir(s.at(dirGroups), 0o700); err != nil && !exists(err) {
		return false, err
	}
	in.Set.Version, in.Set.Nonce = markerVersion, randomName()
	if err := s.write(setPath(in.Set.Key), in.Set); err != nil {
		return false, err
	}
	s.step("nfs.set.saved")
	return true, nil
}

func taskSetDrop(_ context.Context, s *site, in setIn) (bool, error) {
	if err := s.need(); err != nil {
		return false, err
	}
	return true, s.erase(setPath(in.Set.Key))
}

// groupPlan is a CreateGroupSnapshotRequest, read.
func (b *Backend) groupPlan(req backends.CreateGroupSnapshotRequest) (handle, []handle, error) {
	var vols []handle
	for _, id := range req.VolumeIDs {
		h, err := b.open(id, req.Secrets)
		if err != nil {
			return handle{}, nil, err
		}
		if h.legacy() {
			return handle{}, nil, fmt.Errorf("%w: volume %s is of csi-driver-nfs, and in no group", backends.ErrPrecondition, id)
		}
		if len(vols) > 0 && !h.share.same(vols[0].share) {
			return handle{}, nil, fmt.Errorf("%w: volumes %s and %s are on different shares", backends.ErrPrecondition, req.VolumeIDs[0], id)
		}
		vols = append(vols, h)
	}
	if len(vols) == 0 {
		return handle{}, nil, fmt.Errorf("%w: a group of no volumes", backends.ErrInvalid)
	}
	h := handle{tag: groupTag, share: vols[0].share, key: keyOf(req.Name)}
	return h, vols, h.fits()
}

// GroupSnapshotID is pure.
func (b *Backend) GroupSnapshotID(req backends.CreateGroupSnapshotRequest) (string, error) {
	h, _, err := b.groupPlan(req)
	return h.String(), err
}

// FindGroupSnapshot looks a group up by name, on the share of its volumes.
func (b *Backend) FindGroupSnapshot(ctx context.Context, req backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	h, _, err := b.groupPlan(req)
	if err != nil {
		return nil, err
	}
	out, err := b.set(ctx, h)
	if err != nil {
		return nil, err
	}
	if out.Set == nil || !out.Set.Ready {
		return nil, backends.GroupNotFound(req.Name)
	}
	return b.groupOf(out, h), nil
}

func (b *Backend) set(ctx context.Context, h handle) (setOut, error) {
	return onShare[setOut](ctx, b, h.share, "", opSetFind, setIn{b.where(), setMark{Key: h.key}})
}

func (b *Backend) groupOf(out setOut, h handle) *backends.GroupSnapshot {
	g := &backends.GroupSnapshot{ID: h.String(), Name: out.Set.Name, Created: out.Set.Created, Fingerprint: out.Set.Fingerprint}
	for i := range out.Snaps {
		g.Snapshots = append(g.Snapshots, *b.snapshotOf(&out.Snaps[i], h))
	}
	return g
}

// GroupSnapshot looks a group up by ID.
func (b *Backend) GroupSnapshot(ctx context.Context, req backends.GroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	h, err := b.openGroup(req.ID, req.Secrets)
	if err != nil {
		return nil, err
	}
	out, err := b.set(ctx, h)
	switch {
	case err != nil:
		return nil, err
	case out.Set == nil:
		return nil, backends.GroupNotFound(req.ID)
	case !out.Set.Ready:
		return nil, unavailable("group snapshot %s was not made yet, or is being deleted", req.ID)
	}
	return b.groupOf(out, h), nil
}

func (b *Backend) openGroup(id string, secrets backends.Secrets) (handle, error) {
	if err := b.serves(ControllerHalf); err != nil {
		return handle{}, err
	}
	h, err := b.decode(id, groupTag, backends.GroupNotFound(id))
	if err != nil {
		return handle{}, err
	}
	h.share, err = secretOptions(h.share, secrets)
	return h, err
}

// CreateGroupSnapshot has the hook cut all volumes at one moment.
func (b *Backend) CreateGroupSnapshot(ctx context.Context, req backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	h, vols, err := b.groupPlan(req)
	if err != nil {
		return nil, err
	}
	if len(req.Parameters) > 0 {
		return nil, fmt.Errorf("%w: group snapshots have no parameters", backends.ErrInvalid)
	}
	set := setMark{Key: h.key, Name: req.Name, Fingerprint: req.Fingerprint}
	for _, v := range vols {
		set.Members = append(set.Members, keyOf("group\x00"+req.Name+"\x00"+v.key))
	}
	if err := b.dropOther(ctx, h, set); err != nil {
		return nil, err
	}
	if _, err := onShare[bool](ctx, b, h.share, "", opSetSave, setIn{b.where(), set}); err != nil {
		return nil, err
	}
	snaps, err := b.beginMembers(ctx, h, vols, set, req)
	if err == nil {
		err = b.hookSnapshot(ctx, h.share, h.key, snaps)
	}
	if err != nil {
		return nil, b.undoGroup(ctx, h, set, fmt.Errorf("create group snapshot %q: %w", req.Name, err))
	}
	out, err := b.set(ctx, h)
	if err != nil {
		return nil, err
	}
	if out.Set == nil || len(out.Snaps) != len(set.Members) {
		return nil, unavailable("group snapshot %q lacks members", req.Name)
	}
	out.Set.Ready, out.Set.Created = true, out.Snaps[0].Created
	if _, err := onShare[bool](ctx, b, h.share, "", opSetSave, setIn{b.where(), *out.Set}); err != nil {
		return nil, err
	}
	return b.groupOf(out, h), nil
}

// dropOther deletes a half-made group of the same name and other volumes, and one whose
// deletion did not end.
func (b *Backend) dropOther(ctx context.Context, h handle, set setMark) error {
	out, err := b.set(ctx, h)
	if err != nil || out.Set == nil {
		return err
	}
	if out.Set.Ready {
		return fmt.Errorf("%w: group snapshot %q", backends.ErrExists, set.Name)
	}
	leaving := slices.ContainsFunc(out.Snaps, func(m snapMark) bool { return m.State == stateDeleting })
	if !leaving && slices.Equal(out.Set.Members, set.Members) {
		return nil
	}
	return b.deleteSet(ctx, h, out.Set)
}

func (b *Backend) beginMembers(ctx context.Context, h handle, vols []handle, set setMark, req backends.CreateGroupSnapshotRequest) ([]*snapMark, error) {
	var snaps []*snapMark
	for i, v := range vols {
		in := snapBeginIn{where: b.where(), Snap: snapMark{
			Key: set.Members[i], Name: req.Name + "/" + v.key, VolumeID: req.VolumeIDs[i], VolumeKey: v.key, Hook: true, Group: h.String(),
		}}
		m, err := onShare[*snapMark](ctx, b, h.share, "", opSnapBegin, in)
		if errors.Is(err, backends.ErrExists) {
			var out snapOut
			out, err = onShare[snapOut](ctx, b, h.share, "", opSnapFind, snapIn{b.where(), set.Members[i]})
			if m = out.Snap; err == nil && m == nil {
				err = unavailable("a member comes and goes")
			}
		}
		if err != nil {
			return nil, err
		}
		snaps = append(snaps, m)
	}
	return snaps, nil
}

// undoGroup removes what a group that failed for good has left.
func (b *Backend) undoGroup(ctx context.Context, h handle, set setMark, err error) error {
	if errors.Is(err, backends.ErrUnavailable) || ctx.Err() != nil {
		return err
	}
	if left := b.deleteSet(ctx, h, &set); left != nil {
		return unavailable("%w, and then: %w", err, left)
	}
	return err
}

// DeleteGroupSnapshot deletes a group with all of its members.
func (b *Backend) DeleteGroupSnapshot(ctx context.Context, req backends.DeleteGroupSnapshotRequest) error {
	h, err := b.openGroup(req.ID, req.Secrets)
	if err != nil {
		return err
	}
	out, err := b.set(ctx, h)
	if err != nil {
		return err
	}
	if out.Set == nil {
		return backends.GroupNotFound(req.ID)
	}
	return b.deleteSet(ctx, h, out.Set)
}

// deleteSet: from its first step on the group is not ready, and is deleted to its end.
func (b *Backend) deleteSet(ctx context.Context, h handle, set *setMark) error {
	if set.Ready {
		half := *set
		half.Ready = false
		if _, err := onShare[bool](ctx, b, h.share, "", opSetSave, setIn{b.where(), half}); err != nil {
			return err
		}
	}
	if err := b.deleteSnapshots(ctx, h.share, h.key, set.Members); err != nil {
		return err
	}
	if err := b.hookDelete(ctx, h.share, h.key); err != nil {
		return err
	}
	_, err := onShare[bool](ctx, b, h.share, "", opSetDrop, setIn{b.where(), *set})
	return err
}

var (
	_ backends.GroupSnapshotter  = (*Backend)(nil)
	_ backends.GroupSnapshotIDer = (*Backend)(nil)
)
