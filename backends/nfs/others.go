package nfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"

	"github.com/csikit/csikit/backends"
)

// Several installations may share an export. Each has records of its own, and what it
// knows of the others is what lies there: a volume inside of another one's would go with
// that.

// others are the directories of other installations.
func (s *site) others() ([]string, error) {
	names, err := s.root.Names(".")
	if err != nil {
		return nil, err
	}
	var list []string
	for _, name := range names {
		if strings.HasPrefix(name, controlPrefix) && name != s.control {
			list = append(list, name)
		}
	}
	return list, nil
}

// notOthers refuses a path that another installation claims.
func (s *site) notOthers(others []string, p string) error {
	for _, o := range others {
		switch _, err := s.root.Lstat(path.Join(o, claimPath(dirClaims, p))); {
		case err == nil:
			return fmt.Errorf("%w: %q is a volume of another installation, %s", backends.ErrIncompatible, p, strings.TrimPrefix(o, controlPrefix))
		case !notExist(err) && !noDirectory(err):
			return err
		}
	}
	return nil
}

// noDirectory is what a path says that leads through a file or a link: what somebody
// called like that is no installation.
func noDirectory(err error) bool {
	return errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}

// othersHave tells whether another installation claims a path.
func (s *site) othersHave(p string) (bool, error) {
	others, err := s.others()
	if err != nil {
		return false, err
	}
	err = s.notOthers(others, p)
	if errors.Is(err, backends.ErrIncompatible) {
		return true, nil
	}
	return false, err
}

// noneBelow refuses a path that is a volume of another installation, or has one inside.
func (s *site) noneBelow(subDir string) error {
	others, err := s.others()
	if err != nil {
		return err
	}
	if err := s.notOthers(others, subDir); err != nil {
		return err
	}
	for _, o := range others {
		names, err := s.root.Names(path.Join(o, dirClaims))
		if err != nil && !notExist(err) && !noDirectory(err) {
			return err
		}
		for _, name := range names {
			if !strings.HasSuffix(name, ".json") {
				continue // half written
			}
			b, err := s.root.ReadFile(path.Join(o, dirClaims, name), maxRecord)
			if notExist(err) {
				continue // given back meanwhile
			}
			var c claim
			if err == nil {
				err = json.Unmarshal(b, &c)
			}
			if err != nil {
				return unavailable("what %s claims cannot be read: %w", o, err)
			}
			if strings.HasPrefix(c.Path, subDir+"/") {
				return fmt.Errorf("%w: subDir %q has a volume of another installation inside, %q", backends.ErrIncompatible, subDir, c.Path)
			}
		}
	}
	return nil
}
