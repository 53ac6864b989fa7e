package loopfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/csikit/csikit/backends"
)

// set is a snapshot, or a group of snapshots that were cut at one moment: one
// directory of s or g, which appears by one rename and goes by one. So a group
// is there with all of its members or not at all.
//
//	s/<dir>/img-<volume's dir>  the bytes of the one member
//	g/<dir>/img-<volume's dir>  the bytes of each member
//	…/meta.json                 setMeta
//
// IDs are "<pool>.s.<dir>", "<pool>.g.<dir>", and of a group's member
// "<pool>.g.<dir>.<volume's dir>".
type set struct {
	p      *pool
	parent string // snapsDir or groupsDir
	dir    string
	meta   *setMeta
}

const setVersion = 1

// setMeta is the meta.json of a set. A change of this struct is a new version.
type setMeta struct {
	Version     int       `json:"version"`
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	Created     time.Time `json:"created"` // the moment of the cut
	Members     []member  `json:"members"`
}

// member is one volume at the moment of the cut.
type member struct {
	VolumeID  string  `json:"volumeID"`
	Size      int64   `json:"size"`
	Type      string  `json:"type"`
	BlockSize uint32  `json:"blockSize"`
	Format    string  `json:"format"`
	FSType    string  `json:"fsType,omitempty"`
	Copy      *copied `json:"copy,omitempty"` // it is still being copied; nil: it is whole
}

// copied is how far a copy has come, and what its source was at the cut: a
// source that was written to since cannot be copied to the end any more.
type copied struct {
	Done    int64     `json:"done"` // bytes
	Inode   uint64    `json:"inode"`
	Changed time.Time `json:"changed"` // its ctime
}

func (m *setMeta) ready() bool {
	return !slices.ContainsFunc(m.Members, func(m member) bool { return m.Copy != nil })
}

func (m *setMeta) check(id string, group bool) error {
	var errs []error
	bad := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(m.ID != id, "id is %q, not %q", m.ID, id)
	bad(dirOf(m.Name) != id[strings.LastIndexByte(id, '.')+1:], "name %q belongs elsewhere", m.Name)
	bad(len(m.Members) == 0 || !group && len(m.Members) != 1, "%d members", len(m.Members))
	for _, v := range m.Members {
		_, _, ok := splitID(v.VolumeID)
		_, known := formats[v.Format]
		bad(!ok, "member %q", v.VolumeID)
		bad(v.Type != typeThick && v.Type != typeThin, "type is %q", v.Type)
		bad(v.BlockSize != 512 && v.BlockSize != 4096, "blockSize is %d", v.BlockSize)
		bad(v.Size <= 0, "size is %d", v.Size)
		bad(!known, "format is %q", v.Format)
		bad(v.Copy != nil && v.Copy.Done < 0, "of %s a part before its beginning is copied", v.VolumeID)
	}
	return errors.Join(errs...)
}

// decodeSet reads the meta of a set; its errors are decodeMeta's.
func decodeSet(b []byte, id string, group bool) (*setMeta, error) {
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("%w: torn: %w", backends.ErrUnavailable, err)
	}
	if v.Version != setVersion {
		return nil, fmt.Errorf("%w: version %d, this driver knows %d", backends.ErrPrecondition, v.Version, setVersion)
	}
	var m setMeta
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: text after the end", backends.ErrUnavailable)
	}
	if err := m.check(id, group); err != nil {
		return nil, fmt.Errorf("%w: foreign: %w", backends.ErrUnavailable, err)
	}
	return &m, nil
}

// handle of the directory that sets of this kind are in.
func (p *pool) handle(parent string) *os.File {
	if parent == groupsDir {
		return p.group
	}
	return p.snaps
}

// newSet names a set without looking at it.
func (p *pool) newSet(parent, dir string) *set { return &set{p: p, parent: parent, dir: dir} }

func (s *set) group() bool { return s.parent == groupsDir }

func (s *set) id() string { return s.p.info.Name + "." + s.parent + "." + s.dir }

// memberID is the ID of a member's snapshot.
func (s *set) memberID(m member) string {
	if !s.group() {
		return s.id()
	}
	_, dir, _ := splitID(m.VolumeID)
	return s.id() + "." + dir
}

// file is the name of a member's image.
func (s *set) file(m member) string {
	_, dir, _ := splitID(m.VolumeID)
	return memberPrefix + dir
}

const memberPrefix = imgFile + "-"

