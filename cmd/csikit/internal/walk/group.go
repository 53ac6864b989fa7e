package walk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// groupSnapshot is a group that a subject made.
type groupSnapshot struct {
	*Walk

	name    string
	of      []*Volume
	members []*snapshot // of each volume; they are not in Walk.made
	snap    *csi.VolumeGroupSnapshot
	doubt   bool
	exists  bool
	counted bool // numbers were written while the group was cut
}

// take takes the group while nobody writes; where the driver wants it, while
// nobody uses the volumes.
func (g *groupSnapshot) take(ctx context.Context) error {
	err := g.create(ctx, "a group called "+g.name)
	if status.Code(err) != codes.FailedPrecondition {
		return err
	}
	g.See("not while the volumes are in use, says the driver")
	for _, v := range g.of {
		if err := v.down(ctx); err != nil {
			return err
		}
	}
	if err := g.create(ctx, "while nobody uses the volumes"); err != nil {
		return err
	}
	for _, v := range g.of {
		if err := v.up(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (w *Walk) noGroups() string {
	if w.can.group[csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT] {
		return ""
	}
	return notAdvertised("GROUP_CONTROLLER_SERVICE", "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT")
}

// group: all members are of one moment in a stream of writes to all volumes.
func (w *Walk) group(ctx context.Context) error {
	g := &groupSnapshot{Walk: w, name: w.o.Name + "-group"}
	for _, alias := range []string{"first", "second"} {
		v := w.newVolume(alias)
		if err := steps(ctx, v.create, v.up, v.writes("what "+alias+" had before the group")); err != nil {
			return err
		}
		g.of = append(g.of, v)
	}
	w.made = append(w.made, g)
	err := steps(ctx, g.takeWhileWriting, g.createAgain, g.ready, g.get, g.rewrite, g.restore, g.delete)
	if err != nil {
		return err
	}
	for _, v := range g.of {
		if err := steps(ctx, v.down, v.delete); err != nil {
			return err
		}
	}
	return nil
}

func (g *groupSnapshot) create(ctx context.Context, what string) error {
	g.doubt = !g.exists
	req := &csi.CreateVolumeGroupSnapshotRequest{Name: g.name, Secrets: g.o.Secrets}
	for _, v := range g.of {
		req.SourceVolumeIds = append(req.SourceVolumeIds, v.id())
	}
	resp, err := call(ctx, g.Walk, "CreateVolumeGroupSnapshot", what, g.groups.CreateVolumeGroupSnapshot, req)
	if err != nil {
		g.doubt = g.doubt && !final(err)
		return err
	}
	if resp.GetGroupSnapshot().GetGroupSnapshotId() == "" {
		return errors.New("CreateVolumeGroupSnapshot answers OK and no group_snapshot_id")
	}
	g.doubt, g.exists = false, true
	if g.snap == nil {
		g.snap = resp.GetGroupSnapshot()
		if err := g.addMembers(); err != nil {
			return err
		}
	}
	return g.same("CreateVolumeGroupSnapshot", resp.GetGroupSnapshot())
}

// addMembers wants one snapshot of each volume.
func (g *groupSnapshot) addMembers() error {
	for _, v := range g.of {
		m := &snapshot{Walk: g.Walk, of: v, has: v.has, size: v.size}
		for _, s := range g.snap.GetSnapshots() {
			if s.GetSourceVolumeId() == v.id() {
				m.snap = s
			}
		}
		if m.id() == "" || m.snap.GetGroupSnapshotId() != g.snap.GetGroupSnapshotId() {
			return fmt.Errorf("the group has no snapshot of volume %s with the group's ID", v.id())
		}
		g.members = append(g.members, m)
	}
	return nil
}

func (g *groupSnapshot) same(rpc string, got *csi.VolumeGroupSnapshot) error {
	if got.GetGroupSnapshotId() != g.snap.GetGroupSnapshotId() || len(got.GetSnapshots()) != len(g.of) {
		return fmt.Errorf("%s answers group %q with %d snapshots, it is %q with %d", rpc, got.GetGroupSnapshotId(), len(got.GetSnapshots()),
			g.snap.GetGroupSnapshotId(), len(g.of))
	}
	ready := true
	for _, m := range g.members {
		for _, s := range got.GetSnapshots() {
			if s.GetSourceVolumeId() != m.of.id() {
				continue
			}
			if err := m.same(rpc, s); err != nil {
				return err
			}
			ready = ready && s.GetReadyToUse()
		}
	}
	if got.GetReadyToUse() && !ready {
		return fmt.Errorf("%s says that the group is ready to use, and a member is not", rpc)
	}
	g.snap.ReadyToUse = got.GetReadyToUse()
	return nil
}

func (g *groupSnapshot) createAgain(ctx context.Context) error {
	g.See("group %s with %d snapshots", g.snap.GetGroupSnapshotId(), len(g.members))
	return g.create(ctx, "again: the same call")
}

func (g *groupSnapshot) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, g.o.Timeout)
	defer cancel()
	for !g.snap.GetReadyToUse() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("group %s does not get ready to use: %w", g.snap.GetGroupSnapshotId(), ctx.Err())
		case <-time.After(g.o.pause):
		}
		if err := g.create(ctx, "is it ready to use?"); err != nil {
			return err
		}
	}
	return nil
}

