package co

import (
	"errors"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/csidriver"
)

// snapshotter is external-snapshotter v8.6.0-56-gafb2f0d85, its sidecar with
// --enable-volume-group-snapshots.
//
//   - Each call has 1 min (cmd/csi-snapshotter/main.go --timeout), and is repeated after
//     1 s, 2 s, ... 5 min.
//   - CreateSnapshot is repeated until it is ready; what came with a group is asked for by
//     ListSnapshots with its ID, in which a missing entry is an error
//     (pkg/sidecar-controller/snapshot_controller.go checkandUpdateContentStatusOperation).
//   - An annotation on the content says that a creation was sent. It goes with OK and
//     with a final code (createSnapshotWrapper, isCSIFinalError), and while it is there
//     the content is not deleted and the creation is repeated (shouldDelete). Without
//     it and without a handle the content is dropped, and DeleteSnapshot is never
//     called. Groups likewise (groupsnapshot_helper.go).
//   - DeleteSnapshot and DeleteVolumeGroupSnapshot are repeated after every code. The
//     members of a group are not deleted one by one.
type snapshotter struct {
	w *world
	c *clients
}

const snapshotTimeout = time.Minute

func runSnapshotter(w *world) {
	s := &snapshotter{w: w, c: w.client("snapshotter", csidriver.ServeController)}
	w.controller(sidecarQueue, func(a *api) []string { return sortedKeys(a.contents) }, s.sync)
	w.controller(sidecarQueue, func(a *api) []string { return sortedKeys(a.contentsG) }, s.syncGroup)
}

func (s *snapshotter) sync(name string) error {
	o := snap(s.w, func(a *api) *content { return a.contents[name] })
	switch {
	case o == nil:
		return nil
	case o.deleted && !o.creating && o.handle == "":
		s.w.update(func(a *api) { delete(a.contents, name) })
		return nil
	case o.deleted && !o.creating:
		return s.remove(name, o.handle)
	case o.ready:
		return nil
	}
	return s.create(name, o)
}

func (s *snapshotter) create(name string, o *content) error {
	s.w.update(func(a *api) { a.contents[name].creating = true })
	ctx, cancel := timeout(snapshotTimeout)
	defer cancel()
	resp, err := s.c.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{
		Name: "snapshot-" + name, SourceVolumeId: o.volumes[0], Secrets: secrets(),
		Parameters: map[string]string{"csi.storage.k8s.io/volumesnapshot/name": name},
	})
	s.w.update(func(a *api) {
		o := a.contents[name]
		if err == nil {
			o.handle, o.ready = resp.GetSnapshot().GetSnapshotId(), resp.GetSnapshot().GetReadyToUse()
		}
		o.creating = err != nil && o.creating && !finalForSidecar(err)
	})
	if err == nil && !resp.GetSnapshot().GetReadyToUse() {
		return errors.New("not ready") // asked again after the pause
	}
	return err
}

func (s *snapshotter) remove(name, handle string) error {
	ctx, cancel := timeout(snapshotTimeout)
	defer cancel()
	if _, err := s.c.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: handle, Secrets: secrets()}); err != nil {
		return err
	}
	s.w.update(func(a *api) { a.contents[name].handle = "" })
	return s.sync(name)
}

func (s *snapshotter) syncGroup(name string) error {
	o := snap(s.w, func(a *api) *content { return a.contentsG[name] })
	switch {
	case o == nil:
		return nil
	case o.deleted && !o.creating && o.handle == "":
		s.w.update(func(a *api) { delete(a.contentsG, name) })
		return nil
	case o.deleted && !o.creating:
		return s.removeGroup(name, o)
	case o.ready:
		return nil
	case o.handle != "":
		return s.members(name, o)
	}
	return s.createGroup(name, o)
}

func (s *snapshotter) createGroup(name string, o *content) error {
	s.w.update(func(a *api) { a.contentsG[name].creating = true })
	ctx, cancel := timeout(snapshotTimeout)
	defer cancel()
	resp, err := s.c.CreateVolumeGroupSnapshot(ctx, &csi.CreateVolumeGroupSnapshotRequest{
		Name: "groupsnapshot-" + name, SourceVolumeIds: o.volumes, Secrets: secrets(),
	})
	s.w.update(func(a *api) {
		o := a.contentsG[name]
		if err == nil {
			o.handle, o.members = resp.GetGroupSnapshot().GetGroupSnapshotId(), nil
			for _, m := range resp.GetGroupSnapshot().GetSnapshots() {
				o.members = append(o.members, m.GetSnapshotId())
			}
		}
		o.creating = err != nil && o.creating && !finalForSidecar(err)
	})
	if err != nil {
		return err
	}
	return s.syncGroup(name)
}

// members asks for each member by its ID.
func (s *snapshotter) members(name string, o *content) error {
	ready := true
	for _, id := range o.members {
		ctx, cancel := timeout(snapshotTimeout)
		resp, err := s.c.ListSnapshots(ctx, &csi.ListSnapshotsRequest{SnapshotId: id, Secrets: secrets()})
		cancel()
		if err != nil {
			return err
		}
		if len(resp.GetEntries()) != 1 || resp.GetEntries()[0].GetSnapshot().GetSnapshotId() != id {
			s.w.fail("the list of snapshot %s has %d entries", id, len(resp.GetEntries()))
			return nil
		}
		ready = ready && resp.GetEntries()[0].GetSnapshot().GetReadyToUse()
	}
	if !ready {
		return errors.New("not ready")
	}
	s.w.update(func(a *api) { a.contentsG[name].ready = true })
	return nil
}

func (s *snapshotter) removeGroup(name string, o *content) error {
	ctx, cancel := timeout(snapshotTimeout)
	defer cancel()
	_, err := s.c.DeleteVolumeGroupSnapshot(ctx, &csi.DeleteVolumeGroupSnapshotRequest{
		GroupSnapshotId: o.handle, SnapshotIds: o.members, Secrets: secrets(),
	})
	if err != nil {
		return err
	}
	s.w.update(func(a *api) { a.contentsG[name].handle = "" })
	return s.syncGroup(name)
}
