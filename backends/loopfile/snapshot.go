package loopfile

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/csikit/csikit/backends"
)

// Snapshot looks a snapshot up by ID.
func (b *Backend) Snapshot(_ context.Context, req backends.SnapshotRequest) (*backends.Snapshot, error) {
	p, done, err := b.enter(0)
	if err != nil {
		return nil, err
	}
	defer done()
	s, m, err := p.snapshot(req.ID)
	if err != nil {
		return nil, err
	}
	b.resume(p, s)
	return b.snapshotOf(s, m), nil
}

// SnapshotID is pure once the pool's name is known.
func (b *Backend) SnapshotID(req backends.CreateSnapshotRequest) (string, error) {
	name, err := b.poolName()
	return name + "." + snapsDir + "." + dirOf(req.Name), err
}

// FindSnapshot looks a snapshot up by name. One that is still being copied is
// found, and not ready.
func (b *Backend) FindSnapshot(_ context.Context, req backends.CreateSnapshotRequest) (*backends.Snapshot, error) {
	p, done, err := b.enter(0)
	if err != nil {
		return nil, err
	}
	defer done()
	s := p.newSet(snapsDir, dirOf(req.Name))
	if err := b.find(p, s, req.Name, backends.SnapshotNotFound(req.Name)); err != nil {
		return nil, err
	}
	return b.snapshotOf(s, s.meta.Members[0]), nil
}

// find reads the set that was made for a name.
func (b *Backend) find(p *pool, s *set, name string, missing error) error {
	if err := s.read(missing); err != nil {
		return err
	}
	if s.meta.Name != name {
		return fmt.Errorf("%w: %s is snapshot %q", backends.ErrIncompatible, s.path(""), s.meta.Name)
	}
	b.resume(p, s)
	return nil
}

// CreateSnapshot cuts a snapshot. With reflinks it is ready at once; a volume
// that nobody uses on a file system without them is copied by a job that goes on
// after this call and after a restart.
func (b *Backend) CreateSnapshot(ctx context.Context, req backends.CreateSnapshotRequest) (*backends.Snapshot, error) {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return nil, err
	}
	defer done()
	if len(req.Parameters) > 0 {
		return nil, fmt.Errorf("%w: snapshots have no parameters", backends.ErrInvalid)
	}
	if !req.Topology.Permits(b.segments()) {
		return nil, fmt.Errorf("%w: snapshots of this pool are on node %s alone", backends.ErrNoSpace, b.o.Node)
	}
	s := p.newSet(snapsDir, dirOf(req.Name))
	c := cutting{b: b, s: s, name: req.Name, fingerprint: req.Fingerprint, volumes: []string{req.VolumeID}}
	if err := c.run(ctx); err != nil {
		return nil, fmt.Errorf("create snapshot %q of volume %s: %w", req.Name, req.VolumeID, err)
	}
	b.jobs.waitFor(ctx, s.id(), jobWait)
	if err := s.read(backends.SnapshotNotFound(req.Name)); err != nil {
		// A copy that failed took the snapshot with it.
		return nil, fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	return b.snapshotOf(s, s.meta.Members[0]), nil
}

// DeleteSnapshot deletes a snapshot that is no group's member.
func (b *Backend) DeleteSnapshot(ctx context.Context, req backends.DeleteSnapshotRequest) error {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return err
	}
	defer done()
	missing := backends.SnapshotNotFound(req.ID)
	name, parent, dir, volume, ok := splitSnapshotID(req.ID)
	switch {
	case !ok || parent == groupsDir && volume == "":
		return missing
	case name != p.info.Name:
		return p.foreign("snapshot", req.ID, name)
	}
	s := p.newSet(parent, dir)
	if !s.group() {
		return b.deleteSet(ctx, s, missing)
	}
	if _, _, err := p.snapshot(req.ID); err != nil {
		return err
	}
	return fmt.Errorf("%w: snapshot %s is deleted with its group %s", backends.ErrPrecondition, req.ID, s.id())
}

// deleteSet moves a set to .trash, which is the moment it is gone, and frees its
// space.
func (b *Backend) deleteSet(ctx context.Context, s *set, missing error) error {
	if err := s.exists(missing); err != nil {
		return err
	}
	if err := b.jobs.stop(ctx, s.id()); err != nil {
		return err
	}
	trash, err := b.trashSet(s, missing)
	if err != nil {
		return err
	}
	b.purges.start(func() { b.purge(s.p, trash) }, &s.p.users)
	b.purges.waitFor(ctx, purgeWait)
	return nil
}

func (b *Backend) trashSet(s *set, missing error) (name string, err error) {
	name = s.dir + "." + randomName(8)
	parent := s.p.handle(s.parent)
	if err := renameNew(parent, s.dir, s.p.trash, name); err != nil {
		if notExist(err) {
			if gone := s.exists(missing); gone != nil {
				return "", gone
			}
		}
		return "", unavailable("delete "+s.id(), err)
	}
	b.step("loopfile.deletesnapshot.renamed")
	if err := errors.Join(parent.Sync(), s.p.trash.Sync()); err != nil {
		return "", unavailable(s.p.dir, err)
	}
	b.step("loopfile.deletesnapshot.synced")
	return name, nil
}

// poolName is the first part of every ID.
func (b *Backend) poolName() (string, error) {
	if b.o.Name != "" {
		return b.o.Name, nil
	}
	p, done, err := b.enter(0)
	if err != nil {
		return "", err
	}
	defer done()
	return p.info.Name, nil
}

// checkName refuses what cannot be the name of anything.
func checkName(what, name string) error {
	if name == "" || !utf8.ValidString(name) {
		return fmt.Errorf("%w: %s name %q", backends.ErrInvalid, what, name)
	}
	return nil
}
