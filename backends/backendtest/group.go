package backendtest

import (
	"context"
	"errors"
	"slices"

	"github.com/csikit/csikit/backends"
)

func (t *T) groupRequest(name string, vols []*backends.Volume) backends.CreateGroupSnapshotRequest {
	req := backends.CreateGroupSnapshotRequest{Name: name, Fingerprint: fingerprint, Secrets: t.cfg.secrets()}
	for _, v := range vols {
		req.VolumeIDs = append(req.VolumeIDs, v.ID)
	}
	slices.Sort(req.VolumeIDs)
	return req
}

// takeGroup is CreateVolumeGroupSnapshot as csidriver does it.
func (t *T) takeGroup(ctx context.Context, req backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	g, err := t.findGroup(ctx, req)
	if g != nil || err != nil {
		return g, err
	}
	g, err = t.c.GroupSnapshotter.CreateGroupSnapshot(ctx, req)
	if errors.Is(err, backends.ErrExists) {
		return t.findGroup(ctx, req)
	}
	if err == nil && g == nil {
		err = errors.New("no group snapshot and no error")
	}
	if t.watch("CreateGroupSnapshot", err) != nil {
		return nil, err
	}
	return g, nil
}

func (t *T) findGroup(ctx context.Context, req backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error) {
	g, err := t.c.GroupSnapshotter.FindGroupSnapshot(ctx, req)
	nf, missing := errors.AsType[*backends.NotFoundError](t.watch("FindGroupSnapshot", err))
	if missing && nf.Kind == backends.KindGroup && slices.Contains(t.groupNames(req), nf.ID) {
		return nil, nil
	}
	return g, err
}

func (t *T) groupNames(req backends.CreateGroupSnapshotRequest) []string {
	names := []string{req.Name}
	if t.c.GroupSnapshotIDer != nil {
		if id, err := t.c.GroupSnapshotIDer.GroupSnapshotID(req); err == nil {
			names = append(names, id)
		}
	}
	return names
}

func (t *T) removeGroup(ctx context.Context, g *backends.GroupSnapshot) error {
	req := backends.DeleteGroupSnapshotRequest{ID: g.ID, Secrets: t.cfg.secrets()}
	for _, s := range g.Snapshots {
		req.SnapshotIDs = append(req.SnapshotIDs, s.ID)
	}
	return ignoreMissing(t.watch("DeleteGroupSnapshot", t.c.GroupSnapshotter.DeleteGroupSnapshot(ctx, req)), backends.GroupNotFound(g.ID))
}

func (t *T) lookupGroup(id string) (*backends.GroupSnapshot, error) {
	g, err := t.c.GroupSnapshotter.GroupSnapshot(t.Context(), backends.GroupSnapshotRequest{ID: id, Secrets: t.cfg.secrets()})
	return g, t.watch("GroupSnapshot", err)
}

func (t *T) grouping() task {
	req := t.groupRequest(t.name(), []*backends.Volume{t.create(t.name()), t.create(t.name()), t.create(t.name())})
	return task{
		do: func(ctx context.Context) (any, error) {
			g, err := t.takeGroup(ctx, req)
			if err != nil {
				return nil, err
			}
			return g, nil
		},
		done: func(result any) { t.fitsGroup(result.(*backends.GroupSnapshot), req) },
		undo: func(ctx context.Context) error {
			g, err := t.findGroup(ctx, req)
			if g == nil && err == nil && t.c.GroupSnapshotIDer != nil {
				g = &backends.GroupSnapshot{}
				g.ID, err = t.c.GroupSnapshotIDer.GroupSnapshotID(req)
			}
			if g == nil || err != nil {
				return err
			}
			return t.removeGroup(ctx, g)
		},
		gone: func() {
			_, err := t.c.GroupSnapshotter.FindGroupSnapshot(t.Context(), req)
			t.wantNotFound("FindGroupSnapshot of a free name", err, backends.KindGroup, t.groupNames(req)...)
			t.noSnapshots(req.VolumeIDs)
		},
	}
}

// noSnapshots fails the check if the volumes have any.
func (t *T) noSnapshots(volumeIDs []string) {
	t.Helper()
	if t.c.SnapshotLister == nil {
		return
	}
	for _, id := range volumeIDs {
		if left := t.walk(t.snapshotPager(id), 100, nil); len(left) > 0 {
			t.Errorf("volume %s has snapshots %q left", id, left)
		}
	}
}

