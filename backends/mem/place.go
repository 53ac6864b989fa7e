package mem

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/csikit/csikit/backends"
)

// place finds a zone for something of this size: a preferred one, a requisite
// one, or with neither the first that has room. s.mu is held.
func (b *Backend) place(r backends.TopologyRequirement, size int64) ([]backends.Segments, error) {
	s := b.store
	zones := s.zones()
	candidates := slices.Concat(r.Preferred, r.Requisite)
	if len(candidates) == 0 {
		candidates = []backends.Segments{{}}
	}
	for _, want := range candidates {
		for _, zone := range zones {
			if want.Within(in(zone)) && r.Permits(in(zone)) && s.free(zone) >= size {
				return b.segments(zone), nil
			}
		}
	}
	return nil, fmt.Errorf("%w: %d bytes in none of the zones asked for", backends.ErrNoSpace, size)
}

// segments are the topology of what is in a zone: one value for all of it, never
// written to. s.mu is held.
func (b *Backend) segments(zone string) []backends.Segments {
	if !b.has("TopologyReporter") {
		return nil
	}
	s := b.store
	if s.places[zone] == nil {
		s.places[zone] = []backends.Segments{{TopologyKey: zone}}
	}
	return s.places[zone]
}

// zones of the store in order. s.mu is held.
func (s *Store) zones() []string {
	zones := slices.Clone(s.o.Zones)
	for _, n := range s.nodes {
		zones = append(zones, n.zone)
	}
	if len(zones) == 0 {
		return []string{defaultZone}
	}
	slices.Sort(zones)
	return slices.Compact(zones)
}

func in(zone string) backends.Segments { return backends.Segments{TopologyKey: zone} }

// zoneOf is the zone of what has this topology.
func zoneOf(topology []backends.Segments) string {
	if len(topology) == 0 {
		return defaultZone
	}
	return cmp.Or(topology[0][TopologyKey], defaultZone)
}

// Capacity sums up what is free in the zones that are asked for.
func (b *Backend) Capacity(ctx context.Context, req backends.CapacityRequest) (backends.Capacity, error) {
	return ask(ctx, b, Call{"Capacity", "", req}, func(context.Context) (backends.Capacity, error) {
		s := b.store
		s.mu.Lock()
		defer s.mu.Unlock()
		have := backends.Capacity{MinVolume: blockSize}
		for _, zone := range s.zones() {
			if req.Topology.Within(in(zone)) {
				free := s.free(zone) / blockSize * blockSize
				have.Available += free
				have.MaxVolume = max(have.MaxVolume, min(free, sizeMax))
			}
		}
		return have, nil
	})
}

// NodeTopology is the zone of this node.
func (b *Backend) NodeTopology(ctx context.Context) (backends.Segments, error) {
	return ask(ctx, b, Call{Method: "NodeTopology"}, func(context.Context) (backends.Segments, error) {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		n, err := b.node()
		if err != nil {
			return nil, err
		}
		return in(n.zone), nil
	})
}

// MaxVolumes is the limit of this node.
func (b *Backend) MaxVolumes(ctx context.Context) (int64, error) {
	return ask(ctx, b, Call{Method: "MaxVolumes"}, func(context.Context) (int64, error) {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		n, err := b.node()
		if err != nil {
			return 0, err
		}
		return n.limit, nil
	})
}
