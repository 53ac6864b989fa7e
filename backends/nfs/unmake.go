package nfs

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/nfs/internal/tree"
)

type unmakeIn struct {
	where
	Key string `json:"key"`
	// HalfMade: not if it was finished meanwhile.
	HalfMade bool `json:"halfMade,omitempty"`
}

type unmakeOut struct {
	Found bool `json:"found"`
}

// taskUnmake deletes a volume by what its marker says. What an earlier try began is
// ended in the same way.
func taskUnmake(ctx context.Context, s *site, in unmakeIn) (unmakeOut, error) {
	if err := s.need(); err != nil {
		return unmakeOut{}, err
	}
	m, err := s.marker(in.Key)
	if notExist(err) {
		return unmakeOut{}, nil
	}
	if err != nil {
		return unmakeOut{}, err
	}
	if in.HalfMade && m.State != stateCreating {
		return unmakeOut{}, unavailable("volume %q was finished, or is being deleted, meanwhile", m.Name)
	}
	return unmakeOut{true}, s.unmake(ctx, m)
}

func (s *site) unmake(ctx context.Context, m *marker) error {
	if m.State == stateCreating {
		return s.undo(ctx, m)
	}
	if err := s.notPending(m.Key); err != nil {
		return err
	}
	if m.State == stateReady {
		if err := s.sentence(m); err != nil {
			return err
		}
		s.step("nfs.unmake.marked")
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if m.State == stateRetaining {
		return s.keep(m)
	}
	if err := s.carryOut(m); err != nil {
		return err
	}
	s.step("nfs.unmake.moved")
	if m.State == stateArchiving {
		return s.keep(m)
	}
	return s.forget(m)
}

// sentence writes down what becomes of a volume, and where its directory goes. A
// directory that is not the volume's is nobody's to delete.
func (s *site) sentence(m *marker) error {
	info, err := s.root.Lstat(m.SubDir)
	if err != nil && !notExist(err) {
		return err
	}
	if err == nil && (!info.Dir() || !s.owns(m, info)) {
		return fmt.Errorf("%w: %q is not the directory that was volume %q: it is left alone (remove %s to forget the volume)",
			backends.ErrPrecondition, m.SubDir, m.Name, s.at(markerPath(m.Key)))
	}
	switch m.OnDelete {
	case onDeleteRetain:
		m.State = stateRetaining
	case onDeleteArchive:
		m.State, m.Target = stateArchiving, archiveName(m, time.Now())
	default:
		m.State, m.Target = stateDeleting, s.at(dirTrash, m.Key+"."+randomName())
	}
	return s.save(m)
}

// archiveName is where a volume goes that is archived: a name that no other has, and
// that it keeps from then on.
func archiveName(m *marker, now time.Time) string {
	tail := "-" + now.UTC().Format("20060102T150405Z") + "-" + randomName()
	name := archivedPrefix + strings.ReplaceAll(m.SubDir, "/", "-")
	return name[:min(len(name), maxComponent-len(tail))] + tail
}

// carryOut moves the directory to where the marker says, once. What stands at its
// place afterwards is somebody else's.
func (s *site) carryOut(m *marker) error {
	if has, err := s.anothers(m); err != nil || has {
		return err // a claim is given back after the move
	}
	if info, err := s.root.Lstat(m.Target); !notExist(err) {
		if err != nil {
			return err
		}
		return s.arrived(m, info) // moved: nobody else knows that name
	}
	info, err := s.root.Lstat(m.SubDir)
	switch {
	case notExist(err):
		return nil // moved, or never there
	case err != nil:
		return err
	case !info.Dir() || !s.owns(m, info):
		return nil
	}
	if m.Root != s.inode || m.Inode == 0 { // its inode says nothing
		if has, err := s.othersHave(m.SubDir); err != nil || has {
			return err
		}
	}
	s.step("nfs.unmake.looked")
	err = s.root.Rename(m.SubDir, m.Target)
	switch {
	case notExist(err): // an answer that was lost
		if _, look := s.root.Lstat(m.SubDir); !notExist(look) {
			return err
		}
	case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.EXDEV):
		return fmt.Errorf("%w: %q is a mount point on this host: %w", backends.ErrInUse, m.SubDir, err)
	case err != nil:
		return err
	}
	if err := errors.Join(s.root.Sync(path.Dir(m.SubDir)), s.root.Sync(path.Dir(m.Target))); err != nil {
		return err
	}
	s.step("nfs.unmake.renamed")
	if info, err = s.root.Lstat(m.Target); err != nil {
		return ignoreGone(err)
	}
	return s.arrived(m, info)
}

// arrived looks at what a rename has moved. It goes by the name, and between the look and
// the rename somebody may have put another directory there: that goes back.
func (s *site) arrived(m *marker, info tree.Info) error {
	if s.owns(m, info) {
		return nil
	}
	if err := s.root.Rename(m.Target, m.SubDir); err != nil {
		return unavailable("%q is not the directory that was volume %q, and cannot be moved back to %q: %w", m.Target, m.Name, m.SubDir, err)
	}
	return unavailable("%q was replaced while volume %q was being deleted: what is there now is left alone", m.SubDir, m.Name)
}

// keep puts the marker away of a volume whose directory stays.
func (s *site) keep(m *marker) error {
	if m.State == stateArchiving {
		if err := s.dropParents(m.SubDir); err != nil {
			return err
		}
	}
	if err := s.dropClaim(m.SubDir, m.Key); err != nil {
		return err
	}
	if err := s.dropProject(m); err != nil {
		return err
	}
	s.step("nfs.keep.unclaimed")
	err := s.root.Rename(s.at(markerPath(m.Key)), s.at(dirKept, m.Key+"."+randomName()+".json"))
	if err := ignoreGone(err); err != nil {
		return err
	}
	s.step("nfs.keep.done")
	return errors.Join(s.root.Sync(s.at(dirVolumes)), s.root.Sync(s.at(dirKept)))
}
