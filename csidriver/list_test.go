package csidriver

import (
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

// TestMeasuredVolumes: what is taken for the size of an entry is never less than
// it, and not much more.
func TestMeasuredVolumes(t *testing.T) {
	traits := memoryTraits()
	traits.TopologyKeys = []string{"a", "topology.example.com/zone"}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-z]{0,30}`)
		v := &backends.Volume{
			ID: rapid.StringMatching(`[a-z]{1,128}`).Draw(t, "id"), Capacity: rapid.Int64Min(0).Draw(t, "capacity"),
			Context: rapid.MapOfN(text, text, 0, 60).Draw(t, "context"),
			Nodes:   rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,256}`), 0, 20).Draw(t, "nodes"),
		}
		switch rapid.IntRange(0, 2).Draw(t, "source") {
		case 1:
			v.Source.SnapshotID = v.ID
		case 2:
			v.Source.VolumeID = v.ID
		}
		for range rapid.IntRange(0, 20).Draw(t, "places") {
			place := backends.Segments{"a": "b"}
			if rapid.Bool().Draw(t, "zone") {
				place["topology.example.com/zone"] = strings.Repeat("z", 63)
			}
			v.Topology = append(v.Topology, place)
		}
		measured, err := measureVolume(&traits, v)
		if err != nil {
			t.Skip(err) // 4 KiB of context
		}
		size := proto.Size(&csi.ListVolumesResponse{Entries: pbconv.Entries([]*backends.Volume{v}, true)})
		if measured < size || measured > 4*size+200 {
			t.Errorf("%d bytes, measured %d", size, measured)
		}
	})
}

// TestListEntries: an entry says of a volume what a single answer does.
func TestListEntries(t *testing.T) {
	for _, v := range []*backends.Volume{
		{ID: "v"},
		{ID: "v", Capacity: 1, Context: map[string]string{"a": "b"}, Source: backends.ContentSource{SnapshotID: "s"}, Nodes: []string{"n"}},
		{ID: "v", Topology: []backends.Segments{{"a": "b"}}},
		{ID: "v", Topology: []backends.Segments{{"a": "b"}, {"a": "c"}}},
	} {
		got := pbconv.Entries([]*backends.Volume{v}, true)[0]
		if !proto.Equal(got.GetVolume(), pbconv.Volume(v)) || !slices.Equal(got.GetStatus().GetPublishedNodeIds(), v.Nodes) {
			t.Errorf("%v", got)
		}
		if without := pbconv.Entries([]*backends.Volume{v}, false)[0]; without.Status != nil {
			t.Errorf("%v", without)
		}
	}
}
