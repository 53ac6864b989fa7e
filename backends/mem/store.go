package mem

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
)

// StoreOptions configure a Store. The zero value is fine where no volume is
// opened on a node.
type StoreOptions struct {
	// Dir is where volumes are directories. It must exist, and be a test's own.
	Dir string
	// Devices makes volumes devices, for package mountertest.
	Devices bool
	// Size of the storage in each zone, in bytes; 0: 64 TiB.
	Size int64
	// Zones that exist besides those of the nodes.
	Zones []string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Store is the storage that Backends share. It is safe for concurrent use.
type Store struct {
	o StoreOptions

	mu        sync.Mutex
	volumes   map[string]*volume
	ephemeral map[string]*volume // made by a node, unknown to controllers
	snapshots map[string]*snapshot
	groups    map[string]*group
	nodes     map[string]*node
	used      map[string]int64 // bytes, by zone
	hold      bool
	places    map[string][]backends.Segments // by zone

	volumeIDs, snapshotIDs []string // in order; nil: something came or went
}

// volume is one volume. Its zone is in Topology.
type volume struct {
	backends.Volume
	half     bool // being made or deleted, perhaps by a process that died
	blocks   blocks
	attached map[string]attachment // by node
	open     map[string]bool       // by node
	targets  map[targetKey]*Target
	health   map[string][]backends.Health // by node; "": as controllers see it
	home     string                       // of an ephemeral volume: its node
	formatted
}

// formatted is what was recorded of the file system. It is copied with the data.
type formatted struct {
	format backends.FormatState
	fsType string
}

type attachment struct {
	mode     backends.AccessMode
	block    bool
	readOnly bool
}

type targetKey struct{ node, path string }

// snapshot is one snapshot. A member of a group that is being made is half.
type snapshot struct {
	backends.Snapshot
	half   bool
	blocks blocks
	formatted
}

// group is one group snapshot.
type group struct {
	backends.GroupSnapshot // Snapshots are filled in when it is asked for
	half                   bool
	members                []string
}

type node struct {
	zone   string
	limit  int64
	health []backends.StorageHealth
}

const (
	defaultStoreSize = 64 << 40
	defaultZone      = "zone-1"
)

// NewStore makes an empty storage.
func NewStore(o *StoreOptions) *Store {
	s := &Store{
		volumes:   make(map[string]*volume),
		ephemeral: make(map[string]*volume),
		snapshots: make(map[string]*snapshot),
		groups:    make(map[string]*group),
		nodes:     make(map[string]*node),
		used:      make(map[string]int64),
		places:    make(map[string][]backends.Segments),
	}
	if o != nil {
		s.o = *o
	}
	if s.o.Size == 0 {
		s.o.Size = defaultStoreSize
	}
	if s.o.Now == nil {
		s.o.Now = time.Now
	}
	return s
}

// AddNode makes a node known to which volumes can be attached, as New does with
// Options.Node. zone "" is "zone-1"; limit 0 is none.
func (s *Store) AddNode(id, zone string, limit int64) {
	if zone == "" {
		zone = defaultZone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[id]
	if n == nil {
		n = &node{}
		s.nodes[id] = n
	}
	n.zone, n.limit = zone, limit
}

// Reboot closes everything that is open on a node, as a crash of it does.
func (s *Store) Reboot(nodeID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, set := range []map[string]*volume{s.volumes, s.ephemeral} {
		for _, v := range set {
			v.closeOn(nodeID)
		}
	}
}

// Hold says whether snapshots that are cut from now on stay "being copied".
// With false, those that wait get ready.
func (s *Store) Hold(hold bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = hold
	if hold {
		return
	}
	for _, snap := range s.snapshots {
		snap.Ready = true
	}
}

// SetHealth says what is wrong with a volume as nodeID sees it, or with "" as
// controllers do. Without conditions it is well again. An unknown volume is
// backends.VolumeNotFound.
func (s *Store) SetHealth(volumeID, nodeID string, conditions ...backends.Health) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.anywhere(volumeID)
	if err != nil {
		return err
	}
	if len(conditions) == 0 {
		delete(v.health, nodeID)
	} else {
		v.health[nodeID] = slices.Clone(conditions)
	}
	return nil
}

// SetStorageHealth says what is wrong with the storage as a node sees it.
func (s *Store) SetStorageHealth(nodeID string, conditions ...backends.StorageHealth) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[nodeID]
	if n == nil {
		return backends.NodeNotFound(nodeID)
	}
	n.health = slices.Clone(conditions)
	return nil
}

// Open lists the volumes that are open on a node.
func (s *Store) Open(nodeID string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, set := range []map[string]*volume{s.volumes, s.ephemeral} {
		for id, v := range set {
			if v.open[nodeID] {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

// Empty tells whether nothing is left: no volume, finished or not, and no
// snapshot.
func (s *Store) Empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.volumes)+len(s.ephemeral)+len(s.snapshots)+len(s.groups) == 0
}

// idOf is the ID of what has this name: no two names share one, whatever is in
// them.
func idOf(kind, name string) string {
	sum := sha256.Sum256([]byte(name))
	return kind + hex.EncodeToString(sum[:16])
}

// The kinds of idOf.
const (
	volumePrefix    = "v-"
	ephemeralPrefix = "e-"
	snapshotPrefix  = "s-"
	groupPrefix     = "g-"
)

// newVolume is a volume of which nothing is there yet.
func newVolume(v backends.Volume) *volume {
	return &volume{
		Volume: v,
		half:   true,
		// Whoever overwrites this says so by RecordFormat.
		formatted: formatted{format: backends.FormatNever},
		blocks:    make(blocks),
		attached:  make(map[string]attachment),
		open:      make(map[string]bool),
		targets:   make(map[targetKey]*Target),
		health:    make(map[string][]backends.Health),
	}
}

// answer is v as a caller may keep it.
func (v *volume) answer() *backends.Volume {
	out := new(backends.Volume)
	v.show(out)
	out.Context = maps.Clone(v.Context)
	out.Mutable = maps.Clone(v.Mutable)
	out.Topology = cloneSegments(v.Topology)
	return out
}

// show fills in v with the maps of the store, which are replaced and never
// written to.
func (v *volume) show(out *backends.Volume) {
	*out = v.Volume
	if len(v.attached) > 0 {
		out.Nodes = slices.Sorted(maps.Keys(v.attached))
	}
}

// closeOn forgets that v is open on a node.
func (v *volume) closeOn(nodeID string) {
	delete(v.open, nodeID)
	for k := range v.targets {
		if k.node == nodeID {
			delete(v.targets, k)
		}
	}
}

func cloneSegments(list []backends.Segments) []backends.Segments {
	out := slices.Clone(list)
	for i := range out {
		out[i] = maps.Clone(out[i])
	}
	return out
}
