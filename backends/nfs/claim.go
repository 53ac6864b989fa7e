package nfs

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/csikit/csikit/backends"
)

// claim says whose a path of the share is. Two volumes at one path, or one inside of
// another, would be one volume for whoever deletes it.
type claim struct {
	Version int    `json:"version"`
	Path    string `json:"path"`
	Key     string `json:"key"`
	Inode   uint64 `json:"inode,omitempty"` // of a parent that we made
	Root    uint64 `json:"root,omitempty"`
}

func claimPath(dir, subDir string) string { return dir + "/" + keyOf(subDir) + ".json" }

// claimed is the key of the volume that claims exactly this path; "": none.
func (s *site) claimed(subDir string) (key string, err error) {
	var c claim
	err = s.read(claimPath(dirClaims, subDir), &c)
	if notExist(err) {
		return "", nil
	}
	if err == nil && c.Path != subDir {
		err = unavailable("the claim of %q is damaged", subDir)
	}
	return c.Key, err
}

// takeClaim claims a path for a key.
func (s *site) takeClaim(subDir, key string) error {
	err := s.writeNew(claimPath(dirClaims, subDir), claim{Version: 1, Path: subDir, Key: key})
	if !exists(err) {
		return err
	}
	switch have, err := s.claimed(subDir); {
	case err != nil:
		return err
	case have == "":
		return unavailable("the claim of %q comes and goes", subDir)
	case have != key:
		return fmt.Errorf("%w: subDir %q is another volume's", backends.ErrIncompatible, subDir)
	}
	return nil
}

func (s *site) dropClaim(subDir, key string) error {
	have, err := s.claimed(subDir)
	if err != nil || have != key {
		return err
	}
	return s.erase(claimPath(dirClaims, subDir))
}

// anothers tells whether another volume claims a marker's path by now. Then what stands
// there is not the marker's, whatever its inode: numbers are used again.
func (s *site) anothers(m *marker) (bool, error) {
	have, err := s.claimed(m.SubDir)
	return have != "" && have != m.Key, err
}

// freeAbove refuses a path inside of another volume.
func (s *site) freeAbove(subDir string) error {
	if path.Dir(subDir) == "." {
		return nil
	}
	others, err := s.others()
	if err != nil {
		return err
	}
	for p := path.Dir(subDir); p != "."; p = path.Dir(p) {
		if err := s.notOthers(others, p); err != nil {
			return err
		}
		switch key, err := s.claimed(p); {
		case err != nil:
			return err
		case key != "":
			return fmt.Errorf("%w: subDir %q is inside of another volume, %q", backends.ErrIncompatible, subDir, p)
		}
	}
	return nil
}

// freeBelow refuses a path with another volume inside. It reads every marker, and is
// for directories that we did not make.
func (s *site) freeBelow(subDir string) error {
	keys, err := s.keys(dirVolumes)
	if err != nil {
		return err
	}
	for _, key := range keys {
		switch m, err := s.marker(key); {
		case notExist(err):
		case err != nil:
			return err
		case strings.HasPrefix(m.SubDir, subDir+"/"):
			return fmt.Errorf("%w: subDir %q has another volume inside, %q", backends.ErrIncompatible, subDir, m.SubDir)
		}
	}
	if err := s.noneBelow(subDir); err != nil {
		return err
	}
	if err := s.noneKept(subDir); err != nil {
		return err
	}
	return s.noShare(subDir)
}

// noneKept refuses a path with a directory inside that a deleted volume left, because
// its class says retain.
func (s *site) noneKept(subDir string) error {
	names, err := s.root.Names(s.at(dirKept))
	if err != nil {
		return err
	}
	for some := range slices.Chunk(names, readAhead) {
		errs := make([]error, len(some))
		var wg sync.WaitGroup
		for i, name := range some {
			wg.Go(func() { errs[i] = s.notKept(subDir, path.Join(dirKept, name)) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) notKept(subDir, record string) error {
	var m marker
	if err := s.read(record, &m); err != nil {
		return ignoreGone(err)
	}
	if m.State != stateRetaining || !strings.HasPrefix(m.SubDir, subDir+"/") {
		return nil
	}
	info, err := s.root.Lstat(m.SubDir)
	if err == nil && info.Dir() && s.owns(&m, info) {
		return fmt.Errorf("%w: subDir %q has a directory inside that was to be kept, %q (of volume %q)", backends.ErrIncompatible, subDir, m.SubDir, m.Name)
	}
	return ignoreGone(err)
}

// noShare refuses a directory that is the root of a share, of whichever installation.
func (s *site) noShare(subDir string) error {
	names, err := s.root.Names(subDir)
	if err != nil {
		return ignoreGone(err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, controlPrefix) {
			continue
		}
		switch _, err := s.root.Lstat(path.Join(subDir, name, shareFile)); {
		case err == nil:
			return fmt.Errorf("%w: subDir %q is a share itself, and may have volumes", backends.ErrIncompatible, subDir)
		case !notExist(err) && !noDirectory(err):
			return err
		}
	}
	return nil
}

// makeParents makes what is missing above a path, and notes what it made.
func (s *site) makeParents(subDir string) error {
	var missing []string
	for p := path.Dir(subDir); p != "."; p = path.Dir(p) {
		info, err := s.root.Lstat(p)
		if err == nil && !info.Dir() {
			return fmt.Errorf("%w: %q is no directory", backends.ErrIncompatible, p)
		}
		if err == nil {
			break
		}
		if !notExist(err) {
			return err
		}
		missing = append(missing, p)
	}
	for _, p := range slices.Backward(missing) {
		if err := s.makeParent(p); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) makeParent(p string) error {
	err := s.root.Mkdir(p, 0o755)
	if exists(err) {
		return nil // somebody else made it meanwhile
	}
	if err != nil {
		return err
	}
	s.step("nfs.parent.made")
	info, err := s.root.Lstat(p)
	if err != nil {
		return err
	}
	// The mode is not for the umask to say.
	if err := s.root.SetOwner(p, -1, -1, 0o755); err != nil {
		return err
	}
	if err := s.write(claimPath(dirParents, p), claim{Version: 1, Path: p, Inode: info.Ino, Root: s.inode}); err != nil {
		return err
	}
	return s.root.Sync(path.Dir(p))
}

// dropParents removes, by rmdir, what makeParents made and nobody uses any more.
func (s *site) dropParents(subDir string) error {
	for p := path.Dir(subDir); p != "."; p = path.Dir(p) {
		var c claim
		err := s.read(claimPath(dirParents, p), &c)
		if notExist(err) {
			return nil // not ours, nor is what is above it to be looked at
		}
		if err != nil {
			return err
		}
		if key, err := s.claimed(p); err != nil || key != "" {
			return err // a volume by now, however empty
		}
		if has, err := s.othersHave(p); err != nil || has {
			return err // or another installation's
		}
		info, err := s.root.Lstat(p)
		if err != nil && !notExist(err) {
			return err
		}
		if err == nil {
			if c.Path != p || !info.Dir() || c.Root == s.inode && c.Inode != info.Ino {
				return s.erase(claimPath(dirParents, p)) // it is somebody else's by now
			}
			err := s.root.Rmdir(p)
			if errors.Is(err, syscall.ENOTEMPTY) || exists(err) || errors.Is(err, syscall.EBUSY) {
				return nil
			}
			if err := ignoreGone(err); err != nil {
				return err
			}
			s.step("nfs.parent.removed")
		}
		if err := s.erase(claimPath(dirParents, p)); err != nil {
			return err
		}
	}
	return nil
}