var memberFile = regexp.MustCompile(`^` + memberPrefix + `[a-z2-7]{26}$`)

// memberFiles are the images of a group in its directory.
func memberFiles(root *os.Root) ([]string, error) {
	names, err := readNames(root, ".")
	return slices.DeleteFunc(names, func(n string) bool { return !memberFile.MatchString(n) }), err
}

func (s *set) at(name string) string { return path.Join(s.parent, s.dir, name) }

func (s *set) path(name string) string { return filepath.Join(s.p.dir, s.parent, s.dir, name) }

// exists looks for the directory in the pool that was verified; missing is the
// answer when it is not there.
func (s *set) exists(missing error) error {
	fi, err := s.p.root.Lstat(s.at(""))
	switch {
	case notExist(err):
		return missing
	case err != nil:
		return unavailable(s.path(""), err)
	case !fi.IsDir():
		return fmt.Errorf("%w: %s is no directory", backends.ErrUnavailable, s.path(""))
	}
	return nil
}

// read reads a set that must be there.
func (s *set) read(missing error) error {
	if err := s.exists(missing); err != nil {
		return err
	}
	b, err := s.p.root.ReadFile(s.at(metaFile))
	if err != nil {
		if gone := s.exists(missing); gone != nil {
			return gone // deleted between the two looks
		}
		return unavailable(s.path(metaFile), err)
	}
	if s.meta, err = decodeSet(b, s.id(), s.group()); err != nil {
		return fmt.Errorf("%s: %w", s.path(metaFile), err)
	}
	return nil
}

// eachSet calls f for each set in the order of the IDs.
func (p *pool) eachSet(f func(s *set)) error {
	for _, parent := range []string{groupsDir, snapsDir} {
		names, err := readNames(p.root, parent)
		if err != nil {
			return unavailable(p.dir, err)
		}
		slices.Sort(names)
		for _, n := range names {
			if dirName.MatchString(n) {
				f(p.newSet(parent, n))
			}
		}
	}
	return nil
}

// save replaces the meta of a set.
func (s *set) save() error {
	root, err := s.p.root.OpenRoot(s.at(""))
	if err != nil {
		return err
	}
	return errors.Join(writeJSON(root, s.meta), root.Close())
}

// splitSnapshotID takes apart the ID of a set or of a group's member.
func splitSnapshotID(id string) (pool, parent, dir, volume string, ok bool) {
	f := strings.Split(id, ".")
	if len(f) < 3 || !validPoolName(f[0]) || !dirName.MatchString(f[2]) {
		return "", "", "", "", false
	}
	switch {
	case len(f) == 3 && (f[1] == snapsDir || f[1] == groupsDir):
		return f[0], f[1], f[2], "", true
	case len(f) == 4 && f[1] == groupsDir && dirName.MatchString(f[3]):
		return f[0], f[1], f[2], f[3], true
	}
	return "", "", "", "", false
}

// snapshot finds the snapshot with an ID: a set, and the member of it.
func (p *pool) snapshot(id string) (*set, member, error) {
	missing := backends.SnapshotNotFound(id)
	name, parent, dir, volume, ok := splitSnapshotID(id)
	if !ok || parent == groupsDir && volume == "" {
		return nil, member{}, missing
	}
	if name != p.info.Name {
		return nil, member{}, p.foreign("snapshot", id, name)
	}
	s := p.newSet(parent, dir)
	if err := s.read(missing); err != nil {
		return nil, member{}, err
	}
	for _, m := range s.meta.Members {
		if s.memberID(m) == id {
			return s, m, nil
		}
	}
	return nil, member{}, missing
}

// foreign is the answer for a well-formed ID of another pool; see decode.
func (p *pool) foreign(what, id, pool string) error {
	return fmt.Errorf("%w: %s %s is in pool %q, and %s is pool %q", backends.ErrUnavailable, what, id, pool, p.dir, p.info.Name)
}

// public is a member as csikit knows it.
func (b *Backend) snapshotOf(s *set, m member) *backends.Snapshot {
	snap := &backends.Snapshot{
		ID: s.memberID(m), Name: s.meta.Name, VolumeID: m.VolumeID, Size: m.Size, Created: s.meta.Created,
		Ready: m.Copy == nil, Topology: []backends.Segments{b.segments()}, Fingerprint: s.meta.Fingerprint,
	}
	if s.group() {
		snap.Name, snap.Fingerprint, snap.GroupID = "", "", s.id()
	}
	return snap
}
