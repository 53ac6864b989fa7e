package csidriver

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// blocks is what a stream gave.
type blocks struct {
	messages [][]*csi.BlockMetadata
	kind     csi.BlockMetadataType
	volume   int64
	err      error
}

func allocated(t *testing.T, r *rig, req *csi.GetMetadataAllocatedRequest) (b blocks) {
	t.Helper()
	s, err := r.GetMetadataAllocated(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := s.Recv()
		if err != nil {
			b.err = err
			return b
		}
		b.messages, b.kind, b.volume = append(b.messages, m.GetBlockMetadata()), m.GetBlockMetadataType(), m.GetVolumeCapacityBytes()
	}
}
