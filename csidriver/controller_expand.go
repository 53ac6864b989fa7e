package csidriver

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

func (c *controller) ControllerExpandVolume(ctx context.Context, in *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	req, err := c.expandRequest(in)
	if err != nil {
		return nil, err
	}
	op := operation("ControllerExpandVolume", req.ID, asked{message: in, id: req.ID}, idKey(req.ID))
	size, err := do(ctx, c.Driver, op, func(ctx context.Context) (int64, error) { return c.expandVolume(ctx, req) })
	if err != nil {
		return nil, err
	}
	return &csi.ControllerExpandVolumeResponse{
		CapacityBytes:         size,
		NodeExpansionRequired: c.features.nodeExpansion(in.GetVolumeCapability()),
	}, nil
}

func (c *controller) expandRequest(in *csi.ControllerExpandVolumeRequest) (*backends.ExpandVolumeRequest, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	if err := checkRange(in.GetCapacityRange()); err != nil {
		return nil, err
	}
	req := &backends.ExpandVolumeRequest{
		ID:      in.GetVolumeId(),
		Range:   pbconv.Range(in.GetCapacityRange()),
		Secrets: pbconv.Secrets(in.GetSecrets(), nil),
	}
	if in.GetVolumeCapability() != nil {
		if err := checkCapability(&c.traits, in.GetVolumeCapability()); err != nil {
			return nil, err
		}
		converted := pbconv.Capability(in.GetVolumeCapability())
		req.Capability = &converted
	}
	return req, nil
}

// expandVolume looks first: a volume that is big enough stays as it is.
func (c *controller) expandVolume(ctx context.Context, req *backends.ExpandVolumeRequest) (int64, error) {
	vol, err := c.volumeToUse(ctx, req.ID, req.Secrets)
	if err != nil {
		return 0, err
	}
	if err := c.checkExpand(ctx, vol, req); err != nil {
		return 0, err
	}
	limit := req.Range.Limit
	switch {
	case vol.Capacity > 0 && limit > 0 && vol.Capacity > limit:
		return 0, outOfRange("volume %q has %d bytes already, limit_bytes is %d", req.ID, vol.Capacity, limit)
	case vol.Capacity > 0 && vol.Capacity >= req.Range.Required:
		return vol.Capacity, nil
	}
	if req.Size, err = resolveSize(&c.traits, req.Range); err != nil {
		return 0, err
	}
	if c.traits.OfflineExpand {
		if err := c.detached(vol); err != nil {
			return 0, err
		}
	}
	size, err := c.can.Expander.ExpandVolume(ctx, *req)
	if err != nil {
		return 0, aboutVolume(err, req.ID)
	}
	if size <= 0 || !inRange(size, req.Range) {
		return 0, badAnswer("volume %q of %d bytes was expanded to %d, asked for was [%d, %d]", req.ID, vol.Capacity, size, req.Range.Required, limit)
	}
	return c.sizeNow(ctx, req, size)
}

// sizeNow looks the expanded volume up: what the storage has counts, not what was
// said of it.
func (c *controller) sizeNow(ctx context.Context, req *backends.ExpandVolumeRequest, said int64) (int64, error) {
	vol, err := c.volumeToUse(ctx, req.ID, req.Secrets)
	switch {
	case err != nil:
		return 0, afterwards("after the expansion: %w", err)
	case vol.Capacity == 0:
		return said, nil
	case !inRange(vol.Capacity, req.Range):
		return 0, badAnswer("volume %q was expanded to %d bytes, and has %d", req.ID, said, vol.Capacity)
	}
	return vol.Capacity, nil
}

// checkExpand asks a VolumeChecker whether this very volume has the capability.
func (c *controller) checkExpand(ctx context.Context, vol *backends.Volume, req *backends.ExpandVolumeRequest) error {
	if c.can.VolumeChecker == nil || req.Capability == nil {
		return nil
	}
	return aboutVolume(c.can.VolumeChecker.CheckVolume(ctx, backends.CheckVolumeRequest{
		Volume:       vol,
		Capabilities: []backends.Capability{*req.Capability},
		Secrets:      req.Secrets,
	}), req.ID)
}

func inUse(id, path string) error {
	return fmt.Errorf("volume %q: %w at %s", id, backends.ErrInUse, path)
}
