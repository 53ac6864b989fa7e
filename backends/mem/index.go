package mem

import (
	"maps"
	"slices"

	"github.com/csikit/csikit/backends"
)

// What comes into the store and goes out of it does so here, so that a page of a
// list needs no sorting and a new volume no adding up: with a hundred thousand
// volumes both would be what a test waits for. s.mu is held.

func (s *Store) putVolume(v *volume) {
	s.dropVolume(v.ID)
	s.volumes[v.ID], s.volumeIDs = v, nil
	s.take(v.Topology, v.Capacity)
}

// dropVolume forgets a volume.
func (s *Store) dropVolume(id string) {
	if v := s.volumes[id]; v != nil {
		s.volumeIDs = nil
		s.take(v.Topology, -v.Capacity)
		delete(s.volumes, id)
	}
}

func (s *Store) putEphemeral(v *volume) {
	s.dropEphemeral(v.ID)
	s.ephemeral[v.ID] = v
	s.take(v.Topology, v.Capacity)
}

func (s *Store) dropEphemeral(id string) {
	if v := s.ephemeral[id]; v != nil {
		s.take(v.Topology, -v.Capacity)
		delete(s.ephemeral, id)
	}
}

func (s *Store) putSnapshot(snap *snapshot) {
	s.forgetSnapshot(snap.ID)
	s.snapshots[snap.ID], s.snapshotIDs = snap, nil
	s.take(snap.Topology, snap.Size)
}

func (s *Store) forgetSnapshot(id string) {
	if snap := s.snapshots[id]; snap != nil {
		s.snapshotIDs = nil
		s.take(snap.Topology, -snap.Size)
		delete(s.snapshots, id)
	}
}

// take notes that something of this size came, or with a negative one went.
func (s *Store) take(topology []backends.Segments, size int64) { s.used[zoneOf(topology)] += size }

// free is how many bytes nobody has in a zone.
func (s *Store) free(zone string) int64 { return max(s.o.Size-s.used[zone], 0) }

// inOrder are the keys of set, kept in ids until that is set to nil.
func inOrder[T any](set map[string]T, ids *[]string) []string {
	if *ids == nil {
		*ids = slices.Sorted(maps.Keys(set))
	}
	return *ids
}
