package backendtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/csikit/csikit/backends"
)

func (t *T) snapshotRequest(name, volumeID string) backends.CreateSnapshotRequest {
	return backends.CreateSnapshotRequest{Name: name, VolumeID: volumeID, Fingerprint: fingerprint, Secrets: t.cfg.secrets()}
}

// take is CreateSnapshot as csidriver does it.
func (t *T) take(ctx context.Context, req backends.CreateSnapshotRequest) (*backends.Snapshot, error) {
	s, err := t.findSnapshot(ctx, req)
	if s != nil || err != nil {
		return s, err
	}
	s, err = t.c.Snapshotter.CreateSnapshot(ctx, req)
	if errors.Is(err, backends.ErrExists) {
		return t.findSnapshot(ctx, req)
	}
	if err == nil && s == nil {
		err = errors.New("no snapshot and no error")
	}
	if t.watch("CreateSnapshot", err) != nil {
		return nil, err
	}
	return s, nil
}

// findSnapshot gives the snapshot of that name, nil if the name is free.
func (t *T) findSnapshot(ctx context.Context, req backends.CreateSnapshotRequest) (*backends.Snapshot, error) {
	s, err := t.c.Snapshotter.FindSnapshot(ctx, req)
	nf, missing := errors.AsType[*backends.NotFoundError](t.watch("FindSnapshot", err))
	if missing && nf.Kind == backends.KindSnapshot && slices.Contains(t.snapshotNames(req), nf.ID) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("FindSnapshot: %w", err)
	}
	return s, nil
}

func (t *T) snapshotNames(req backends.CreateSnapshotRequest) []string {
	names := []string{req.Name}
	if t.c.SnapshotIDer != nil {
		if id, err := t.c.SnapshotIDer.SnapshotID(req); err == nil {
			names = append(names, id)
		}
	}
	return names
}

// snapshot cuts one, or fails the check.
func (t *T) snapshot(name, volumeID string) *backends.Snapshot {
	t.Helper()
	s, err := t.take(t.Context(), t.snapshotRequest(name, volumeID))
	if err != nil {
		t.Fatalf("create snapshot %q: %v", name, err)
	}
	return s
}

// readySnapshot cuts one and waits until volumes can be made of it.
func (t *T) readySnapshot(name, volumeID string) *backends.Snapshot {
	t.Helper()
	s := t.snapshot(name, volumeID)
	t.await("snapshot "+s.ID+" is ready", func() bool { return t.lookupSnapshot(s.ID).Ready })
	return t.lookupSnapshot(s.ID)
}

func (t *T) lookupSnapshot(id string) *backends.Snapshot {
	t.Helper()
	s, err := t.c.Snapshotter.Snapshot(t.Context(), backends.SnapshotRequest{ID: id, Secrets: t.cfg.secrets()})
	if err == nil && s == nil {
		err = errors.New("no snapshot and no error")
	}
	t.must("Snapshot", err)
	return s
}

func (t *T) removeSnapshot(ctx context.Context, id string) error {
	err := t.c.Snapshotter.DeleteSnapshot(ctx, backends.DeleteSnapshotRequest{ID: id, Secrets: t.cfg.secrets()})
	return ignoreMissing(t.watch("DeleteSnapshot", err), backends.SnapshotNotFound(id))
}

// goneSnapshot fails the check unless the snapshot is not found.
func (t *T) goneSnapshot(s *backends.Snapshot) {
	t.Helper()
	_, err := t.c.Snapshotter.Snapshot(t.Context(), backends.SnapshotRequest{ID: s.ID})
	t.wantNotFound("Snapshot of a deleted snapshot", err, backends.KindSnapshot, s.ID)
	if t.c.SnapshotLister != nil && slices.Contains(t.walk(t.snapshotPager(""), 100, nil), s.ID) {
		t.Errorf("snapshot %s is gone, and still in the list", s.ID)
	}
}

