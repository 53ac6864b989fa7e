package nfs

import (
	"context"
	"errors"
	"path"
	"strings"
	"syscall"
)

// undo removes what a volume that never was has left.
func (s *site) undo(ctx context.Context, m *marker) error {
	unlock, err := s.lockMarker(ctx, m)
	if err != nil {
		return err
	}
	defer unlock()
	another, err := s.anothers(m)
	if err != nil {
		return err
	}
	info, err := s.root.Lstat(m.SubDir)
	switch {
	case another:
	case err == nil && m.Inode != 0 && info.Dir() && m.Root == s.inode && info.Ino == m.Inode && !m.Adopted:
		if err := s.toTrash(m.SubDir, m.Key); err != nil {
			return err
		}
	case err != nil && !notExist(err) && !errors.Is(err, syscall.ELOOP) && !errors.Is(err, syscall.ENOTDIR) && !errors.Is(err, syscall.EXDEV):
		return err
	}
	for _, p := range []string{s.at(newPath(m.Key)), s.at(dirNew, m.Key+".links")} {
		if err := s.discard(p); err != nil {
			return err
		}
	}
	s.step("nfs.undo.discarded")
	return s.forget(m)
}

// discard moves something of the installation's to the trash.
func (s *site) discard(p string) error {
	return ignoreGone(s.toTrash(p, strings.TrimSuffix(path.Base(p), ".links")))
}

func (s *site) toTrash(p, key string) error {
	if err := s.root.Rename(p, s.at(dirTrash, key+"."+randomName())); err != nil {
		return err
	}
	return errors.Join(s.root.Sync(path.Dir(p)), s.root.Sync(s.at(dirTrash)))
}

// forget removes what is noted of a volume whose directory is gone; the marker last.
func (s *site) forget(m *marker) error {
	if err := s.dropParents(m.SubDir); err != nil {
		return err
	}
	if err := s.dropClaim(m.SubDir, m.Key); err != nil {
		return err
	}
	s.step("nfs.forget.unclaimed")
	if err := s.dropProject(m); err != nil {
		return err
	}
	if err := s.erase(markerPath(m.Key)); err != nil {
		return err
	}
	s.step("nfs.forget.done")
	return nil
}
