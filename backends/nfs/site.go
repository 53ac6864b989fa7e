package nfs

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"syscall"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/nfs/internal/tree"
)

// Directories of an installation.
const (
	dirVolumes   = "v"
	dirClaims    = "c"
	dirParents   = "p"
	dirProjects  = "q"
	dirKept      = "kept" // markers of what was retained or archived
	dirSnapshots = "s"
	dirPending   = "pending" // <volume's key>.<snapshot's key>: not copied yet
	dirData      = "d"
	dirNew       = "new"
	dirTrash     = "trash"
	shareFile    = "share.json"
)

const (
	siteVersion = 1
	maxRecord   = 64 << 10
)

// siteInfo is share.json.
type siteInfo struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
}

// need refuses a share that no controller has prepared: it may be the directory
// beneath a disk that is not mounted.
func (s *site) need() error {
	if s.id == "" {
		return unavailable("%s is not there: the share was not prepared, or is not what it was", s.full())
	}
	return nil
}

// init makes the installation's directory. share.json is the last of it.
func (s *site) init() error {
	if err := s.root.Mkdir(s.control, 0o700); err != nil && !exists(err) {
		return err
	}
	for _, d := range []string{
		dirVolumes, dirClaims, dirParents, dirProjects, dirKept, dirSnapshots, dirPending, dirData, dirNew, dirTrash,
	} {
		if err := s.root.Mkdir(s.at(d), 0o700); err != nil && !exists(err) {
			return err
		}
	}
	s.step("nfs.init.dirs")
	err := s.writeNew(shareFile, siteInfo{Version: siteVersion, ID: rand.Text()})
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return errors.Join(s.root.Sync(s.control), s.root.Sync("."))
}

// at is the path of something of the installation.
func (s *site) at(parts ...string) string { return path.Join(append([]string{s.control}, parts...)...) }

// full is at, for messages.
func (s *site) full(parts ...string) string { return path.Join(s.root.Name(), s.at(parts...)) }

// read reads a record. A torn one is ErrUnavailable.
func (s *site) read(p string, v any) error {
	b, err := s.root.ReadFile(s.at(p), maxRecord)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		// A newer version has other fields: that is what to say then.
		var head struct {
			Version int `json:"version"`
		}
		if json.Unmarshal(b, &head) == nil && head.Version > markerVersion {
			return fmt.Errorf("%w: %s has version %d, this driver knows %d", backends.ErrPrecondition, s.at(p), head.Version, markerVersion)
		}
		return unavailable("%s is torn: %w", s.at(p), err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return unavailable("%s: text after its end", s.at(p))
	}
	return nil
}

// absent says that there is no such record only where the directory of all of them is.
func (s *site) absent(dir string, err error) error {
	if !notExist(err) {
		return err
	}
	if _, look := s.root.Lstat(s.at(dir)); look != nil {
		// As text: that the directory is not there does not say so of what was in it.
		return unavailable("%s is not there, and with it whatever was known: %s", s.full(dir), look.Error())
	}
	return err
}

// A record is written to a file with a name that nobody else has, and then gets its
// own name by one call. An NFS client that repeats a call whose answer was lost may be
// told that it failed: what is there then decides.

// writeNew makes a record that must not be there yet: else fs.ErrExist.
func (s *site) writeNew(p string, v any) error {
	return s.record(p, v, func(tmp string, b []byte) error {
		err := s.root.Link(tmp, s.at(p))
		if err != nil && s.holds(p, b) {
			err = nil
		}
		if gone := s.root.Unlink(tmp); err == nil && gone != nil && !notExist(gone) {
			err = gone
		}
		return err
	})
}

// write makes or replaces a record.
func (s *site) write(p string, v any) error {
	return s.record(p, v, func(tmp string, b []byte) error {
		err := s.root.Replace(tmp, s.at(p))
		if err != nil && !s.holds(p, b) {
			return errors.Join(err, ignoreGone(s.root.Unlink(tmp)))
		}
		return nil
	})
}

// record writes a file beside p, which put puts in its place. A driver that starts on
// another host sweeps such files away, also this one, until it is in its place.
func (s *site) record(p string, v any, put func(tmp string, b []byte) error) error {
	var err error
	for range 4 {
		tmp, b, failed := s.prepare(p, v)
		if failed != nil {
			return failed
		}
		if err = put(tmp, b); !notExist(err) {
			break
		}
	}
	if err != nil {
		return err
	}
	return s.root.Sync(s.at(path.Dir(p)))
}

func (s *site) prepare(p string, v any) (tmp string, b []byte, err error) {
	b, err = json.MarshalIndent(v, "", "  ")
	if err != nil {
		return "", nil, err
	}
	tmp = s.at(p) + "." + randomName()
	err = s.root.Create(tmp, append(b, '\n'), 0o600)
	s.step("nfs.record.written")
	return tmp, append(b, '\n'), err
}

func (s *site) holds(p string, b []byte) bool {
	have, err := s.root.ReadFile(s.at(p), maxRecord)
	return err == nil && bytes.Equal(have, b)
}

// erase removes a record, which may be gone.
func (s *site) erase(p string) error {
	if err := s.root.Unlink(s.at(p)); err != nil {
		return ignoreGone(err)
	}
	return s.root.Sync(s.at(path.Dir(p)))
}

func randomName() string { return strings.ToLower(rand.Text()[:8]) }

// halfWritten are files that prepare left.
var halfWritten = regexp.MustCompile(`\.json\.[a-z2-7]{8}$`)

func notExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func exists(err error) bool { return errors.Is(err, fs.ErrExist) }

func ignoreGone(err error) error {
	if notExist(err) {
		return nil
	}
	return err
}

// kindOf gives an error of the kernel its kind.
func kindOf(err error) error {
	var e syscall.Errno
	if err == nil || hasKind(err) || !errors.As(err, &e) {
		return err
	}
	switch e {
	case syscall.ENOSPC, syscall.EDQUOT:
		return fmt.Errorf("%w: %w", backends.ErrNoSpace, err)
	case syscall.ELOOP, syscall.EXDEV, syscall.ENOTDIR, syscall.ENAMETOOLONG:
		return fmt.Errorf("%w: a path leads through what is no directory of the share: %w", backends.ErrPrecondition, err)
	case syscall.EACCES, syscall.EPERM:
		return fmt.Errorf("%w: %w (does the server squash root? the export needs no_root_squash for the controller)", backends.ErrUnavailable, err)
	}
	return unavailable("%w", err)
}

func hasKind(err error) bool {
	for _, k := range wireKinds() {
		if errors.Is(err, k) {
			return true
		}
	}
	return errors.Is(err, backends.ErrNotFound) || errors.Is(err, tree.ErrChanged)
}
