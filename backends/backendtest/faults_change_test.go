package backendtest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"

	"github.com/csikit/csikit/backends"
)

// changeFaults are of growing, changing and attaching.
var changeFaults = []fault{
	{"expanding shrinks", "expand/to less", func(s *spoiled, _ int) {
		s.expand = func(ctx context.Context, req backends.ExpandVolumeRequest) (int64, error) {
			_, err := s.Backend.ExpandVolume(ctx, req)
			return req.Size, err
		}
	}},
	{"expanding does nothing", "expand volume/twice", func(s *spoiled, _ int) {
		s.expand = func(_ context.Context, req backends.ExpandVolumeRequest) (int64, error) { return req.Size, nil }
	}},
	{"expanding loses data", "content/expand", func(s *spoiled, _ int) {
		s.expand = func(ctx context.Context, req backends.ExpandVolumeRequest) (int64, error) {
			size, err := s.Backend.ExpandVolume(ctx, req)
			if err == nil {
				err = s.Store().WriteAt(req.ID, make([]byte, 4096), 0)
			}
			return size, err
		}
	}},
	{"a new volume has old data", "content/a new volume is empty", func(s *spoiled, _ int) {
		s.create = func(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
			v, err := s.Backend.CreateVolume(ctx, req)
			if err == nil {
				err = s.Store().WriteAt(v.ID, []byte("of somebody else"), 0)
			}
			return v, err
		}
	}},
	{"modifying forgets the rest", "modify/a patch", func(s *spoiled, _ int) {
		s.modify = func(ctx context.Context, req backends.ModifyVolumeRequest) error {
			all := map[string]string{"tier": "standard", "cache": "none"}
			maps.Copy(all, req.Mutable)
			req.Mutable = all
			return s.Backend.ModifyVolume(ctx, req)
		}
	}},
	{"modifying applies a part, and refuses", "modify/refused", func(s *spoiled, _ int) {
		s.modify = func(ctx context.Context, req backends.ModifyVolumeRequest) error {
			err := s.Backend.ModifyVolume(ctx, req)
			if errors.Is(err, backends.ErrInvalid) {
				maps.DeleteFunc(req.Mutable, func(k, _ string) bool { return k != "tier" && k != "cache" })
				return errors.Join(err, s.Backend.ModifyVolume(ctx, req))
			}
			return err
		}
	}},
	{"modifying does nothing", "modify volume/twice", func(s *spoiled, _ int) {
		s.modify = func(context.Context, backends.ModifyVolumeRequest) error { return nil }
	}},
	{"attaching again in another way", "attach/with other arguments", func(s *spoiled, _ int) {
		s.attach = func(ctx context.Context, req backends.AttachVolumeRequest) (map[string]string, error) {
			req.ReadOnly = false
			return s.Backend.AttachVolume(ctx, req)
		}
	}},
	{"attaching to two nodes", "attach/elsewhere", func(s *spoiled, _ int) {
		s.attach = func(ctx context.Context, req backends.AttachVolumeRequest) (map[string]string, error) {
			req.Capability.Mode = backends.MultiNodeMultiWriter
			return s.Backend.AttachVolume(ctx, req)
		}
	}},
	{"attaching twice is an error", "attach volume/twice", func(s *spoiled, _ int) {
		seen := map[string]bool{}
		s.attach = func(ctx context.Context, req backends.AttachVolumeRequest) (map[string]string, error) {
			if seen[req.ID+req.NodeID] {
				return nil, backends.ErrInUse
			}
			seen[req.ID+req.NodeID] = true
			return s.Backend.AttachVolume(ctx, req)
		}
	}},
	{"in use, and nobody says where", "attach/elsewhere", func(s *spoiled, _ int) {
		s.attach = func(ctx context.Context, req backends.AttachVolumeRequest) (map[string]string, error) {
			pub, err := s.Backend.AttachVolume(ctx, req)
			if errors.Is(err, backends.ErrInUse) {
				err = backends.ErrInUse
			}
			return pub, err
		}
	}},
	{"detaching what is detached is an error", "detach volume/twice", func(s *spoiled, _ int) {
		s.detach = func(ctx context.Context, req backends.DetachVolumeRequest) error {
			v, err := s.Backend.Volume(ctx, backends.VolumeRequest{ID: req.ID})
			if err == nil && len(v.Nodes) == 0 {
				return backends.ErrPrecondition
			}
			return s.Backend.DetachVolume(ctx, req)
		}
	}},
	{"detaching from every node is from none", "attach/every node", func(s *spoiled, _ int) {
		s.detach = func(ctx context.Context, req backends.DetachVolumeRequest) error {
			if req.NodeID == "" {
				return nil
			}
			return s.Backend.DetachVolume(ctx, req)
		}
	}},
	{"an attached volume is deleted", "attach/delete", func(s *spoiled, _ int) {
		s.remove = func(ctx context.Context, req backends.DeleteVolumeRequest) error {
			if err := s.Backend.DetachVolume(ctx, backends.DetachVolumeRequest{ID: req.ID}); err != nil {
				return err
			}
			return s.Backend.DeleteVolume(ctx, req)
		}
	}},
}

