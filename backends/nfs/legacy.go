package nfs

import (
	"context"
	"fmt"

	"github.com/csikit/csikit/backends"
)

// Names of tasks.
const (
	opLegacy       = "legacy"
	opLegacyDelete = "legacy-delete"
)

// legacyKey stands for the key of a volume that csi-driver-nfs made.
func legacyKey(id string) string { return keyOf("csi-driver-nfs\x00" + id) }

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
	key := legacyKey(in.ID)
	m, err := s.marker(key)
	if err == nil {
		return unmakeOut{true}, s.unmake(ctx, m)
	}
	if !notExist(err) {
		return unmakeOut{}, err
	}
	there, err := taskLegacy(ctx, s, in)
	if err != nil || !there {
		return unmakeOut{}, err
	}
	m, err = s.adoptLegacy(in, key)
	if err != nil {
		return unmakeOut{}, err
	}
	return unmakeOut{true}, s.unmake(ctx, m)
}

func (s *site) adoptLegacy(in legacyIn, key string) (*marker, error) {
	refuse := func(err error) error {
		return fmt.Errorf("%w: %s is not deleted: %w", backends.ErrPrecondition, in.ID, err)
	}
	have, err := s.claimed(in.SubDir)
	if err != nil {
		return nil, err
	}
	if have != "" && have != key {
		return nil, refuse(fmt.Errorf("%q belongs to another volume, %s", in.SubDir, have))
	}
	if err := s.freeAbove(in.SubDir); err != nil {
		return nil, refuse(err)
	}
	if err := s.freeBelow(in.SubDir); err != nil {
		return nil, refuse(err)
	}
	info, err := s.root.Lstat(in.SubDir)
	if err != nil {
		return nil, err
	}
	m := &marker{
		Version: markerVersion, Key: key, Name: in.SubDir, Legacy: in.ID, SubDir: in.SubDir, State: stateReady,
		OnDelete: in.OnDelete, Adopted: true, Inode: info.Ino, Root: s.inode,
	}
	if err := s.saveNew(m); err != nil {
		return nil, err
	}
	s.step("nfs.legacy.marked")
	return m, s.takeClaim(in.SubDir, key)
}
