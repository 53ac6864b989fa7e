package nfs

import (
	"context"
	"errors"
	"fmt"
	"path"
	"syscall"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/nfs/internal/tree"
)

// Names of tasks.
const (
	opInit   = "init"
	opFind   = "find"
	opMake   = "make"
	opUnmake = "unmake"
	opResize = "resize"
)

type initIn struct{ where }

// taskInit prepares the share. The answer is whether it is prepared.
func taskInit(_ context.Context, s *site, _ initIn) (bool, error) { return s.id != "", nil }

// findIn names a volume by key.
type findIn struct {
	where
	Key string `json:"key"`
}

// findOut is the marker, if there is one.
type findOut struct {
	Marker *marker `json:"marker,omitempty"`
}

func taskFind(_ context.Context, s *site, in findIn) (findOut, error) {
	if err := s.need(); err != nil {
		return findOut{}, err
	}
	m, err := s.marker(in.Key)
	if notExist(err) {
		return findOut{}, nil
	}
	return findOut{m}, err
}

// makeIn describes a volume to make.
type makeIn struct {
	where
	Marker marker `json:"marker"`
	From   string `json:"from,omitempty"` // the directory of a volume, which is copied
	// FromKey is the volume's that From is; "" for one of csi-driver-nfs.
	FromKey  string `json:"fromKey,omitempty"`
	FromSnap string `json:"fromSnap,omitempty"` // a snapshot, which is copied
	Adopt    bool   `json:"adopt,omitempty"`
	Mode     uint32 `json:"mode,omitempty"` // 0: 0755, or as the source has it
	UID      int    `json:"uid"`            // -1: the controller's, or the source's
	GID      int    `json:"gid"`
	Project  bool   `json:"project,omitempty"` // set a project quota of Marker.Size
	Hold     bool   `json:"hold,omitempty"`    // not ready yet: the hook comes first
}

// taskMake makes a volume, or goes on where an earlier try ended. Whatever ends it with
// a final error is undone.
func taskMake(ctx context.Context, s *site, in makeIn) (*marker, error) {
	if err := s.need(); err != nil {
		return nil, err
	}
	m, err := s.begin(ctx, in)
	if err != nil {
		return nil, err
	}
	err = s.make(ctx, in, m)
	if err == nil {
		return m, nil
	}
	err = kindOf(err)
	if errors.Is(err, backends.ErrUnavailable) || ctx.Err() != nil {
		return nil, err // the next try goes on from there
	}
	if left := s.undo(ctx, m); left != nil {
		return nil, unavailable("%w, and then: %w", err, left)
	}
	return nil, err
}

// begin finds the marker of a try that did not end, or makes one.
func (s *site) begin(ctx context.Context, in makeIn) (*marker, error) {
	m, err := s.marker(in.Marker.Key)
	switch {
	case notExist(err):
	case err != nil:
		return nil, err
	case m.State == stateReady:
		return nil, fmt.Errorf("%w: volume %q", backends.ErrExists, in.Marker.Name)
	case m.State == stateCreating && m.same(&in.Marker):
		return m, nil
	case m.State == stateCreating:
		// Another volume was asked for by this name, and never answered for.
		if err := s.undo(ctx, m); err != nil {
			return nil, err
		}
	default:
		if err := s.unmake(ctx, m); err != nil {
			return nil, err
		}
	}
	n := in.Marker
	n.Version, n.State, n.Created = markerVersion, stateCreating, time.Now().UTC()
	if err := s.saveNew(&n); err != nil {
		if exists(err) {
			return nil, unavailable("volume %q is being made elsewhere", n.Name)
		}
		return nil, err
	}
	s.step("nfs.make.marked")
	return &n, nil
}

// same tells whether both are of one request.
func (m *marker) same(o *marker) bool {
	return m.Name == o.Name && m.SubDir == o.SubDir && m.Size == o.Size && m.Fingerprint == o.Fingerprint &&
		m.source() == o.source() && m.OnDelete == o.OnDelete && m.Ephemeral == o.Ephemeral
}

