package backends

import "slices"

// Within tells whether a place has all that s asks for: each of its keys, with its
// value. Empty segments are anywhere.
func (s Segments) Within(place Segments) bool {
	for k, v := range s {
		if have, ok := place[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// Permits tells whether a volume that can be reached from place alone satisfies the
// requirement: one of Requisite is there, or none is asked for.
func (r TopologyRequirement) Permits(place Segments) bool {
	return len(r.Requisite) == 0 || slices.ContainsFunc(r.Requisite, func(s Segments) bool { return s.Within(place) })
}
