package csidriver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

func groupReq(name string, volumes ...string) *csi.CreateVolumeGroupSnapshotRequest {
	return &csi.CreateVolumeGroupSnapshotRequest{Name: name, SourceVolumeIds: volumes}
}

// startGroups has volumes v and w.
func startGroups(t *testing.T, change func(*setup, *data)) (*rig, *data) {
	t.Helper()
	r, d := startData(t, change)
	addVolumes(t, r, "v", "w")
	return r, d
}

// group is made of v and w.
func (r *rig) group(t *testing.T) *csi.VolumeGroupSnapshot {
	t.Helper()
	made, err := r.CreateVolumeGroupSnapshot(t.Context(), groupReq("g", "id-w", "id-v"))
	wantCode(t, err, codes.OK)
	return made.GetGroupSnapshot()
}

func membersIn(g *csi.VolumeGroupSnapshot) (ids []string) {
	for _, s := range g.GetSnapshots() {
		ids = append(ids, s.GetSnapshotId())
	}
	return ids
}

func TestGroupTwice(t *testing.T) {
	r, d := startGroups(t, nil)
	caps, err := r.GroupControllerGetCapabilities(t.Context(), &csi.GroupControllerGetCapabilitiesRequest{})
	wantCode(t, err, codes.OK)
	if list := caps.GetCapabilities(); len(list) != 1 || list[0].GetRpc().GetType() != csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT {
		t.Errorf("capabilities %v", list)
	}
	first := r.group(t)
	if first.GetGroupSnapshotId() != "gid-g" || len(first.GetSnapshots()) != 2 || !first.GetReadyToUse() || !first.GetCreationTime().IsValid() {
		t.Errorf("made %v", first)
	}
	for _, q := range []*csi.CreateVolumeGroupSnapshotRequest{groupReq("g", "id-v", "id-w"), groupReq("g", "id-v", "id-w", "id-v")} {
		q.Secrets, q.Parameters = map[string]string{"a": "b"}, map[string]string{"csi.storage.k8s.io/x": "y", "deletionPolicy": "Retain"}
		second, err := r.CreateVolumeGroupSnapshot(t.Context(), q)
		wantCode(t, err, codes.OK)
		if !proto.Equal(first, second.GetGroupSnapshot()) {
			t.Errorf("first %v, then %v", first, second)
		}
	}
	for _, ids := range [][]string{nil, membersIn(first), {membersIn(first)[1], membersIn(first)[0]}} {
		got, err := r.GetVolumeGroupSnapshot(t.Context(), &csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: "gid-g", SnapshotIds: ids})
		wantCode(t, err, codes.OK)
		if !proto.Equal(first, got.GetGroupSnapshot()) {
			t.Errorf("first %v, got %v", first, got)
		}
	}
	if d.cut.Load() != 1 {
		t.Errorf("cut %d times", d.cut.Load())
	}
	made, err := r.CreateVolume(t.Context(), restoreReq("of-member", snapshotSource(membersIn(first)[0])))
	wantCode(t, err, codes.OK)
	if made.GetVolume().GetCapacityBytes() != gi {
		t.Errorf("restored %v", made)
	}
}

// TestGroupMembers: the group's ID is in each member, and the group is ready when
// they are.
func TestGroupMembers(t *testing.T) {
	for _, ready := range [][]bool{{true, true}, {true, false}, {false, true}, {false, false}} {
		r, _ := startGroups(t, func(_ *setup, d *data) {
			d.answerAll = func(g *backends.GroupSnapshot) *backends.GroupSnapshot {
				for i := range g.Snapshots {
					g.Snapshots[i].GroupID, g.Snapshots[i].Ready = "", ready[i]
				}
				return g
			}
		})
		g := r.group(t)
		if want := !slices.Contains(ready, false); g.GetReadyToUse() != want {
			t.Errorf("members %v: ready %v", ready, g.GetReadyToUse())
		}
		for _, s := range g.GetSnapshots() {
			if s.GetGroupSnapshotId() != "gid-g" {
				t.Errorf("member %v", s)
			}
		}
	}
}