func (t *T) snapshotting(name, volumeID string) task {
	req := t.snapshotRequest(name, volumeID)
	return task{
		do: func(ctx context.Context) (any, error) {
			s, err := t.take(ctx, req)
			if err != nil {
				return nil, err
			}
			return s, nil
		},
		done: func(result any) { t.fitsSnapshot(result.(*backends.Snapshot), req) },
		undo: func(ctx context.Context) error {
			s, err := t.findSnapshot(ctx, req)
			if err != nil || s == nil && t.c.SnapshotIDer == nil {
				return err
			}
			if s == nil {
				id, err := t.c.SnapshotIDer.SnapshotID(req)
				if err != nil {
					return err
				}
				return t.removeSnapshot(ctx, id)
			}
			return t.removeSnapshot(ctx, s.ID)
		},
		gone: func() {
			_, err := t.c.Snapshotter.FindSnapshot(t.Context(), req)
			t.wantNotFound("FindSnapshot of a free name", err, backends.KindSnapshot, t.snapshotNames(req)...)
		},
	}
}

func (t *T) fitsSnapshot(s *backends.Snapshot, req backends.CreateSnapshotRequest) {
	t.Helper()
	t.validID("snapshot ID", s.ID)
	if s.VolumeID != req.VolumeID || s.Size < 0 || s.GroupID != "" || s.Name != "" && s.Name != req.Name {
		t.Errorf("asked for %+v, got %+v", req, s)
	}
	if s.Fingerprint != "" && s.Fingerprint != req.Fingerprint {
		t.Errorf("snapshot %s has fingerprint %q, given was %q", s.ID, s.Fingerprint, req.Fingerprint)
	}
	if s.Created.IsZero() || s.Created.After(time.Now().Add(time.Hour)) || s.Created.Before(time.Now().Add(-time.Hour)) {
		t.Errorf("snapshot %s was cut at %v", s.ID, s.Created)
	}
	t.same("Snapshot", t.lookupSnapshot(s.ID), s)
	found, err := t.findSnapshot(t.Context(), req)
	t.must("FindSnapshot", err)
	if found == nil {
		t.Errorf("snapshot %q is not found by its name", req.Name)
		return
	}
	t.same("FindSnapshot", found, s)
}

