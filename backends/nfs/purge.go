package nfs

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/csikit/csikit/backends/nfs/internal/tree"
)

// Names of tasks.
const (
	opPurge = "purge"
	opTrash = "trash"
)

type purgeIn struct{ where }

type purgeOut struct {
	Removed int64    `json:"removed"`
	Left    []string `json:"left,omitempty"` // what could not be removed, and why
}

// taskPurge empties the trash. It can be cut anywhere, and begins again with what is
// there. A directory in which something is left stays, and so does that.
func taskPurge(ctx context.Context, s *site, _ purgeIn) (purgeOut, error) {
	var out purgeOut
	if err := s.need(); err != nil {
		return out, err
	}
	names, err := s.root.Names(s.at(dirTrash))
	if err != nil {
		return out, err
	}
	for _, name := range names {
		n, err := s.purge(ctx, s.at(dirTrash, name))
		out.Removed += n
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		if err != nil {
			out.Left = append(out.Left, err.Error())
		}
		s.step("nfs.purge.one")
	}
	return out, nil
}

func (s *site) purge(ctx context.Context, p string) (removed int64, err error) {
	info, err := s.root.Lstat(p)
	if err != nil {
		return 0, ignoreGone(err)
	}
	if !info.Dir() {
		return 1, ignoreGone(s.root.Unlink(p))
	}
	if foreign, err := s.strayed(p, info); err != nil || foreign {
		return 0, err
	}
	d, err := s.root.Sub(p)
	if err != nil {
		return 0, err
	}
	done, err := d.Clear(ctx, func(step string) { s.progress(step); s.step("nfs.purge.part") })
	_ = d.Close() // nothing was written by it
	if err != nil {
		return done.Removed, err
	}
	if s.remembered(p, info) {
		return done.Removed, nil
	}
	return done.Removed + 1, ignoreGone(s.root.Rmdir(p))
}

// strayed tells whether a deletion that has not ended moved here what is not its volume:
// it will move that back.
func (s *site) strayed(p string, info tree.Info) (bool, error) {
	key, _, _ := strings.Cut(path.Base(p), ".")
	if !keyRule.MatchString(key) {
		return false, nil
	}
	m, err := s.marker(key)
	if notExist(err) {
		return false, nil
	}
	return err == nil && m.Target == p && !s.owns(m, info), err
}

// remembered tells whether a marker still names this directory: of a deletion that was
// cut. While the directory is there no other one gets its inode, and the next try sees
// that it was moved.
func (s *site) remembered(p string, info tree.Info) bool {
	key, _, _ := strings.Cut(path.Base(p), ".")
	if !keyRule.MatchString(key) {
		return false
	}
	m, err := s.marker(key)
	return err == nil && (m.Target == p || m.Inode == info.Ino) || err != nil && !notExist(err)
}

type trashIn struct{ where }

// taskTrash is what a start does first: it throws away what an earlier process was
// about to make for nobody, and says whether the trash has something.
func taskTrash(_ context.Context, s *site, _ trashIn) (bool, error) {
	if s.inode == 0 {
		return false, nil
	}
	if err := s.sweep(); err != nil {
		return false, err
	}
	names, err := s.root.Names(s.at(dirTrash))
	return len(names) > 0, err
}

// sweep removes records that were half written, and new directories without a marker.
func (s *site) sweep() error {
	var errs []error
	for _, d := range []string{".", dirVolumes, dirClaims, dirParents, dirProjects, dirSnapshots, dirPending, dirGroups} {
		names, err := s.root.Names(s.at(d))
		if d == dirGroups {
			err = ignoreGone(err) // it is made with the first group
		}
		errs = append(errs, err)
		for _, name := range names {
			if halfWritten.MatchString(name) {
				errs = append(errs, ignoreGone(s.root.Unlink(s.at(d, name))))
			}
		}
	}
	names, err := s.root.Names(s.at(dirNew))
	errs = append(errs, err)
	for _, name := range names {
		errs = append(errs, s.sweepNew(name))
	}
	return errors.Join(errs...)
}

// sweepNew throws away a new directory whose volume or snapshot is not being made.
func (s *site) sweepNew(name string) error {
	key, _, _ := strings.Cut(name, ".")
	rec := markerPath(key)
	if snap, is := strings.CutPrefix(key, newSnap); is {
		rec = snapPath(snap)
	}
	if _, err := s.root.Lstat(s.at(rec)); !notExist(err) {
		return err // it is somebody's, or nobody knows
	}
	if err := s.discard(s.at(dirNew, name)); err != nil {
		return fmt.Errorf("%s: %w", path.Join(dirNew, name), err)
	}
	return nil
}
