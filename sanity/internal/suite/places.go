package suite

import (
	"maps"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/sanity/internal/check"
)

// anotherPlace looks for a second place at which the driver makes volumes: names of
// places are nearly always counted, zone-1, us-east-1a. nil: none was found.
func anotherPlace(t *T, mine *csi.Topology) *csi.Topology {
	for _, k := range slices.Sorted(maps.Keys(mine.GetSegments())) {
		for _, value := range neighbours(mine.GetSegments()[k]) {
			far := &csi.Topology{Segments: maps.Clone(mine.GetSegments())}
			far.Segments[k] = value
			req := t.CreateRequest()
			req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{far}}
			resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
			if err == nil && reachable(resp.GetVolume(), far) && !reachable(resp.GetVolume(), mine) {
				return far
			}
		}
	}
	return nil
}

// neighbours are the values before and behind one that ends in a digit or a letter.
func neighbours(value string) []string {
	if value == "" {
		return nil
	}
	var all []string
	head, last := value[:len(value)-1], value[len(value)-1]
	for _, next := range []byte{last + 1, last - 1} {
		if next >= '0' && next <= '9' || next >= 'a' && next <= 'z' || next >= 'A' && next <= 'Z' {
			all = append(all, head+string(next))
		}
	}
	return all
}