func TestGroupRefuses(t *testing.T) {
	r, d := startGroups(t, nil)
	for say, tc := range map[string]struct {
		code codes.Code
		req  *csi.CreateVolumeGroupSnapshotRequest
	}{
		"name is required":              {codes.InvalidArgument, groupReq("", "id-v")},
		"source_volume_ids is required": {codes.InvalidArgument, groupReq("g")},
		"has an empty ID":               {codes.InvalidArgument, groupReq("g", "id-v", "")},
		"name holds a control":          {codes.InvalidArgument, groupReq("g\x00", "id-v")},
		`volume "nothing" not found`:    {codes.NotFound, groupReq("g", "id-v", "nothing")},
	} {
		_, err := r.CreateVolumeGroupSnapshot(t.Context(), tc.req)
		wantCode(t, err, tc.code, say)
	}
	if d.cut.Load() != 0 {
		t.Errorf("cut %d times", d.cut.Load())
	}
	r.group(t)
	for field, q := range map[string]*csi.CreateVolumeGroupSnapshotRequest{
		"source_volume_ids": groupReq("g", "id-v"),
		"parameters":        {Name: "g", SourceVolumeIds: []string{"id-v", "id-w"}, Parameters: map[string]string{"a": "b"}},
		"by its parameters": {Name: "g", SourceVolumeIds: []string{"id-v", "id-w"}, Parameters: map[string]string{"deletionPolicy": "b"}},
	} {
		_, err := r.CreateVolumeGroupSnapshot(t.Context(), q)
		wantCode(t, err, codes.AlreadyExists, field, `group snapshot "g"`)
	}
}

func TestGroupBadAnswers(t *testing.T) {
	for say, answer := range map[string]func(*backends.GroupSnapshot){
		"without an ID":           func(g *backends.GroupSnapshot) { g.ID = "" },
		"or not UTF-8":            func(g *backends.GroupSnapshot) { g.ID = "\xff" },
		"was created at 0001":     func(g *backends.GroupSnapshot) { g.Created = time.Time{} },
		"has no members":          func(g *backends.GroupSnapshot) { g.Snapshots = nil },
		"names no volume":         func(g *backends.GroupSnapshot) { g.Snapshots[1].VolumeID = "" },
		"of group \"another\"":    func(g *backends.GroupSnapshot) { g.Snapshots[1].GroupID = "another" },
		"has a member twice":      func(g *backends.GroupSnapshot) { g.Snapshots[1].ID = g.Snapshots[0].ID },
		"or two of one volume":    func(g *backends.GroupSnapshot) { g.Snapshots[1].VolumeID = g.Snapshots[0].VolumeID },
		"not of the volumes that": func(g *backends.GroupSnapshot) { g.Snapshots = g.Snapshots[:1] },
	} {
		r, _ := startGroups(t, func(_ *setup, d *data) {
			d.answerAll = func(g *backends.GroupSnapshot) *backends.GroupSnapshot {
				c := *g
				c.Snapshots = slices.Clone(g.Snapshots)
				answer(&c)
				return &c
			}
		})
		_, err := r.CreateVolumeGroupSnapshot(t.Context(), groupReq("g", "id-v", "id-w"))
		wantCode(t, err, codes.Unavailable, say)
	}
	r, d := startGroups(t, func(_ *setup, d *data) {
		d.answerAll = func(*backends.GroupSnapshot) *backends.GroupSnapshot { return nil }
	})
	_, err := r.CreateVolumeGroupSnapshot(t.Context(), groupReq("g", "id-v"))
	wantCode(t, err, codes.Unavailable, "no group snapshot and no error")
	d.mu.Lock()
	d.groups["other"] = d.groups["gid-g"]
	d.mu.Unlock()
	_, err = r.GetVolumeGroupSnapshot(t.Context(), &csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: "other"})
	wantCode(t, err, codes.Internal, "it gave")
}

