package mem

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/csikit/csikit/backends"
)

// dir is where a volume or a snapshot has its files; "" when it has none. IDs
// are made of hexadecimal digits, so that they cannot lead elsewhere.
func (s *Store) dir(id string) string {
	if s.o.Dir == "" || s.o.Devices {
		return ""
	}
	return filepath.Join(s.o.Dir, id)
}

// makeDir makes the files of id anew: a copy of the source's, or none.
func (s *Store) makeDir(id string, source backends.ContentSource) error {
	dir := s.dir(id)
	if dir == "" {
		return nil
	}
	if err := s.removeDir(id); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, from := range []string{source.SnapshotID, source.VolumeID} {
		if from == "" {
			continue
		}
		if err := os.CopyFS(dir, os.DirFS(s.dir(from))); err != nil {
			return err
		}
	}
	return nil
}

// removeDir removes the files of id, which may be gone. It stays inside Dir.
func (s *Store) removeDir(id string) error {
	if s.dir(id) == "" {
		return nil
	}
	root, err := os.OpenRoot(s.o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(root.RemoveAll(id), root.Close())
}
