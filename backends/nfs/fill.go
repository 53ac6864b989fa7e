package nfs

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/csikit/csikit/backends/nfs/internal/tree"
)

// projectOf makes a new directory a project, and with it the one in which a copy has its
// files of several names: a file has no second name in another project.
func (s *site) projectOf(m *marker, at string, copied bool) error {
	if !copied {
		return s.setProject(m, at)
	}
	links, err := s.linksOf(m.Key)
	if err != nil {
		return err
	}
	return s.setProject(m, at, links)
}

// linksOf makes the directory for files of several names.
func (s *site) linksOf(key string) (string, error) {
	links := s.at(newPath(key + ".links"))
	if err := s.root.Mkdir(links, 0o700); err != nil && !exists(err) {
		return "", err
	}
	return links, nil
}

// fill copies the source into a new directory.
func (s *site) fill(ctx context.Context, in makeIn, key, at string) error {
	src, err := s.source(in)
	if err != nil {
		return fmt.Errorf("the source: %w", err)
	}
	defer func() { _ = src.Close() }() // read only
	if _, err = s.copyTree(ctx, src, key, at, time.Time{}); err != nil {
		return err
	}
	// One that was deleted meanwhile may have been half emptied when it was copied.
	held, err := src.Stat()
	if err != nil {
		return err
	}
	now, err := s.source(in)
	if err != nil {
		return fmt.Errorf("the source, once it was copied: %w", err)
	}
	defer func() { _ = now.Close() }() // only looked at
	if info, err := now.Stat(); err != nil || info.Ino != held.Ino {
		return unavailable("the source was replaced while it was copied: %w", errors.Join(err, syscall.ESTALE))
	}
	return nil
}

func (s *site) source(in makeIn) (*tree.Root, error) {
	if in.FromSnap != "" {
		return s.snapContent(in.FromSnap)
	}
	if in.FromKey != "" {
		if err := s.checkSource(in.FromKey, in.From); err != nil {
			return nil, err
		}
	}
	return s.root.Sub(in.From)
}

// checkSource looks whether the directory of a volume is still that volume's.
func (s *site) checkSource(key, subDir string) error {
	m, err := s.marker(key)
	if err != nil {
		return err
	}
	info, err := s.root.Lstat(subDir)
	if err != nil {
		return err
	}
	if m.State != stateReady || m.SubDir != subDir || !info.Dir() || !s.owns(m, info) {
		return unavailable("%q is not the directory of its volume any more", subDir)
	}
	return nil
}

// copyTree copies a directory to at; files of several names are kept beside it until
// it is whole.
func (s *site) copyTree(ctx context.Context, src *tree.Root, key, at string, still time.Time) (tree.Copied, error) {
	links, err := s.linksOf(key)
	if err != nil {
		return tree.Copied{}, err
	}
	l, err := s.root.Sub(links)
	if err != nil {
		return tree.Copied{}, err
	}
	defer func() { _ = l.Close() }() // nothing is written by it
	dst, err := s.root.Sub(at)
	if err != nil {
		return tree.Copied{}, err
	}
	defer func() { _ = dst.Close() }() // nothing is written by it
	done, err := tree.Copy(ctx, dst, src, l, tree.CopyOptions{Progress: s.progress, Step: s.step, Still: still})
	if err != nil {
		return done, err
	}
	if _, err := l.Clear(ctx, s.progress); err != nil {
		return done, err
	}
	return done, s.root.Rmdir(links)
}