func TestGroupErrors(t *testing.T) {
	for failure, want := range map[error]codes.Code{
		backends.ErrPrecondition:     codes.FailedPrecondition,
		backends.ErrNoSpace:          codes.ResourceExhausted,
		backends.ErrPending:          codes.Aborted,
		errors.New("exit status 5"):  codes.Unavailable,
		backends.GroupNotFound("g"):  codes.Unavailable,
		backends.VolumeNotFound("v"): codes.Unavailable,
		backends.ErrExists:           codes.Unavailable,
	} {
		r, _ := startGroups(t, func(s *setup, _ *data) {
			s.backend.hook = hookOn("CreateGroupSnapshot", func(context.Context) error { return failure })
		})
		_, err := r.CreateVolumeGroupSnapshot(t.Context(), groupReq("g", "id-v"))
		wantCode(t, err, want)
	}
	r, d := startGroups(t, func(s *setup, _ *data) {
		s.backend.hook = hookOn("FindGroupSnapshot", func(context.Context) error { return backends.GroupNotFound("another") })
	})
	_, err := r.CreateVolumeGroupSnapshot(t.Context(), groupReq("g", "id-v"))
	wantCode(t, err, codes.Unavailable)
	if d.cut.Load() != 0 {
		t.Error("cut in doubt")
	}
	r, _ = startGroups(t, func(s *setup, _ *data) {
		s.backend.hook = hookOn("CreateGroupSnapshot", func(context.Context) error { panic("x") })
	})
	_, err = r.CreateVolumeGroupSnapshot(t.Context(), groupReq("g", "id-v"))
	wantCode(t, err, codes.Unavailable, "panic in CreateVolumeGroupSnapshot g")
}

// TestGroupLooksAgain: another replica has made it meanwhile.
func TestGroupLooksAgain(t *testing.T) {
	r, _ := startGroups(t, func(s *setup, d *data) {
		s.backend.hook = hookOn("CreateGroupSnapshot", func(context.Context) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.groups["gid-g"] = &backends.GroupSnapshot{ID: "gid-g", Created: testStart, Snapshots: []backends.Snapshot{*d.newSnapshot("s", "id-v", "")}}
			return backends.ErrExists
		})
	})
	_, err := r.CreateVolumeGroupSnapshot(t.Context(), groupReq("g", "id-v"))
	wantCode(t, err, codes.OK)
}

func TestGetGroup(t *testing.T) {
	r, _ := startGroups(t, nil)
	g := r.group(t)
	for say, tc := range map[string]struct {
		code codes.Code
		req  *csi.GetVolumeGroupSnapshotRequest
	}{
		"group_snapshot_id is required": {codes.InvalidArgument, &csi.GetVolumeGroupSnapshotRequest{}},
		`"nothing"`:                     {codes.NotFound, &csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: "nothing"}},
		"snapshot_ids are not":          {codes.InvalidArgument, &csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: "gid-g", SnapshotIds: membersIn(g)[:1]}},
		"snapshot_ids are not the":      {codes.InvalidArgument, &csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: "gid-g", SnapshotIds: append(membersIn(g), "x")}},
	} {
		_, err := r.GetVolumeGroupSnapshot(t.Context(), tc.req)
		wantCode(t, err, tc.code, say)
	}
}

func deleteGroup(id string, members ...string) *csi.DeleteVolumeGroupSnapshotRequest {
	return &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: id, SnapshotIds: members}
}

