package nfs

import (
	"context"
	"errors"
	"fmt"

	"github.com/csikit/csikit/backends"
)

// Names of tasks.
const (
	opLegacy       = "legacy"
	opLegacyDelete = "legacy-delete"
)

// legacyKey stands for the key of a volume that csi-driver-nfs made: of its directory,
// for which there may be several handles.
func legacyKey(subDir string) string { return keyOf("csi-driver-nfs\x00" + subDir) }

type legacyIn struct {
	where
	ID       string `json:"id"`
	SubDir   string `json:"subDir"`
	OnDelete string `json:"onDelete"`
}

// taskLegacy tells whether the directory of a volume of csi-driver-nfs is there. That
// it is not can be known only of a share that this driver knows.
func taskLegacy(_ context.Context, s *site, in legacyIn) (bool, error) {
	if err := checkSubDir(in.SubDir); err != nil {
		return false, fmt.Errorf("%w: %w", backends.ErrInvalid, err)
	}
	info, err := s.root.Lstat(in.SubDir)
	if notExist(err) {
		return false, s.need()
	}
	if err != nil {
		return false, err
	}
	if !info.Dir() {
		return false, fmt.Errorf("%w: %q is no directory", backends.ErrPrecondition, in.SubDir)
	}
	return true, nil
}

// taskLegacyDelete deletes a volume of csi-driver-nfs. It gets a marker first, and so
// goes as our own do; a path that has to do with a volume of ours is refused.
func taskLegacyDelete(ctx context.Context, s *site, in legacyIn) (unmakeOut, error) {
	if err := s.need(); err != nil {
		return unmakeOut{}, err
	}
	key := legacyKey(in.SubDir)
	m, err := s.marker(key)
	if notExist(err) {
		there, err := taskLegacy(ctx, s, in)
		if err != nil || !there {
			return unmakeOut{}, err
		}
		if m, err = s.markLegacy(in, key); err != nil {
			return unmakeOut{}, err
		}
	} else if err != nil {
		return unmakeOut{}, err
	}
	if m.State == stateReady {
		if err := s.claimLegacy(m); err != nil {
			return unmakeOut{}, err
		}
	}
	return unmakeOut{true}, s.unmake(ctx, m)
}

// markLegacy gives a directory a marker, if it has nothing to do with a volume of ours.
func (s *site) markLegacy(in legacyIn, key string) (*marker, error) {
	info, err := s.root.Lstat(in.SubDir)
	if err != nil {
		return nil, err
	}
	m := &marker{
		Version: markerVersion, Key: key, Name: in.SubDir, Legacy: in.ID, SubDir: in.SubDir, State: stateReady,
		OnDelete: in.OnDelete, Adopted: true, Inode: info.Ino, Root: s.inode,
	}
	if err := s.freeLegacy(m); err != nil {
		return nil, refuseLegacy(m, err)
	}
	if err := s.saveNew(m); err != nil {
		return nil, err
	}
	s.step("nfs.legacy.marked")
	return m, nil
}

// claimLegacy claims the path, and looks again: a volume that was made meanwhile is
// seen by it, or has seen the claim.
func (s *site) claimLegacy(m *marker) error {
	err := s.takeClaim(m.SubDir, m.Key)
	if err == nil {
		s.step("nfs.legacy.claimed")
		err = s.freeLegacy(m)
	}
	if !errors.Is(err, backends.ErrIncompatible) {
		return err
	}
	if left := errors.Join(s.dropClaim(m.SubDir, m.Key), s.erase(markerPath(m.Key))); left != nil {
		return unavailable("%w, and then: %w", err, left)
	}
	return refuseLegacy(m, err)
}

// freeLegacy is ErrIncompatible for a path that has to do with a volume of ours.
func (s *site) freeLegacy(m *marker) error {
	switch have, err := s.claimed(m.SubDir); {
	case err != nil:
		return err
	case have != "" && have != m.Key:
		return fmt.Errorf("%w: %q belongs to another volume, %s", backends.ErrIncompatible, m.SubDir, have)
	}
	if err := s.freeAbove(m.SubDir); err != nil {
		return err
	}
	return s.freeBelow(m.SubDir)
}

func refuseLegacy(m *marker, err error) error {
	if !errors.Is(err, backends.ErrIncompatible) {
		return err
	}
	return fmt.Errorf("%w: %s is not deleted: %w", backends.ErrPrecondition, m.Legacy, err)
}
