package suite

import (
	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// stream is what came by a stream of metadata.
type stream struct {
	blocks   []*csi.BlockMetadata
	capacity int64
	kind     csi.BlockMetadataType
}

// read reads a stream and looks whether it is in order.
func read(t *T, req proto.Message, from int64, most int32) stream {
	var s stream
	n := 0
	err := t.Stream(t.Context(), req, func(m proto.Message) bool {
		part := m.(interface {
			GetBlockMetadata() []*csi.BlockMetadata
			GetVolumeCapacityBytes() int64
			GetBlockMetadataType() csi.BlockMetadataType
		})
		if n > 0 && part.GetVolumeCapacityBytes() != s.capacity || part.GetVolumeCapacityBytes() <= 0 {
			t.Failf("SM-10", "%s: volume_capacity_bytes is %d, and was %d", check.Name(req), part.GetVolumeCapacityBytes(), s.capacity)
		}
		if n > 0 && part.GetBlockMetadataType() != s.kind || part.GetBlockMetadataType() == csi.BlockMetadataType_UNKNOWN {
			t.Failf("SM-09", "%s: block_metadata_type is %v, and was %v", check.Name(req), part.GetBlockMetadataType(), s.kind)
		}
		if most > 0 && len(part.GetBlockMetadata()) > int(most) {
			t.Failf("SM-11", "%s: %d blocks in a message, and max_results was %d", check.Name(req), len(part.GetBlockMetadata()), most)
		}
		s.capacity, s.kind = part.GetVolumeCapacityBytes(), part.GetBlockMetadataType()
		s.blocks = append(s.blocks, part.GetBlockMetadata()...)
		n++
		return true
	})
	if err != nil {
		t.Fatalf("SM-01 SM-02", "%s: got %s, want OK", check.Name(req), check.Describe(err))
	}
	s.check(t, check.Name(req), from)
	return s
}

func (s *stream) check(t *T, name string, from int64) {
	for i, b := range s.blocks {
		switch {
		case b.GetSizeBytes() <= 0:
			t.Failf("SM-08", "%s: a block of %d bytes", name, b.GetSizeBytes())
		case i > 0 && b.GetByteOffset() < s.blocks[i-1].GetByteOffset()+s.blocks[i-1].GetSizeBytes():
			t.Failf("SM-06", "%s: the block at %d follows the one at %d of %d bytes", name, b.GetByteOffset(), s.blocks[i-1].GetByteOffset(), s.blocks[i-1].GetSizeBytes())
		case s.kind == csi.BlockMetadataType_FIXED_LENGTH && b.GetSizeBytes() != s.blocks[0].GetSizeBytes():
			t.Failf("SM-07", "%s: blocks of %d and of %d bytes, and the type is FIXED_LENGTH", name, b.GetSizeBytes(), s.blocks[0].GetSizeBytes())
		case b.GetByteOffset()+b.GetSizeBytes() <= from:
			t.Failf("SM-05", "%s from %d: a block that ends at %d", name, from, b.GetByteOffset()+b.GetSizeBytes())
		}
	}
}

func allocated(t *T) {
	s := readySnapshot(t, t.NewVolume())
	req := &csi.GetMetadataAllocatedRequest{SnapshotId: s.GetSnapshotId(), Secrets: t.Config().Secrets}
	all := read(t, req, 0, 0)
	for _, most := range []int32{1, 2, 1000} {
		r := proto.Clone(req).(*csi.GetMetadataAllocatedRequest)
		r.MaxResults = most
		if got := read(t, r, 0, most); len(got.blocks) != len(all.blocks) && all.kind == csi.BlockMetadataType_FIXED_LENGTH {
			t.Failf("SM-02 SM-11", "with max_results %d there are %d blocks, and without %d", most, len(got.blocks), len(all.blocks))
		}
	}
	if len(all.blocks) == 0 {
		return
	}
	last := all.blocks[len(all.blocks)-1]
	for _, from := range []int64{all.blocks[0].GetByteOffset() + 1, last.GetByteOffset()} {
		r := proto.Clone(req).(*csi.GetMetadataAllocatedRequest)
		r.StartingOffset = from
		if got := read(t, r, from, 0); len(got.blocks) == 0 || got.blocks[len(got.blocks)-1].GetByteOffset()+got.blocks[len(got.blocks)-1].GetSizeBytes() != last.GetByteOffset()+last.GetSizeBytes() {
			t.Failf("SM-05 SM-02", "GetMetadataAllocated from %d does not end with the last block", from)
		}
	}
}

// resumed cuts a stream after each message, and asks for the rest.
func resumed(t *T) {
	v := t.NewVolume()
	if t.HasNode && t.Config().Host {
		target := v.ToNode().PublishAt() // so that there is something
		mustStore(t, "NP-07", target, "first")
		v.Unpublish(target)
		v.FromNode()
	}
	req := &csi.GetMetadataAllocatedRequest{SnapshotId: readySnapshot(t, v).GetSnapshotId(), Secrets: t.Config().Secrets}
	all := read(t, req, 0, 0)
	var got []*csi.BlockMetadata
	const most = 100                                     // pieces
	req.MaxResults = int32(max(1, len(all.blocks)/most)) //nolint:gosec // it is less than the blocks of a stream
	for range 2 * most {
		var part []*csi.BlockMetadata
		err := t.Stream(t.Context(), req, func(m proto.Message) bool {
			part = m.(*csi.GetMetadataAllocatedResponse).GetBlockMetadata()
			return len(part) == 0
		})
		if err != nil {
			t.Fatalf("SM-05 SM-02", "GetMetadataAllocated from %d, where an earlier stream was cut: got %s, want OK", req.GetStartingOffset(), check.Describe(err))
		}
		if len(part) == 0 {
			break
		}
		got = append(got, part...)
		req.StartingOffset = part[len(part)-1].GetByteOffset() + part[len(part)-1].GetSizeBytes()
		if req.GetStartingOffset() >= all.capacity {
			break
		}
	}
	if want := covered(all.blocks); covered(got) != want {
		t.Failf("SM-05 SM-02", "streams of GetMetadataAllocated that were cut and begun again have %d bytes, and one that was not has %d", covered(got), want)
	}
}

func covered(blocks []*csi.BlockMetadata) (n int64) {
	for _, b := range blocks {
		n += b.GetSizeBytes()
	}
	return n
}

func delta(t *T) {
	v := t.NewVolume()
	a, b := readySnapshot(t, v).GetSnapshotId(), readySnapshot(t, v).GetSnapshotId()
	for _, pair := range [][2]string{{a, b}, {a, a}} {
		req := &csi.GetMetadataDeltaRequest{BaseSnapshotId: pair[0], TargetSnapshotId: pair[1], Secrets: t.Config().Secrets}
		all := read(t, req, 0, 0)
		req.MaxResults = 1
		read(t, req, 0, 1)
		if pair[0] == pair[1] && len(all.blocks) > 0 {
			t.Warnf("SM-02", "GetMetadataDelta of a snapshot and itself has %d blocks", len(all.blocks))
		}
	}
}
