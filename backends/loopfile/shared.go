package loopfile

import (
	"maps"
	"path"
	"slices"
	"sync"

	"github.com/csikit/csikit/backends"
)

// sharers are the volumes that may share blocks with a snapshot or with another
// volume. What they share they need again when they are overwritten: it is
// promised to them, as the blocks are that a thin volume does not have yet.
type sharers struct {
	mu sync.Mutex
	id string // of the pool that was looked at; "": none yet
	m  map[string]bool
}

// load looks once through a pool: sources of snapshots, and what was made of
// something, with what it was made of.
func (s *sharers) load(p *pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id == p.info.ID {
		return
	}
	s.id, s.m = p.info.ID, map[string]bool{}
	note := func(id string) {
		if _, dir, ok := splitID(id); ok {
			s.m[dir] = true
		}
	}
	_ = p.eachSet(func(set *set) { // what cannot be read is named where it is asked for
		if set.read(backends.SnapshotNotFound(set.id())) == nil {
			for _, m := range set.meta.Members {
				note(m.VolumeID)
			}
		}
	})
	names, _ := readNames(p.root, volumesDir)
	for _, n := range names {
		if v, err := p.volume(n); err == nil && v.meta.Source != nil {
			note(v.id)
			note(v.meta.Source.VolumeID)
		}
	}
}

func (s *sharers) add(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m != nil {
		s.m[dir] = true
	}
}

// bytes that a volume shares.
func (s *sharers) bytes(p *pool, dir string) int64 {
	s.mu.Lock()
	may := s.m[dir]
	s.mu.Unlock()
	if !may {
		return 0
	}
	f, err := p.root.Open(path.Join(volumesDir, dir, imgFile))
	if err != nil {
		return 0 // deleted meanwhile, or named where it is asked for
	}
	defer func() { _ = f.Close() }() // read only
	var n int64
	for e, err := range extents(f, 0, false) {
		if err != nil {
			return n // a file system that does not tell does not share either
		}
		if e.Flags&extentShared != 0 && e.Flags&extentUnwritten == 0 {
			n += e.Len
		}
	}
	return n
}

// total is what all volumes of a pool share.
func (s *sharers) total(p *pool) int64 {
	s.load(p)
	s.mu.Lock()
	dirs := slices.Collect(maps.Keys(s.m))
	s.mu.Unlock()
	var n int64
	for _, dir := range dirs {
		n += s.bytes(p, dir)
	}
	return n
}