func (t *T) ungrouping() task {
	made := t.grouping()
	result, err := made.do(t.Context())
	t.must("CreateGroupSnapshot", err)
	g := result.(*backends.GroupSnapshot)
	return task{
		do: func(ctx context.Context) (any, error) { return nil, t.removeGroup(ctx, g) },
		done: func(any) {
			_, err := t.lookupGroup(g.ID)
			t.wantNotFound("GroupSnapshot of a deleted group", err, backends.KindGroup, g.ID)
			for _, s := range g.Snapshots {
				t.goneSnapshot(&s)
			}
		},
	}
}

func (t *T) fitsGroup(g *backends.GroupSnapshot, req backends.CreateGroupSnapshotRequest) {
	t.Helper()
	t.validID("group snapshot ID", g.ID)
	var of []string
	for _, s := range g.Snapshots {
		of = append(of, s.VolumeID)
		t.validID("snapshot ID", s.ID)
		if s.GroupID != "" && s.GroupID != g.ID {
			t.Errorf("snapshot %s of group %s says that it is of group %s", s.ID, g.ID, s.GroupID)
		}
		if s.Created.IsZero() {
			t.Errorf("snapshot %s of group %s was never cut", s.ID, g.ID)
		}
		member := t.lookupSnapshot(s.ID)
		member.GroupID = s.GroupID
		t.same("Snapshot of a member", member, &s)
	}
	slices.Sort(of)
	if !slices.Equal(of, req.VolumeIDs) {
		t.Errorf("group %s has snapshots of %q, asked for was %q", g.ID, of, req.VolumeIDs)
	}
	found, err := t.findGroup(t.Context(), req)
	t.must("FindGroupSnapshot", err)
	looked, err := t.lookupGroup(g.ID)
	t.must("GroupSnapshot", err)
	if found == nil {
		t.Errorf("group snapshot %q is not found by its name", req.Name)
		return
	}
	t.same("FindGroupSnapshot", found, g)
	t.same("GroupSnapshot", looked, g)
}

var groupChecks = []check{
	{
		"group/all or none", "All members are cut at one moment or none is left behind.", "Controller GroupSnapshotter",
		func(t *T) {
			v, gone := t.create(t.name()), t.create(t.name())
			t.must("DeleteVolume", t.remove(t.Context(), gone.ID))
			req := t.groupRequest(t.name(), []*backends.Volume{v, gone})
			_, err := t.takeGroup(t.Context(), req)
			t.wantNotFound("CreateGroupSnapshot with a volume that is gone", err, backends.KindVolume, gone.ID)
			t.noSnapshots(req.VolumeIDs)
			found, err := t.findGroup(t.Context(), req)
			t.must("FindGroupSnapshot", err)
			if found != nil {
				t.Errorf("a group is left: %+v", found)
			}
			t.must("DeleteVolume of the other", t.remove(t.Context(), v.ID))
		},
	},
	{
		"group/unknown", "GroupNotFound says that no group snapshot has this ID, or this name.", "Controller GroupSnapshotter",
		func(t *T) {
			for _, id := range []string{"group-unknown-to-any-backend", "../x", "\x00", "/"} {
				_, err := t.lookupGroup(id)
				t.missing("GroupSnapshot", err, backends.KindGroup, id)
				err = t.c.GroupSnapshotter.DeleteGroupSnapshot(t.Context(), backends.DeleteGroupSnapshotRequest{ID: id})
				t.missing("DeleteGroupSnapshot", err, backends.KindGroup, id)
			}
		},
	},
	{
		"group/ID beforehand", "GroupSnapshotIDer is [VolumeIDer] for group snapshots.", "Controller GroupSnapshotIDer",
		func(t *T) {
			req := t.groupRequest(t.name(), []*backends.Volume{t.create(t.name())})
			id, err := t.c.GroupSnapshotIDer.GroupSnapshotID(req)
			t.must("GroupSnapshotID", err)
			g, err := t.takeGroup(t.Context(), req)
			t.must("CreateGroupSnapshot", err)
			if g.ID != id {
				t.Errorf("GroupSnapshotID said %q, the group is %q", id, g.ID)
			}
		},
	},
}