// make brings a volume from "creating" to "ready".
func (s *site) make(ctx context.Context, in makeIn, m *marker) error {
	if err := s.takeClaim(m.SubDir, m.Key); err != nil {
		return err
	}
	s.step("nfs.make.claimed")
	unlock, err := s.lockMarker(ctx, m)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.freeAbove(m.SubDir); err != nil {
		return err
	}
	placed, err := s.placed(m, in.Adopt)
	if err != nil {
		return err
	}
	if !placed {
		if err := s.build(ctx, in, m); err != nil {
			return err
		}
		if err := s.place(m); err != nil {
			return err
		}
		s.step("nfs.make.placed")
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if in.Hold {
		return nil
	}
	m.State = stateReady
	if err := s.save(m); err != nil {
		return unavailable("%w", err) // it may be there
	}
	s.step("nfs.make.ready")
	return nil
}

// placed tells whether the directory stands where it belongs. What stands there
// and is not ours is adopted or refused.
func (s *site) placed(m *marker, adopt bool) (bool, error) {
	info, err := s.root.Lstat(m.SubDir)
	if notExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	switch {
	case m.Inode != 0 && info.Dir() && s.owns(m, info):
		return true, nil
	case !adopt:
		return false, fmt.Errorf("%w: %q is there already, and not of this driver: it is left alone (adopt: \"true\" in the class would take it)",
			backends.ErrIncompatible, m.SubDir)
	case !info.Dir():
		return false, fmt.Errorf("%w: %q is no directory", backends.ErrIncompatible, m.SubDir)
	case m.Source != nil:
		return false, fmt.Errorf("%w: %q is there already, and a copy cannot be put over it", backends.ErrIncompatible, m.SubDir)
	}
	if err := s.freeBelow(m.SubDir); err != nil {
		return false, err
	}
	if _, err := s.root.Sub(m.SubDir); err != nil {
		return false, err // another file system, for example
	}
	if err := s.erase(claimPath(dirParents, m.SubDir)); err != nil {
		return false, err // it is no parent any more
	}
	m.Inode, m.Root, m.Adopted = info.Ino, s.inode, true
	if err := s.save(m); err != nil {
		return false, err
	}
	s.step("nfs.make.adopted")
	return true, nil
}

// owns tells whether what was looked at is the marker's directory.
func (s *site) owns(m *marker, info tree.Info) bool {
	return m.Root != s.inode || m.Inode == 0 || m.Inode == info.Ino
}

func newPath(key string) string { return dirNew + "/" + key }

// build makes the directory aside, with everything that is to be in it.
func (s *site) build(ctx context.Context, in makeIn, m *marker) error {
	at := s.at(newPath(m.Key))
	if err := s.root.Mkdir(at, 0o700); err != nil && !exists(err) {
		return err
	}
	s.step("nfs.make.built")
	copied := in.From != "" || in.FromSnap != ""
	if in.Project {
		if err := s.projectOf(m, at, copied); err != nil {
			return err
		}
	}
	mode := int64(in.Mode)
	if copied {
		if err := s.fill(ctx, in, m.Key, at); err != nil {
			return err
		}
		s.step("nfs.make.filled")
		if mode == 0 {
			mode = -1
		}
	} else if mode == 0 {
		mode = 0o755
	}
	if err := s.root.SetOwner(at, in.UID, in.GID, mode); err != nil {
		return err
	}
	info, err := s.root.Lstat(at)
	if err != nil {
		return err
	}
	m.Inode, m.Root = info.Ino, s.inode
	if err := errors.Join(s.root.Sync(at), s.save(m)); err != nil {
		return err
	}
	s.step("nfs.make.known")
	return nil
}

// place moves a directory that is whole to where it belongs.
func (s *site) place(m *marker) error {
	for try := 1; ; try++ {
		if err := s.makeParents(m.SubDir); err != nil {
			return err
		}
		// Whoever claimed a path above meanwhile sees our directory, or we see the claim.
		if err := s.freeAbove(m.SubDir); err != nil {
			return err
		}
		err := s.root.Rename(s.at(newPath(m.Key)), m.SubDir)
		if err != nil {
			// An answer that was lost, and a call that was repeated.
			if info, look := s.root.Lstat(m.SubDir); look == nil && info.Dir() && info.Ino == m.Inode {
				err = nil
			}
		}
		switch {
		case err == nil:
			return errors.Join(s.root.Sync(path.Dir(m.SubDir)), s.root.Sync(s.at(dirNew)))
		case exists(err):
			return fmt.Errorf("%w: %q is there already, and not of this driver", backends.ErrIncompatible, m.SubDir)
		case errors.Is(err, syscall.EXDEV):
			return fmt.Errorf("%w: %q is in another file system than the root of the share", backends.ErrInvalid, m.SubDir)
		case !notExist(err) || try == 3:
			return err
		}
		// A parent was removed with its last volume.
	}
}

type resizeIn struct {
	where
	Key     string `json:"key"`
	Size    int64  `json:"size"`
	Project bool   `json:"project,omitempty"`
}

// taskResize makes a volume bigger.
func taskResize(_ context.Context, s *site, in resizeIn) (*marker, error) {
	if err := s.need(); err != nil {
		return nil, err
	}
	m, err := s.marker(in.Key)
	if err != nil || m.Size >= in.Size {
		return m, err
	}
	m.Size = in.Size
	if in.Project {
		if err := s.limitProject(m); err != nil {
			return nil, err
		}
	}
	s.step("nfs.resize.limited")
	return m, s.save(m)
}