func TestDeleteGroup(t *testing.T) {
	for _, named := range []bool{true, false} {
		r, d := startGroups(t, nil)
		members := membersIn(r.group(t))
		_, err := r.DeleteSnapshot(t.Context(), deleteSnapshot(members[0]))
		wantCode(t, err, codes.InvalidArgument, "member of group snapshot", "gid-g")
		_, err = r.DeleteVolumeGroupSnapshot(t.Context(), deleteGroup("gid-g", members[0]))
		wantCode(t, err, codes.InvalidArgument, "snapshot_ids")
		_, err = r.DeleteVolumeGroupSnapshot(t.Context(), deleteGroup(""))
		wantCode(t, err, codes.InvalidArgument, "group_snapshot_id is required")
		if len(d.snapshots) != 2 || len(d.groups) != 1 {
			t.Fatalf("left: %v, %v", d.snapshots, d.groups)
		}
		if !named {
			members = nil
		}
		for range 2 {
			_, err = r.DeleteVolumeGroupSnapshot(t.Context(), deleteGroup("gid-g", members...))
			wantCode(t, err, codes.OK)
		}
		if len(d.snapshots)+len(d.groups) != 0 {
			t.Errorf("left: %v, %v", d.snapshots, d.groups)
		}
	}
}

func TestDeleteGroupErrors(t *testing.T) {
	for failure, want := range map[error]codes.Code{
		backends.GroupNotFound("gid-g"):                                       codes.Unavailable, // its members are there
		backends.GroupNotFound("pool"):                                        codes.Unavailable,
		backends.SnapshotNotFound("gid-g"):                                    codes.Unavailable,
		errors.Join(backends.GroupNotFound("gid-g"), backends.ErrUnavailable): codes.Unavailable,
		backends.ErrInUse:                                                     codes.FailedPrecondition,
	} {
		r, _ := startGroups(t, func(s *setup, _ *data) {
			s.backend.hook = hookOn("DeleteGroupSnapshot", func(context.Context) error { return failure })
		})
		r.group(t)
		_, err := r.DeleteVolumeGroupSnapshot(t.Context(), deleteGroup("gid-g"))
		wantCode(t, err, want)
	}
	for failure, want := range map[error]codes.Code{backends.ErrUnavailable: codes.OK, backends.ErrPermission: codes.PermissionDenied} {
		r, d := startGroups(t, func(s *setup, _ *data) {
			s.backend.hook = hookOn("GroupSnapshot", func(context.Context) error { return failure })
		})
		r.group(t)
		_, err := r.DeleteVolumeGroupSnapshot(t.Context(), deleteGroup("gid-g"))
		wantCode(t, err, want)
		if left := len(d.groups) > 0; left == (want == codes.OK) {
			t.Errorf("%v: left %v", failure, d.groups)
		}
	}
}

// TestDeleteGroupNegatesCreate, and holds the members of one that is there.
func TestDeleteGroupNegatesCreate(t *testing.T) {
	begun := make(chan struct{})
	r, _ := startGroups(t, func(s *setup, _ *data) {
		s.backend.hook = hookOn("CreateGroupSnapshot", func(ctx context.Context) error {
			close(begun)
			<-ctx.Done()
			return errors.New("signal: killed")
		})
	})
	created := make(chan error, 1)
	go func() {
		_, err := r.CreateVolumeGroupSnapshot(t.Context(), groupReq("g", "id-v"))
		created <- err
	}()
	<-begun
	_, err := r.DeleteVolumeGroupSnapshot(t.Context(), deleteGroup("gid-g"))
	wantCode(t, err, codes.OK)
	wantCode(t, <-created, codes.Aborted)
}

