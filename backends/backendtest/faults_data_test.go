package backendtest

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/csikit/csikit/backends"
)

// dataFaults are of snapshots, clones, groups and blocks.
var dataFaults = []fault{
	{"a snapshot is always of now", "snapshot/created", func(s *spoiled, _ int) {
		s.snapshot = func(ctx context.Context, req backends.SnapshotRequest) (*backends.Snapshot, error) {
			snap, err := s.Backend.Snapshot(ctx, req)
			if err == nil {
				snap.Created = time.Now()
			}
			return snap, err
		}
	}},
	{"snapshots go with their volume", "snapshot/its volume goes", func(s *spoiled, _ int) {
		s.remove = func(ctx context.Context, req backends.DeleteVolumeRequest) error {
			snaps, _, err := s.Backend.ListSnapshots(ctx, backends.ListSnapshotsRequest{VolumeID: req.ID, Page: backends.Page{Limit: 100}})
			for _, snap := range snaps {
				err = errors.Join(err, s.DeleteSnapshot(ctx, backends.DeleteSnapshotRequest{ID: snap.ID}))
			}
			return errors.Join(err, s.Backend.DeleteVolume(ctx, req))
		}
	}},
	{"a snapshot of a volume that is not there", "names/an ID that is none", func(s *spoiled, _ int) {
		s.createSnapshot = func(ctx context.Context, req backends.CreateSnapshotRequest) (*backends.Snapshot, error) {
			snap, err := s.Backend.CreateSnapshot(ctx, req)
			if errors.Is(err, backends.ErrNotFound) {
				err = backends.SnapshotNotFound(req.Name)
			}
			return snap, err
		}
	}},
	{"a restored volume is empty", "content/snapshot", func(s *spoiled, _ int) {
		s.restore = func(ctx context.Context, snap backends.Snapshot, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			v, err := s.Backend.RestoreSnapshot(ctx, snap, req)
			if err == nil {
				err = s.Store().WriteAt(v.ID, make([]byte, 64<<10), 0)
			}
			return v, err
		}
	}},
	{"a restored volume does not say of what", "restore snapshot/twice", func(s *spoiled, _ int) {
		s.restore = func(ctx context.Context, _ backends.Snapshot, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			return s.Backend.CreateVolume(ctx, req)
		}
	}},
	{"a clone is as small as its source", "clone/bigger", func(s *spoiled, _ int) {
		s.clone = func(ctx context.Context, v backends.Volume, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			req.Size = v.Capacity
			return s.Backend.CloneVolume(ctx, v, req)
		}
	}},
	{"a group leaves what it had before it failed", "group/all or none", func(s *spoiled, _ int) {
		s.createGroup = func(ctx context.Context, req backends.CreateGroupSnapshotRequest) (*backends.GroupSnapshot, error) {
			g, err := s.Backend.CreateGroupSnapshot(ctx, req)
			if errors.Is(err, backends.ErrNotFound) {
				for _, id := range req.VolumeIDs {
					_, _ = s.Backend.CreateSnapshot(ctx, backends.CreateSnapshotRequest{Name: "member " + id, VolumeID: id}) // the fault
				}
			}
			return g, err
		}
	}},
	{"a group is deleted without its members", "delete group snapshot/twice", func(s *spoiled, _ int) {
		gone := map[string]bool{}
		s.deleteGroup = func(_ context.Context, req backends.DeleteGroupSnapshotRequest) error {
			gone[req.ID] = true
			return nil
		}
	}},
	{"blocks come backwards", "blocks/in order", func(s *spoiled, _ int) {
		s.changeBlocks(func(blocks []backends.Block, _ backends.ChangedBlocksRequest) []backends.Block {
			slices.Reverse(blocks)
			return blocks
		})
	}},
	{"blocks overlap", "blocks/in order", func(s *spoiled, _ int) {
		s.changeBlocks(func(blocks []backends.Block, _ backends.ChangedBlocksRequest) []backends.Block {
			for i := range blocks {
				blocks[i].Size += 512
			}
			return blocks
		})
	}},
	{"a block is lost when the list is resumed", "blocks/in order", func(s *spoiled, _ int) {
		s.changeBlocks(func(blocks []backends.Block, req backends.ChangedBlocksRequest) []backends.Block {
			return slices.DeleteFunc(blocks, func(b backends.Block) bool { return req.Offset > b.Offset })
		})
	}},
	{"what changed is not told", "blocks/against the data", func(s *spoiled, _ int) {
		s.changeBlocks(func(blocks []backends.Block, req backends.ChangedBlocksRequest) []backends.Block {
			if req.Base != "" && len(blocks) > 0 {
				return blocks[1:]
			}
			return blocks
		})
	}},
	{"what did not change is told", "blocks/nothing changed", func(s *spoiled, _ int) {
		s.changed = func(ctx context.Context, req backends.ChangedBlocksRequest) (backends.BlockMap, error) {
			m, err := s.Backend.ChangedBlocks(ctx, req)
			m.Blocks = func(yield func(backends.Block, error) bool) { yield(backends.Block{Size: m.VolumeSize}, nil) }
			return m, err
		}
	}},
}