func (g *groupSnapshot) ids() []string {
	var ids []string
	for _, s := range g.snap.GetSnapshots() {
		ids = append(ids, s.GetSnapshotId())
	}
	return ids
}

func (g *groupSnapshot) get(ctx context.Context) error {
	resp, err := call(ctx, g.Walk, "GetVolumeGroupSnapshot", "", g.groups.GetVolumeGroupSnapshot,
		&csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: g.snap.GetGroupSnapshotId(), SnapshotIds: g.ids(), Secrets: g.o.Secrets})
	if err != nil {
		return err
	}
	if err := g.same("GetVolumeGroupSnapshot", resp.GetGroupSnapshot()); err != nil {
		return err
	}
	for _, m := range g.members {
		if err := m.listedSnapshot(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (g *groupSnapshot) rewrite(context.Context) error {
	for _, v := range g.of {
		if err := v.write("what " + v.alias + " had after the group"); err != nil {
			return err
		}
	}
	return nil
}

func (g *groupSnapshot) remove(ctx context.Context, what string) error {
	_, err := call(ctx, g.Walk, "DeleteVolumeGroupSnapshot", what, g.groups.DeleteVolumeGroupSnapshot,
		&csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: g.snap.GetGroupSnapshotId(), SnapshotIds: g.ids(), Secrets: g.o.Secrets})
	if err == nil {
		g.exists = false
	}
	return err
}

// delete deletes the group with its members, and once more.
func (g *groupSnapshot) delete(ctx context.Context) error {
	if err := g.remove(ctx, "with all its members"); err != nil {
		return err
	}
	g.forget(g)
	if err := g.remove(ctx, "again: it is gone"); err != nil {
		return err
	}
	_, err := try(ctx, g.Walk, "GetVolumeGroupSnapshot", "is it gone?", g.groups.GetVolumeGroupSnapshot,
		&csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: g.snap.GetGroupSnapshotId(), SnapshotIds: g.ids(), Secrets: g.o.Secrets})
	if status.Code(err) != codes.NotFound {
		return fmt.Errorf("GetVolumeGroupSnapshot of a group that was deleted: want NotFound, got %w", orOK(err))
	}
	for _, m := range g.members {
		if err := m.goneSnapshot(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (g *groupSnapshot) takeBack(ctx context.Context) error {
	if g.doubt {
		if err := g.create(ctx, "is there one?"); err != nil {
			return err
		}
	}
	if !g.exists {
		return nil
	}
	return g.remove(ctx, "")
}

func (g *groupSnapshot) left() []string {
	switch {
	case g.exists:
		return []string{"group snapshot " + g.snap.GetGroupSnapshotId()}
	case g.doubt:
		return []string{"perhaps a group snapshot called " + g.name}
	}
	return nil
}