func TestGroupHoldsMembers(t *testing.T) {
	for _, named := range []bool{true, false} {
		begun, gone := make(chan struct{}), make(chan struct{})
		r, _ := startGroups(t, func(s *setup, _ *data) {
			s.opts.Wait = 1
			s.backend.hook = hookOn("RestoreSnapshot", func(context.Context) error {
				close(begun)
				<-gone
				return nil
			})
		})
		members := membersIn(r.group(t))
		made := make(chan error, 1)
		go func() {
			_, err := r.CreateVolume(t.Context(), restoreReq("new", snapshotSource(members[0])))
			made <- err
		}()
		<-begun
		q := deleteGroup("gid-g", members...)
		if !named {
			q.SnapshotIds = nil
		}
		_, err := r.DeleteVolumeGroupSnapshot(t.Context(), q)
		wantCode(t, err, codes.Aborted, "CreateVolume new")
		close(gone)
		wantCode(t, <-made, codes.OK)
		_, err = r.DeleteVolumeGroupSnapshot(t.Context(), q)
		wantCode(t, err, codes.OK)
	}
}

func TestGroupConcurrently(t *testing.T) {
	r, d := startGroups(t, nil)
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() { r.group(t) })
	}
	all.Wait()
	if d.cut.Load() != 1 {
		t.Errorf("cut %d times", d.cut.Load())
	}
	for range 30 {
		all.Go(func() {
			_, err := r.DeleteVolumeGroupSnapshot(t.Context(), deleteGroup("gid-g"))
			wantCode(t, err, codes.OK)
		})
	}
	all.Wait()
}

// TestGroupDeadline: the work goes on when the caller has gone.
func TestGroupDeadline(t *testing.T) {
	begun, gone := make(chan struct{}), make(chan struct{})
	r, d := startGroups(t, func(s *setup, _ *data) {
		s.backend.hook = hookOn("CreateGroupSnapshot", func(ctx context.Context) error {
			close(begun)
			<-gone
			return ctx.Err()
		})
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	_, err := r.CreateVolumeGroupSnapshot(ctx, groupReq("g", "id-w", "id-v"))
	wantCode(t, err, codes.Canceled)
	close(gone)
	r.group(t)
	if d.cut.Load() != 1 {
		t.Errorf("cut %d times", d.cut.Load())
	}
}

// TestSnapshotsHoldVolumes: no volume is deleted while it is cut.
func TestSnapshotsHoldVolumes(t *testing.T) {
	for method, cut := range map[string]func(*testing.T, *rig) error{
		"CreateSnapshot": func(t *testing.T, r *rig) error {
			_, err := r.CreateSnapshot(t.Context(), snapshotReq("s", "id-w"))
			return err
		},
		"CreateGroupSnapshot": func(t *testing.T, r *rig) error {
			_, err := r.CreateVolumeGroupSnapshot(t.Context(), groupReq("g", "id-v", "id-w"))
			return err
		},
	} {
		begun, gone := make(chan struct{}), make(chan struct{})
		r, _ := startGroups(t, func(s *setup, _ *data) {
			s.opts.Wait = 1
			s.backend.hook = hookOn(method, func(context.Context) error {
				close(begun)
				<-gone
				return nil
			})
		})
		made := make(chan error, 1)
		go func() { made <- cut(t, r) }()
		<-begun
		_, err := r.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "id-w"})
		wantCode(t, err, codes.Aborted, "Create")
		close(gone)
		wantCode(t, <-made, codes.OK)
	}
}

// TestGroupNoAlpha: members have no alpha field either.
func TestGroupNoAlpha(t *testing.T) {
	for _, noAlpha := range []bool{true, false} {
		r, _ := startGroups(t, func(s *setup, d *data) {
			s.opts.NoAlpha = noAlpha
			s.backend.place = backends.Segments{"a.b/zone": "one"}
			s.cfg.Traits.TopologyKeys, s.cfg.Traits.SnapshotTopology = []string{"a.b/zone"}, true
			d.answerAll = func(g *backends.GroupSnapshot) *backends.GroupSnapshot {
				g.Snapshots[0].Topology = []backends.Segments{d.place}
				return g
			}
		})
		if list := r.group(t).GetSnapshots()[0].GetAccessibleTopology(); (list == nil) != noAlpha {
			t.Errorf("NoAlpha %v: %v", noAlpha, list)
		}
	}
}