// changeBlocks has the backend tell other blocks.
func (s *spoiled) changeBlocks(change func([]backends.Block, backends.ChangedBlocksRequest) []backends.Block) {
	s.changed = func(ctx context.Context, req backends.ChangedBlocksRequest) (backends.BlockMap, error) {
		m, err := s.Backend.ChangedBlocks(ctx, req)
		if err == nil {
			m.Blocks = changedSeq(m.Blocks, req, change)
		}
		return m, err
	}
}

func changedSeq(seq iter.Seq2[backends.Block, error], req backends.ChangedBlocksRequest, change func([]backends.Block, backends.ChangedBlocksRequest) []backends.Block) iter.Seq2[backends.Block, error] {
	var blocks []backends.Block
	for b := range seq {
		blocks = append(blocks, b)
	}
	return func(yield func(backends.Block, error) bool) {
		for _, b := range change(blocks, req) {
			if !yield(b, nil) {
				return
			}
		}
	}
}

// nodeFaults are of the node half.
var nodeFaults = []fault{
	{"opening again gives another source", "open volume/twice", func(s *spoiled, _ int) {
		n := 0
		s.open = func(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
			src, err := s.Backend.OpenVolume(ctx, req)
			if n++; err == nil {
				src.Device.Path += string(rune('a' + n%26))
			}
			return src, err
		}
	}},
	{"a source is two things", "open volume/twice", func(s *spoiled, _ int) {
		s.open = func(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
			src, err := s.Backend.OpenVolume(ctx, req)
			if err == nil {
				src.Dir = "/tmp"
			}
			return src, err
		}
	}},
	{"a device that nobody can know", "open volume/twice", func(s *spoiled, _ int) {
		s.open = func(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
			src, err := s.Backend.OpenVolume(ctx, req)
			if err == nil {
				src.Device.Identity = backends.Identity{Size: src.Device.Identity.Size}
			}
			return src, err
		}
	}},
	{"a secret in the state", "open volume/twice", func(s *spoiled, _ int) {
		s.open = func(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
			src, err := s.Backend.OpenVolume(ctx, req)
			if password, _ := req.Secrets.Lookup("canary"); err == nil {
				src.State = append(src.State, password...)
			}
			return src, err
		}
	}},
	{"closing needs the state", "node/close by ID and State alone", func(s *spoiled, _ int) {
		s.close = func(ctx context.Context, req backends.CloseVolumeRequest) error {
			if req.State == nil {
				return backends.ErrInvalid
			}
			return s.Backend.CloseVolume(ctx, req)
		}
	}},
	{"closing what is not there is an error", "node/close by ID and State alone", func(s *spoiled, _ int) {
		s.close = func(ctx context.Context, req backends.CloseVolumeRequest) error {
			if _, err := s.Backend.Volume(ctx, backends.VolumeRequest{ID: req.ID}); err != nil && req.ID[0] != 'e' {
				return err
			}
			return s.Backend.CloseVolume(ctx, req)
		}
	}},
	{"closing does nothing", "open volume/cut and undone", func(s *spoiled, _ int) {
		s.close = func(context.Context, backends.CloseVolumeRequest) error { return nil }
	}},
	{"what was formatted is forgotten", "record format/twice", func(s *spoiled, _ int) {
		s.record = func(context.Context, backends.RecordFormatRequest) error { return nil }
	}},
	{"a node moves", "node/topology", func(s *spoiled, opens int) {
		s.topology = func(ctx context.Context) (backends.Segments, error) {
			place, err := s.Backend.NodeTopology(ctx)
			if err == nil && opens > 1 {
				for k := range place {
					place[k] += "-new"
				}
			}
			return place, err
		}
	}},
	{"a start closes nothing", "node/recover", func(s *spoiled, _ int) {
		s.recoverNode = func(context.Context, []backends.OpenVolume) error { return nil }
	}},
	{"two pods share a volume", "ephemeral/two pods", func(s *spoiled, _ int) {
		s.ephemeral = func(ctx context.Context, req backends.CreateEphemeralRequest) (*backends.Volume, error) {
			req.ID = "one for all"
			return s.Backend.CreateEphemeral(ctx, req)
		}
	}},
	{"an ephemeral volume stays", "ephemeral/two pods", func(s *spoiled, _ int) {
		s.unephemeral = func(context.Context, backends.DeleteEphemeralRequest) error { return nil }
	}},
	{"an ephemeral volume that was never made is an error", "ephemeral/never made", func(s *spoiled, _ int) {
		s.unephemeral = func(ctx context.Context, req backends.DeleteEphemeralRequest) error {
			if req.VolumeID == "" {
				return backends.VolumeNotFound(req.ID)
			}
			return s.Backend.DeleteEphemeral(ctx, req)
		}
	}},
}
