package csidriver

import (
	"context"
	"errors"
	"log/slog"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
	"github.com/csikit/csikit/mounter"
)

// ControllerGetVolumeHealth does not look the volume up: one that cannot be
// looked up is what this RPC is there to tell of.
func (c *controller) ControllerGetVolumeHealth(ctx context.Context, in *csi.ControllerGetVolumeHealthRequest) (*csi.ControllerGetVolumeHealthResponse, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	req := backends.VolumeRequest{ID: in.GetVolumeId(), Secrets: pbconv.Secrets(in.GetSecrets(), nil)}
	stuck := c.stuckHealth(idKey(req.ID))
	list, err := c.can.HealthChecker.VolumeHealth(ctx, req)
	if err != nil && len(stuck) == 0 {
		return nil, aboutVolume(err, req.ID)
	}
	if list, err = mergeHealth(req.ID, append(list, stuck...), c.cleaner(in)); err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeHealthResponse{VolumeHealth: pbconv.VolumeHealth(req.ID, list)}, nil
}

func (c *controller) ControllerListVolumeHealth(ctx context.Context, in *csi.ControllerListVolumeHealthRequest) (*csi.ControllerListVolumeHealthResponse, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	secrets := pbconv.Secrets(in.GetSecrets(), nil)
	list := listing[*csi.ControllerListVolumeHealthResponse]{
		pager: &c.healthPages,
		name:  "ControllerListVolumeHealth",
		page: func(page backends.Page) (*csi.ControllerListVolumeHealthResponse, error) {
			return c.healthPage(ctx, backends.ListVolumeHealthRequest{Page: page, Secrets: secrets}, c.cleaner(in))
		},
		look: func(r *csi.ControllerListVolumeHealthResponse) (int, *string) { return len(r.Entries), &r.NextToken },
	}
	return list.answer(ctx, in.GetStartingToken(), in.GetMaxEntries())
}

func (c *controller) healthPage(ctx context.Context, req backends.ListVolumeHealthRequest, clean func(string) string) (*csi.ControllerListVolumeHealthResponse, error) {
	vols, next, err := c.can.HealthLister.ListVolumeHealth(ctx, req)
	if err != nil {
		return nil, aboutVolume(err, "")
	}
	if err := checkPage(req.Page, len(vols), next); err != nil {
		return nil, err
	}
	entries, err := healthEntries(vols, clean)
	return &csi.ControllerListVolumeHealthResponse{Entries: entries, NextToken: next}, err
}

// healthEntries leaves the healthy volumes out, and makes one entry of several
// for one volume.
func healthEntries(vols []backends.VolumeHealth, clean func(string) string) ([]*csi.VolumeHealth, error) {
	var order []string
	byID := make(map[string][]backends.Health, len(vols))
	for _, v := range vols {
		if v.ID == "" || !fits(v.ID, maxString) {
			return nil, badAnswer("the health of volume %.200q: no ID, or more than %d bytes, or not UTF-8", v.ID, maxString)
		}
		if len(v.Health) == 0 {
			continue
		}
		if _, seen := byID[v.ID]; !seen {
			order = append(order, v.ID)
		}
		byID[v.ID] = append(byID[v.ID], v.Health...)
	}
	entries := make([]*csi.VolumeHealth, len(order))
	for i, id := range order {
		list, err := mergeHealth(id, byID[id], clean)
		if err != nil {
			return nil, err
		}
		entries[i] = pbconv.VolumeHealth(id, list)
	}
	return entries, nil
}

// NodeGetVolumeHealth answers what the kernel shows and what the backend knows, and
// which operation keeps the volume to itself without an end.
func (n *node) NodeGetVolumeHealth(ctx context.Context, in *csi.NodeGetVolumeHealthRequest) (*csi.NodeGetVolumeHealthResponse, error) {
	req, err := n.healthRequest(in)
	if err != nil {
		return nil, err
	}
	stuck := n.stuckHealth(nodeKey(in.GetVolumeId()))
	list, err := n.nodeHealth(ctx, in.GetVolumeId(), req)
	if err != nil && len(stuck) == 0 {
		return nil, aboutVolume(err, req.ID)
	}
	if list, err = mergeHealth(req.ID, append(list, stuck...), n.cleaner(in)); err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: pbconv.VolumeHealth(in.GetVolumeId(), list)}, nil
}

// nodeHealth joins both. What one of them found is told even if the other fails:
// that happens when things are bad. Whether the volume exists is the backend's to
// say: one that is not staged here may be asked about.
func (n *node) nodeHealth(ctx context.Context, id string, req backends.NodeHealthRequest) ([]backends.Health, error) {
	list, err := n.engine.Health(ctx, mounter.HealthRequest{ID: id})
	checker := n.can.NodeHealthChecker
	if checker == nil {
		return list, err
	}
	if errors.Is(err, backends.ErrNotFound) {
		err = nil
	}
	told, failure := checker.NodeVolumeHealth(ctx, req)
	switch {
	case failure == nil:
		list = append(list, told...)
	case errors.Is(failure, backends.ErrNotFound):
		return nil, failure
	}
	if err = errors.Join(failure, err); err == nil || len(list) == 0 {
		return list, err
	}
	n.logger.WarnContext(ctx, "health of a volume is not known in full", slog.String("volume", id), slog.Any("err", err))
	return list, nil
}

// healthRequest prefers the path that a pod sees.
func (n *node) healthRequest(in *csi.NodeGetVolumeHealthRequest) (backends.NodeHealthRequest, error) {
	req := backends.NodeHealthRequest{ID: in.GetVolumeId()}
	if err := n.validator.check(in); err != nil {
		return req, err
	}
	published, err := optionalPath("volume_publish_path", in.GetVolumePublishPath())
	if err != nil {
		return req, err
	}
	staging, err := optionalPath("staging_target_path", in.GetStagingTargetPath())
	if err != nil {
		return req, err
	}
	if req.Path = published; published == "" {
		req.Path = staging
	}
	req.State = n.engine.State(req.ID)
	req.ID = n.engine.OwnID(req.ID)
	return req, nil
}

func (n *node) NodeGetStorageHealth(ctx context.Context, in *csi.NodeGetStorageHealthRequest) (*csi.NodeGetStorageHealthResponse, error) {
	if err := n.validator.check(in); err != nil {
		return nil, err
	}
	list, err := n.can.StorageHealthChecker.StorageHealth(ctx, backends.StorageHealthRequest{Secrets: pbconv.Secrets(in.GetSecrets(), nil)})
	if err != nil {
		return nil, aboutVolume(err, "")
	}
	if list, err = mergeStorageHealth(list, n.cleaner(in)); err != nil {
		return nil, err
	}
	return &csi.NodeGetStorageHealthResponse{BackendHealth: pbconv.StorageHealth(list)}, nil
}