// listFaults are of pages.
var listFaults = []fault{
	{"tokens are numbers", "list volumes/while others come and go", func(s *spoiled, _ int) {
		s.list = func(ctx context.Context, req backends.ListVolumesRequest) ([]*backends.Volume, string, error) {
			start, err := strconv.Atoi(req.Page.Token)
			if req.Page.Token != "" && (err != nil || start < 0 || start > 1000) {
				return nil, "", backends.ErrStaleToken
			}
			all, _, err := s.Backend.ListVolumes(ctx, backends.ListVolumesRequest{Page: backends.Page{Limit: 1000}})
			page := all[min(start, len(all)):min(start+req.Page.Limit, len(all))]
			if start+req.Page.Limit >= len(all) {
				return page, "", err
			}
			return page, strconv.Itoa(start + req.Page.Limit), err
		}
	}},
	{"a token must be of something that is there", "list volumes/while others come and go", func(s *spoiled, _ int) {
		s.list = func(ctx context.Context, req backends.ListVolumesRequest) ([]*backends.Volume, string, error) {
			if req.Page.Token != "" {
				if _, err := s.Backend.Volume(ctx, backends.VolumeRequest{ID: req.Page.Token}); err != nil {
					return nil, "", backends.ErrStaleToken
				}
			}
			return s.Backend.ListVolumes(ctx, req)
		}
	}},
	{"garbage starts anew", "list volumes/token", func(s *spoiled, _ int) {
		s.list = func(ctx context.Context, req backends.ListVolumesRequest) ([]*backends.Volume, string, error) {
			vols, next, err := s.Backend.ListVolumes(ctx, req)
			if errors.Is(err, backends.ErrStaleToken) {
				return s.Backend.ListVolumes(ctx, backends.ListVolumesRequest{Page: backends.Page{Limit: req.Page.Limit}})
			}
			return vols, next, err
		}
	}},
	{"the last entry is lost when the page is full", "list volumes/every limit", func(s *spoiled, _ int) {
		s.list = func(ctx context.Context, req backends.ListVolumesRequest) ([]*backends.Volume, string, error) {
			vols, next, err := s.Backend.ListVolumes(ctx, req)
			if len(vols) == req.Page.Limit && len(vols) > 1 && next == "" {
				vols = vols[:len(vols)-1]
			}
			return vols, next, err
		}
	}},
	{"pages are too long", "list volumes/every limit", func(s *spoiled, _ int) {
		s.list = func(ctx context.Context, req backends.ListVolumesRequest) ([]*backends.Volume, string, error) {
			req.Page.Limit++
			return s.Backend.ListVolumes(ctx, req)
		}
	}},
	{"the order changes with the pages", "list volumes/every limit", func(s *spoiled, _ int) {
		s.list = func(ctx context.Context, req backends.ListVolumesRequest) ([]*backends.Volume, string, error) {
			vols, next, err := s.Backend.ListVolumes(ctx, req)
			slices.Reverse(vols)
			return vols, next, err
		}
	}},
	{"an entry is not the volume", "list volumes/entries", func(s *spoiled, _ int) {
		s.list = func(ctx context.Context, req backends.ListVolumesRequest) ([]*backends.Volume, string, error) {
			vols, next, err := s.Backend.ListVolumes(ctx, req)
			for _, v := range vols {
				v.Fingerprint, v.Context = "", nil
			}
			return vols, next, err
		}
	}},
	{"the list is of all volumes", "list snapshots/every limit", func(s *spoiled, _ int) {
		s.listSnapshots = func(ctx context.Context, req backends.ListSnapshotsRequest) ([]*backends.Snapshot, string, error) {
			req.VolumeID = ""
			return s.Backend.ListSnapshots(ctx, req)
		}
	}},
}
