package backendtest

import (
	"context"
	"slices"

	"github.com/csikit/csikit/backends"
)

// wipe overwrites the beginning of a volume.
func (s *spoiled) wipe(id string) { _ = s.Store().WriteAt(id, make([]byte, 64<<10), 0) } // gone: nothing to spoil

// copyFaults are of what is made of something, later.
var copyFaults = []fault{
	{"a clone loses its data with its source", "content/clone without its source", func(s *spoiled, _ int) {
		clones := map[string][]string{}
		s.clone = func(ctx context.Context, v backends.Volume, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			clone, err := s.Backend.CloneVolume(ctx, v, req)
			if err == nil {
				clones[v.ID] = append(clones[v.ID], clone.ID)
			}
			return clone, err
		}
		s.remove = func(ctx context.Context, req backends.DeleteVolumeRequest) error {
			for _, id := range clones[req.ID] {
				s.wipe(id)
			}
			return s.Backend.DeleteVolume(ctx, req)
		}
	}},
	{"a snapshot loses its data with its volume", "content/snapshot without its volume", func(s *spoiled, _ int) {
		gone := map[string]bool{}
		s.remove = func(ctx context.Context, req backends.DeleteVolumeRequest) error {
			err := s.Backend.DeleteVolume(ctx, req)
			gone[req.ID] = gone[req.ID] || err == nil
			return err
		}
		s.afterRestore(func(v *backends.Volume, snap backends.Snapshot) {
			if gone[snap.VolumeID] {
				s.wipe(v.ID)
			}
		})
	}},
	{"a restored volume loses its data with its snapshot", "content/restored without its snapshot", func(s *spoiled, _ int) {
		restored := map[string]string{}
		s.afterRestore(func(v *backends.Volume, snap backends.Snapshot) { restored[snap.ID] = v.ID })
		s.removeSnapshot = func(ctx context.Context, req backends.DeleteSnapshotRequest) error {
			s.wipe(restored[req.ID])
			return s.Backend.DeleteSnapshot(ctx, req)
		}
	}},
	{"a bigger restored volume has old data behind", "content/restored bigger", func(s *spoiled, _ int) {
		s.afterRestore(func(v *backends.Volume, snap backends.Snapshot) {
			_ = s.Store().WriteAt(v.ID, []byte("of somebody else"), snap.Size) // fails where there is nothing behind
		})
	}},
	{"a bigger clone has old data behind", "content/clone bigger", func(s *spoiled, _ int) {
		s.clone = func(ctx context.Context, v backends.Volume, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			clone, err := s.Backend.CloneVolume(ctx, v, req)
			if err == nil && clone.Capacity > v.Capacity {
				err = s.Store().WriteAt(clone.ID, []byte("of somebody else"), v.Capacity)
			}
			return clone, err
		}
	}},
	{"a snapshot ends where its volume did at first", "content/snapshot of an expanded volume", func(s *spoiled, _ int) {
		first := map[string]int64{}
		s.create = func(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			v, err := s.Backend.CreateVolume(ctx, req)
			if err == nil {
				first[v.ID] = v.Capacity
			}
			return v, err
		}
		s.afterRestore(func(v *backends.Volume, snap backends.Snapshot) {
			if at := first[snap.VolumeID]; at < snap.Size {
				_ = s.Store().WriteAt(v.ID, make([]byte, snap.Size-at), at) // always inside
			}
		})
	}},
	{"snapshots lose their data at the next start", "content/snapshot reopened", func(s *spoiled, opens int) {
		s.afterRestore(func(v *backends.Volume, _ backends.Snapshot) {
			if opens > 1 {
				s.wipe(v.ID)
			}
		})
	}},
	{"a clone forgets what can be modified", "modify/at creation of a copy", func(s *spoiled, _ int) {
		s.clone = func(ctx context.Context, v backends.Volume, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			req.Mutable = nil
			return s.Backend.CloneVolume(ctx, v, req)
		}
	}},
	{"zeros are no change", "blocks/against the data", func(s *spoiled, _ int) {
		s.changeBlocks(func(blocks []backends.Block, req backends.ChangedBlocksRequest) []backends.Block {
			return slices.DeleteFunc(blocks, func(b backends.Block) bool {
				p := make([]byte, b.Size)
				return s.Store().ReadAt(req.Target, p, b.Offset) == nil && !slices.ContainsFunc(p, func(c byte) bool { return c != 0 })
			})
		})
	}},
	{"what is behind the end of the base is no change", "blocks/of a volume that grew", func(s *spoiled, _ int) {
		s.changeBlocks(func(blocks []backends.Block, req backends.ChangedBlocksRequest) []backends.Block {
			base, err := s.Backend.Snapshot(context.Background(), backends.SnapshotRequest{ID: req.Base})
			return slices.DeleteFunc(blocks, func(b backends.Block) bool { return err == nil && b.Offset >= base.Size })
		})
	}},
}

// afterRestore has then spoil what was restored.
func (s *spoiled) afterRestore(then func(v *backends.Volume, snap backends.Snapshot)) {
	s.restore = func(ctx context.Context, snap backends.Snapshot, req backends.CreateVolumeRequest) (*backends.Volume, error) {
		v, err := s.Backend.RestoreSnapshot(ctx, snap, req)
		if err == nil {
			then(v, snap)
		}
		return v, err
	}
}
