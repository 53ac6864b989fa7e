package mounter

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/csikit/csikit/internal/faultpoint"
	"github.com/csikit/csikit/mounter/mnt"
)

// store keeps the records: a file each, and a copy in memory. Its directory is
// locked, so nobody else writes there. A record in it is never changed; put
// replaces it.
type store struct {
	files // in StateDir/v1
	lock  *os.File

	mu      sync.Mutex
	records map[string]*record          // by file name
	bad     map[string]map[string]error // by the volume's part of the file name, and by that name
}

// openStore locks the directory and reads it. Volatile checks are the caller's.
func openStore(stateDir string) (*store, error) {
	lock, err := lockDir(stateDir)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(stateDir, "v1")
	s := &store{files: files{dir: dir}, lock: lock, records: map[string]*record{}, bad: map[string]map[string]error{}}
	err = os.Mkdir(s.dir, 0o700)
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = s.load()
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *store) load() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		file := filepath.Join(s.dir, e.Name())
		if strings.HasPrefix(e.Name(), tmpPrefix) {
			// Never renamed, so it was never true.
			if err := os.Remove(file); err != nil {
				return err
			}
			continue
		}
		volume := volumeHashOf(e.Name())
		if volume == "" {
			continue // not a name that a record can have, so about no volume
		}
		if err := s.read(e.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			if s.bad[volume] == nil {
				s.bad[volume] = map[string]error{}
			}
			s.bad[volume][e.Name()] = err
		}
	}
	return nil
}

// read takes one record from its file.
func (s *store) read(name string) error {
	file := filepath.Join(s.dir, name)
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("record %s: %w", file, err)
	}
	r, err := decodeRecord(name, b)
	if err != nil {
		return fmt.Errorf("record %s: %w", file, err)
	}
	s.records[name] = r
	return nil
}

// refused is the error for a volume that has a record which nobody understands. It
// looks again: a file that was moved away, or put right, counts at once.
func (s *store) refused(volume string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	bad := s.bad[shortHash(volume)]
	var left []error
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		err := s.read(name)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			delete(bad, name)
			continue
		}
		left = append(left, err)
	}
	if len(left) > 0 {
		return refuse("volume %q is left alone: %w; look at the file, and move it away when it cannot be put right: "+
			"the next call then goes by what is mounted", volume, errors.Join(left...))
	}
	return nil
}

// unreadable lists what was refused, for the log.
func (s *store) unreadable() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []error
	for _, bad := range s.bad {
		all = slices.AppendSeq(all, maps.Values(bad))
	}
	return all
}

// get returns a copy that the caller may change, nil when there is none.
func (s *store) get(k kind, volume, path string) *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.records[recordName(k, volume, path)]; r != nil {
		return r.clone()
	}
	return nil
}

// list returns copies of the records that keep accepts, in a stable order.
func (s *store) list(keep func(*record) bool) []*record {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*record
	for _, r := range s.records {
		if keep(r) {
			list = append(list, r.clone())
		}
	}
	slices.SortFunc(list, func(a, b *record) int {
		return cmp.Or(cmp.Compare(a.Volume, b.Volume), cmp.Compare(b.Kind, a.Kind), cmp.Compare(a.Path, b.Path))
	})
	return list
}

// of returns the records of one volume, those of its staging paths first.
func (s *store) of(volume string) []*record {
	return s.list(func(r *record) bool { return r.Volume == volume })
}

// others returns the records of other volumes that claim path. An ephemeral
// volume has two IDs, and is no other one by either.
func (s *store) others(volume, path string) []*record {
	return s.list(func(r *record) bool {
		return r.Path == path && r.Volume != volume && r.Own != volume && r.For != volume
	})
}

// names are the staging paths under which the mount of r is on record: its own, and
// what a symbolic link made of it.
func (s *store) names(r *record) []string {
	all := []string{r.Path}
	if r.Mounted == nil {
		return all
	}
	for _, o := range s.of(r.Volume) {
		if o.Kind == kindStage && o.Path != r.Path && o.BootID == r.BootID && o.Mounted != nil && o.Mounted.ID == r.Mounted.ID {
			all = append(all, o.Path)
		}
	}
	return all
}

// shows reports whether the mount m at the path of r is the one that r recorded.
func (s *store) shows(r *record, m mnt.Info) bool {
	return r.Mounted.is(m) || r.Mounted.wasRenamed(m) && !s.another(r.Volume, r.Path, m)
}

// another reports whether the mount m at path is on record as another volume's.
func (s *store) another(volume, path string, m mnt.Info) bool {
	return slices.ContainsFunc(s.others(volume, path), func(o *record) bool { return o.Mounted.is(m) })
}

// othersMount reports whether m is the mount that another volume has on record in
// this boot, wherever it is seen.
func (s *store) othersMount(boot, volume string, m mnt.Info) bool {
	return len(s.list(func(o *record) bool {
		return o.Volume != volume && o.Own != volume && o.For != volume && o.BootID == boot && o.Mounted.is(m) && o.Mounted.ID == m.ID
	})) > 0
}

// put makes r durable before it returns.
func (s *store) put(r *record) error {
	r.Version = r.version()
	name := r.name()
	if err := r.check(name); err != nil {
		return fmt.Errorf("record of volume %q: %w", r.Volume, err)
	}
	b, err := r.encode()
	if err != nil {
		return err
	}
	if err := s.write(name, b); err != nil {
		return unavailable("record of volume %q: %w", r.Volume, err)
	}
	faultpoint.Reach("mounter.record.written")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[name] = r.clone()
	return nil
}

// remove forgets r, durably.
func (s *store) remove(r *record) error {
	name := r.name()
	if err := s.files.remove(name); err != nil {
		return unavailable("record of volume %q: %w", r.Volume, err)
	}
	faultpoint.Reach("mounter.record.removed")
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.records, name)
	return nil
}

// close gives the directory back.
func (s *store) close() error {
	s.dropSpares()
	if s.lock == nil { // in memory alone
		return nil
	}
	return s.lock.Close()
}
