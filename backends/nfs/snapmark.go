package nfs

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/nfs/internal/tree"
)

// Names of tasks.
const (
	opSnapBegin  = "snap-begin"
	opSnapCopy   = "snap-copy"
	opSnapFind   = "snap-find"
	opSnapSave   = "snap-save"
	opSnapDelete = "snap-delete"
)

// newSnap begins the names of snapshots in the directory of what is being made.
const newSnap = "s-"

// States of a snapshot; stateReady and stateDeleting are a marker's.
const stateCopying = "copying"

// snapMark is the record of a snapshot.
type snapMark struct {
	Version     int       `json:"version"`
	Nonce       string    `json:"nonce"`
	Key         string    `json:"key"`
	Name        string    `json:"name"`
	VolumeID    string    `json:"volumeID"`
	VolumeKey   string    `json:"volumeKey"` // of its marker, or of what stands for one
	SubDir      string    `json:"subDir"`
	Size        int64     `json:"size,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	Created     time.Time `json:"created"`
	State       string    `json:"state"`
	Still       bool      `json:"still,omitempty"` // see paramConsistency
	Legacy      bool      `json:"legacy,omitempty"`
	Group       string    `json:"group,omitempty"` // its group's ID

	// Of a snapshot that the hook makes: where its content is, below the share.
	Hook bool   `json:"hook,omitempty"`
	Path string `json:"path,omitempty"`
}

func snapPath(key string) string { return dirSnapshots + "/" + key + ".json" }

func (m *snapMark) pendingPath() string { return dirPending + "/" + m.VolumeKey + "." + m.Key }

// snap reads the record of a snapshot. Without one the error is fs.ErrNotExist.
func (s *site) snap(key string) (*snapMark, error) {
	var m snapMark
	if err := s.read(snapPath(key), &m); err != nil {
		return nil, s.absent(dirSnapshots, err)
	}
	if m.Version != markerVersion {
		return nil, fmt.Errorf("%w: the record of snapshot %s has version %d, this driver knows %d", backends.ErrPrecondition, key, m.Version, markerVersion)
	}
	known := m.State == stateCopying || m.State == stateReady || m.State == stateDeleting
	if m.Key != key || !known || m.Path != "" && !cleanPath(m.Path) {
		return nil, unavailable("the record of snapshot %s is damaged", key)
	}
	return &m, nil
}

// cleanPath tells whether p stays below the share, byte for byte. Unlike a subDir it
// may begin with a dot.
func cleanPath(p string) bool {
	for c := range strings.SplitSeq(p, "/") {
		if !cleanComponent(c) {
			return false
		}
	}
	return true
}

func (s *site) saveSnap(m *snapMark) error {
	m.Nonce = randomName()
	return s.write(snapPath(m.Key), m)
}

type snapBeginIn struct {
	where
	Snap snapMark `json:"snap"`
}

// taskSnapBegin writes down that a snapshot is made, and when.
func taskSnapBegin(_ context.Context, s *site, in snapBeginIn) (*snapMark, error) {
	if err := s.need(); err != nil {
		return nil, err
	}
	m, err := s.snap(in.Snap.Key)
	switch {
	case err == nil && m.State == stateDeleting && !m.Hook:
		if err := s.dropSnap(m); err != nil { // a deletion that did not end
			return nil, err
		}
	case err == nil && m.State == stateDeleting:
		return nil, unavailable("snapshot %q is being deleted", m.Name)
	case err == nil:
		return nil, fmt.Errorf("%w: snapshot %q", backends.ErrExists, m.Name)
	case !notExist(err):
		return nil, err
	}
	n := in.Snap
	if err := s.snapSource(&n); err != nil {
		return nil, err
	}
	n.Version, n.State, n.Nonce, n.Created = markerVersion, stateCopying, randomName(), time.Now().UTC()
	// First what keeps the volume from being deleted.
	if err := s.root.Create(s.at(n.pendingPath()), nil, 0o600); err != nil && !exists(err) {
		return nil, err
	}
	if err := s.root.Sync(s.at(dirPending)); err != nil {
		return nil, err
	}
	s.step("nfs.snap.pending")
	if err := s.writeNew(snapPath(n.Key), &n); err != nil {
		return nil, err
	}
	s.step("nfs.snap.begun")
	return &n, nil
}

// snapSource looks at the volume of a snapshot.
func (s *site) snapSource(m *snapMark) error {
	if m.Legacy {
		info, err := s.root.Lstat(m.SubDir)
		switch {
		case notExist(err):
			return backends.VolumeNotFound(m.VolumeID)
		case err == nil && !info.Dir():
			return unavailable("%q is no directory", m.SubDir)
		}
		return err
	}
	v, err := s.marker(m.VolumeKey)
	if notExist(err) {
		return backends.VolumeNotFound(m.VolumeID)
	}
	if err != nil {
		return err
	}
	if v.State != stateReady {
		return unavailable("volume %s is %s", m.VolumeID, v.State)
	}
	m.SubDir, m.Size = v.SubDir, v.Size
	return s.checkSource(m.VolumeKey, v.SubDir)
}

type snapIn struct {
	where
	Key string `json:"key"`
}

type snapOut struct {
	Snap *snapMark `json:"snap,omitempty"`
	// Lost says why there is no such snapshot any more: what it was to be of is gone.
	Lost   string      `json:"lost,omitempty"`
	Copied tree.Copied `json:"copied"`
}

func taskSnapFind(_ context.Context, s *site, in snapIn) (snapOut, error) {
	if err := s.need(); err != nil {
		return snapOut{}, err
	}
	m, err := s.snap(in.Key)
	if notExist(err) {
		return snapOut{}, nil
	}
	return snapOut{Snap: m}, err
}

// taskSnapCopy copies what a snapshot is of. One that is whole is never written again.
func taskSnapCopy(ctx context.Context, s *site, in snapIn) (snapOut, error) {
	if err := s.need(); err != nil {
		return snapOut{}, err
	}
	m, unlock, err := s.lockSnap(ctx, in.Key)
	if notExist(err) {
		return snapOut{Lost: "it was deleted"}, nil
	}
	if err != nil {
		return snapOut{}, err
	}
	defer unlock()
	if m.State != stateCopying || m.Hook {
		return snapOut{Snap: m}, nil
	}
	out := snapOut{Snap: m}
	out.Copied, err = s.copySnap(ctx, m)
	switch {
	case errors.Is(err, tree.ErrChanged), errors.Is(err, backends.ErrNotFound):
		out.Snap, out.Lost = nil, err.Error()
		return out, s.dropSnap(m)
	case err != nil:
		return snapOut{}, err
	}
	m.State = stateReady
	if err := s.saveSnap(m); err != nil {
		return snapOut{}, err
	}
	s.step("nfs.snap.ready")
	return out, s.erase(m.pendingPath())
}

func (s *site) copySnap(ctx context.Context, m *snapMark) (done tree.Copied, err error) {
	data, aside := s.at(dirData, m.Key), s.at(dirNew, newSnap+m.Key)
	if _, err := s.root.Lstat(data); !notExist(err) {
		return done, err // whole: it got its name last
	}
	look := func() error {
		return s.snapSource(&snapMark{VolumeID: m.VolumeID, VolumeKey: m.VolumeKey, SubDir: m.SubDir, Legacy: m.Legacy})
	}
	if err := look(); err != nil {
		return done, err
	}
	if err := s.root.Mkdir(aside, 0o700); err != nil && !exists(err) {
		return done, err
	}
	still, err := s.moment(ctx, m)
	if err != nil {
		return done, err
	}
	s.step("nfs.snap.made")
	src, err := s.root.Sub(m.SubDir)
	if err != nil {
		return done, err
	}
	defer func() { _ = src.Close() }() // read only
	if done, err = s.copyTree(ctx, src, newSnap+m.Key, aside, still); err != nil {
		return done, err
	}
	s.step("nfs.snap.copied")
	// What was moved away meanwhile may have been half emptied when it was copied.
	if err := errors.Join(look(), s.unmoved(src, m.SubDir)); err != nil {
		return done, err
	}
	if err := s.root.Rename(aside, data); err != nil {
		if _, look := s.root.Lstat(data); look != nil {
			return done, err
		}
	}
	s.step("nfs.snap.named")
	return done, errors.Join(s.root.Sync(s.at(dirData)), s.root.Sync(s.at(dirNew)))
}

// snapContent opens the content of a snapshot.
func (s *site) snapContent(key string) (*tree.Root, error) {
	m, err := s.snap(key)
	if err != nil {
		return nil, err
	}
	if m.State != stateReady {
		return nil, unavailable("snapshot %q is %s", m.Name, m.State)
	}
	if m.Hook {
		return s.root.SubMounted(m.Path)
	}
	return s.root.Sub(s.at(dirData, m.Key))
}

// dropSnap removes everything of a snapshot; the record last.
func (s *site) dropSnap(m *snapMark) error {
	if err := s.discard(s.at(dirNew, newSnap+m.Key)); err != nil {
		return err
	}
	if err := s.discard(s.at(dirNew, newSnap+m.Key+".links")); err != nil {
		return err
	}
	if err := s.discard(s.at(dirData, m.Key)); err != nil {
		return err
	}
	s.step("nfs.snap.discarded")
	if err := s.erase(m.pendingPath()); err != nil {
		return err
	}
	return s.erase(snapPath(m.Key))
}

type snapDeleteIn struct {
	where
	Key string `json:"key"`
	// Finish, after the hook has deleted what it made.
	Finish bool `json:"finish,omitempty"`
}

// taskSnapDelete deletes a snapshot; one of the hook's in two steps.
func taskSnapDelete(ctx context.Context, s *site, in snapDeleteIn) (snapOut, error) {
	if err := s.need(); err != nil {
		return snapOut{}, err
	}
	m, unlock, err := s.lockSnap(ctx, in.Key)
	if notExist(err) {
		return snapOut{}, nil
	}
	if err != nil {
		return snapOut{}, err
	}
	defer unlock()
	if m.State != stateDeleting {
		m.State = stateDeleting
		if err := s.saveSnap(m); err != nil {
			return snapOut{}, err
		}
		s.step("nfs.snap.marked")
	}
	if m.Hook && !in.Finish {
		return snapOut{Snap: m}, nil
	}
	return snapOut{Snap: m}, s.dropSnap(m)
}

// taskSnapSave completes a snapshot that the hook made.
func taskSnapSave(_ context.Context, s *site, in snapBeginIn) (*snapMark, error) {
	if err := s.need(); err != nil {
		return nil, err
	}
	m, err := s.snap(in.Snap.Key)
	if err != nil || m.State != stateCopying {
		return m, err
	}
	if !cleanPath(in.Snap.Path) {
		return nil, fmt.Errorf("%w: the hook says that the snapshot is at %q", backends.ErrPrecondition, in.Snap.Path)
	}
	d, err := s.root.SubMounted(in.Snap.Path)
	if err != nil {
		return nil, fmt.Errorf("what the hook made: %w", err)
	}
	_ = d.Close() // only looked at
	m.Path, m.Created, m.State = in.Snap.Path, in.Snap.Created, stateReady
	if err := s.saveSnap(m); err != nil {
		return nil, err
	}
	return m, s.erase(m.pendingPath())
}

// notPending refuses to delete a volume of which a snapshot is still being copied.
func (s *site) notPending(volume string) error {
	names, err := s.root.Names(s.at(dirPending))
	if err != nil {
		return err
	}
	for _, name := range names {
		key, is := strings.CutPrefix(name, volume+".")
		if !is {
			continue
		}
		m, err := s.snap(key)
		switch {
		case notExist(err):
		case err != nil:
			return err
		case m.State == stateCopying && m.VolumeKey == volume:
			return fmt.Errorf("%w: snapshot %q of it is still being copied", backends.ErrInUse, m.Name)
		}
		if err := s.erase(path.Join(dirPending, name)); err != nil {
			return err
		}
	}
	return nil
}
