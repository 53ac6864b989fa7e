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

// snapshot is a snapshot that a subject made.
type snapshot struct {
	*Walk

	name   string
	of     *Volume
	has    *content // that the volume had
	size   int64    // and how big it was
	snap   *csi.Snapshot
	doubt  bool // one may have been made
	exists bool
}

// snapshots: what is restored is what was there when the snapshot was taken,
// whatever is written since, and wherever.
func (w *Walk) snapshots(ctx context.Context) error {
	source := w.newVolume("source")
	if err := steps(ctx, source.create, source.up, source.writes("what was written before the snapshot")); err != nil {
		return err
	}
	s := w.newSnapshot("snapshot", source)
	if err := steps(ctx, s.take, source.writes("what was written after the snapshot"), source.compareAll, s.listedSnapshot); err != nil {
		return err
	}
	if err := w.derive(ctx, "restored", 2*source.size, s.source(), s.has, source); err != nil {
		return err
	}
	// What was written to the first is nothing to the second.
	if err := w.derive(ctx, "restored-2", source.size, s.source(), s.has, source); err != nil {
		return err
	}
	return steps(ctx, s.delete, source.down, source.delete)
}

// writes is a step that writes through pod-1.
func (v *Volume) writes(label string) func(context.Context) error {
	return func(context.Context) error { return v.write(label) }
}

func (w *Walk) newSnapshot(alias string, of *Volume) *snapshot {
	s := &snapshot{Walk: w, name: w.o.Name + "-" + alias, of: of}
	w.made = append(w.made, s)
	return s
}

func (s *snapshot) id() string { return s.snap.GetSnapshotId() }

func (s *snapshot) source() *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: s.id()},
	}}
}

func (s *snapshot) create(ctx context.Context, what string) error {
	s.doubt = !s.exists
	resp, err := call(ctx, s.Walk, "CreateSnapshot", what, s.controller.CreateSnapshot,
		&csi.CreateSnapshotRequest{SourceVolumeId: s.of.id(), Name: s.name, Secrets: s.o.Secrets})
	if err != nil {
		s.doubt = s.doubt && !final(err)
		return err
	}
	got := resp.GetSnapshot()
	if got.GetSnapshotId() == "" {
		return errors.New("CreateSnapshot answers OK and no snapshot_id")
	}
	if s.doubt, s.exists = false, true; s.snap == nil {
		s.snap = got
	}
	return s.same("CreateSnapshot", got)
}

// take takes the snapshot while the volume is in use, if the driver does so.
func (s *snapshot) take(ctx context.Context) error {
	s.has, s.size = s.of.has, s.of.size
	err := s.create(ctx, "a snapshot called "+s.name)
	if status.Code(err) == codes.FailedPrecondition {
		s.See("not while the volume is in use, says the driver")
		err = steps(ctx, s.of.down, func(ctx context.Context) error {
			return s.create(ctx, "while nobody uses the volume")
		}, s.of.up)
	}
	if err != nil {
		return err
	}
	s.See("snapshot %s, %s", s.id(), mib(s.snap.GetSizeBytes()))
	if err := s.create(ctx, "again: the same call"); err != nil {
		return err
	}
	return s.ready(ctx)
}

// same: whoever tells of the snapshot tells of this one.
func (s *snapshot) same(rpc string, got *csi.Snapshot) error {
	switch {
	case got.GetSnapshotId() != s.id():
		return fmt.Errorf("%s answers snapshot %q, it is %q", rpc, got.GetSnapshotId(), s.id())
	case got.GetSourceVolumeId() != s.of.id():
		return fmt.Errorf("%s says that the snapshot is one of volume %q, it is one of %q", rpc, got.GetSourceVolumeId(), s.of.id())
	case got.GetGroupSnapshotId() != s.snap.GetGroupSnapshotId():
		return fmt.Errorf("%s says that the snapshot is of group %q, it is of %q", rpc, got.GetGroupSnapshotId(), s.snap.GetGroupSnapshotId())
	case got.GetCreationTime() == nil:
		return fmt.Errorf("%s does not say when the snapshot was taken", rpc)
	case !got.GetCreationTime().AsTime().Equal(s.snap.GetCreationTime().AsTime()):
		return fmt.Errorf("%s says that the snapshot was taken at %v, and before it was at %v", rpc, got.GetCreationTime().AsTime(), s.snap.GetCreationTime().AsTime())
	case s.snap.GetReadyToUse() && !got.GetReadyToUse():
		return fmt.Errorf("%s says that the snapshot is not ready, and it was", rpc)
	}
	if got.GetReadyToUse() {
		s.snap.ReadyToUse = true
	}
	return nil
}

// ready asks until the snapshot can be used, as a snapshotter does.
func (s *snapshot) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	for !s.snap.GetReadyToUse() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("snapshot %s does not get ready to use: %w", s.id(), ctx.Err())
		case <-time.After(s.o.pause):
		}
		if err := s.create(ctx, "is it ready to use?"); err != nil {
			return err
		}
	}
	return nil
}

func (s *snapshot) remove(ctx context.Context, what string) error {
	_, err := call(ctx, s.Walk, "DeleteSnapshot", what, s.controller.DeleteSnapshot, &csi.DeleteSnapshotRequest{SnapshotId: s.id(), Secrets: s.o.Secrets})
	if err == nil {
		s.exists = false
	}
	return err
}

// delete deletes the snapshot, and once more, and looks whether it is gone.
func (s *snapshot) delete(ctx context.Context) error {
	if err := s.remove(ctx, "nothing depends on it"); err != nil {
		return err
	}
	s.forget(s)
	if err := s.remove(ctx, "again: it is gone"); err != nil {
		return err
	}
	return s.goneSnapshot(ctx)
}

func (s *snapshot) takeBack(ctx context.Context) error {
	if s.doubt {
		if err := s.create(ctx, "is there one?"); err != nil {
			return err
		}
	}
	if !s.exists {
		return nil
	}
	return s.remove(ctx, "")
}

func (s *snapshot) left() []string {
	switch {
	case s.exists:
		return []string{"snapshot " + s.id()}
	case s.doubt:
		return []string{"perhaps a snapshot called " + s.name}
	}
	return nil
}