var snapshotChecks = []check{
	{
		"snapshot/created", "Created is the moment of the cut, and stays.", "Controller Snapshotter",
		func(t *T) {
			v := t.create(t.name())
			before := time.Now().Add(-time.Second) // of the file system, which may keep no more
			s := t.snapshot(t.name(), v.ID)
			if s.Created.Before(before.Truncate(time.Second)) {
				t.Errorf("created at %v, the call began at %v", s.Created, before)
			}
			second := t.snapshot(t.name(), v.ID)
			if second.Created.Before(s.Created) {
				t.Errorf("the second was cut at %v, the first at %v", second.Created, s.Created)
			}
			if t.cfg.Reopen != nil {
				t.reopen()
			}
			if now := t.lookupSnapshot(s.ID); !now.Created.Equal(s.Created) {
				t.Errorf("created at %v, and then at %v", s.Created, now.Created)
			}
		},
	},
	{
		"snapshot/changed arguments", "unchanged and without comparing it to req", "Controller Snapshotter",
		func(t *T) {
			v, other, name := t.create(t.name()), t.create(t.name()), t.name()
			s := t.snapshot(name, v.ID)
			changed := t.snapshotRequest(name, other.ID)
			changed.Fingerprint, changed.Parameters = "1.other", map[string]string{"other": "x"}
			found, err := t.c.Snapshotter.FindSnapshot(t.Context(), changed)
			t.must("FindSnapshot with other arguments", err)
			t.same("FindSnapshot with other arguments", found, s)
		},
	},
	{
		"snapshot/its volume goes", "A volume that is in use, or that its snapshots depend on, is ErrInUse and left untouched.", "Controller Snapshotter",
		func(t *T) {
			v := t.create(t.name())
			s := t.readySnapshot(t.name(), v.ID)
			if err := t.remove(t.Context(), v.ID); err != nil {
				t.wantKind("DeleteVolume of a volume with a snapshot", err, backends.ErrInUse)
				t.same("the volume, after ErrInUse", t.lookup(v.ID), v)
				t.must("DeleteSnapshot", t.removeSnapshot(t.Context(), s.ID))
				t.must("DeleteVolume, its snapshot gone", t.remove(t.Context(), v.ID))
				return
			}
			t.same("the snapshot, its volume gone", t.lookupSnapshot(s.ID), s)
			_, err := t.provision(t.Context(), t.request(t.name()), origin{snapshot: s})
			t.must("RestoreSnapshot, the snapshot's volume gone", err)
		},
	},
	{
		"snapshot/size", "bytes: the least size of a volume made of it", "Controller Snapshotter",
		func(t *T) {
			v := t.create(t.name())
			s := t.readySnapshot(t.name(), v.ID)
			for _, factor := range []int64{1, 2, 3} {
				req := t.request(t.name())
				req.Size = roundUp(max(s.Size, req.Size)*factor, t.b.Traits.SizeStep)
				req.Range.Required = req.Size
				restored, err := t.provision(t.Context(), req, origin{snapshot: s})
				t.must("RestoreSnapshot", err)
				t.fits(restored, req, origin{snapshot: s})
			}
		},
	},
	{
		"snapshot/ID beforehand", "SnapshotIDer is [VolumeIDer] for snapshots.", "Controller SnapshotIDer",
		func(t *T) {
			req := t.snapshotRequest(t.name(), t.create(t.name()).ID)
			id, err := t.c.SnapshotIDer.SnapshotID(req)
			t.must("SnapshotID", err)
			if s := t.snapshot(req.Name, req.VolumeID); s.ID != id {
				t.Errorf("SnapshotID said %q, the snapshot is %q", id, s.ID)
			}
		},
	},
	{
		"snapshot/of an expanded volume", "the least size of a volume made of it", "Controller Snapshotter Expander",
		func(t *T) {
			v := t.create(t.name())
			size := roundUp(2*max(v.Capacity, 1), t.b.Traits.SizeStep)
			before := t.readySnapshot(t.name(), v.ID)
			_, err := t.grow(t.Context(), v.ID, size)
			t.must("ExpandVolume", err)
			after := t.readySnapshot(t.name(), v.ID)
			if v.Capacity > 0 && (after.Size < size || t.lookupSnapshot(before.ID).Size != before.Size) {
				t.Errorf("volume grew to %d bytes, the snapshots have %d and %d", size, t.lookupSnapshot(before.ID).Size, after.Size)
			}
			_, err = t.provision(t.Context(), t.request(t.name()), origin{snapshot: before})
			t.must("RestoreSnapshot of the one before", err)
		},
	},
	{
		"clone/its source goes", "The rules of CreateVolume and of RestoreSnapshot hold", "Controller Cloner",
		func(t *T) {
			v, req := t.create(t.name()), t.request(t.name())
			clone, err := t.provision(t.Context(), req, origin{volume: v})
			t.must("CloneVolume", err)
			t.same("the source", t.lookup(v.ID), v)
			if err := t.remove(t.Context(), v.ID); err != nil {
				t.wantKind("DeleteVolume of a source", err, backends.ErrInUse)
				return
			}
			t.fits(clone, req, origin{volume: v})
		},
	},
	{
		"clone/bigger", "csidriver has looked the source up, and req.Size is not less than its Capacity.", "Controller Cloner",
		func(t *T) {
			v := t.create(t.name())
			req := t.request(t.name())
			req.Size = roundUp(2*max(v.Capacity, 1), t.b.Traits.SizeStep)
			req.Range.Required = req.Size
			clone, err := t.provision(t.Context(), req, origin{volume: v})
			t.must("CloneVolume", err)
			t.fits(clone, req, origin{volume: v})
		},
	},
}
