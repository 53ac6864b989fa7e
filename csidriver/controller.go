package csidriver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
	"github.com/csikit/csikit/idempotency"
)

// controller serves the Controller service.
type controller struct {
	csi.UnimplementedControllerServer
	*Driver
	traits  backends.Traits
	can     backends.ControllerFeatures
	backend backends.Controller
	schema  schema

	volumePages, snapshotPages, healthPages pager
}

func newController(d *Driver) *controller {
	return &controller{
		Driver:  d,
		traits:  d.cfg.Traits,
		can:     d.features.controller,
		backend: d.cfg.Controller,
		schema:  newSchema(d.cfg.Traits.Parameters),
	}
}

func (c *controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: c.features.controllerCapabilities()}, nil
}

func (c *controller) ControllerGetVolume(ctx context.Context, in *csi.ControllerGetVolumeRequest) (*csi.ControllerGetVolumeResponse, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	vol, err := c.volume(ctx, in.GetVolumeId(), backends.Secrets{})
	if err != nil {
		return nil, err
	}
	resp := &csi.ControllerGetVolumeResponse{
		Volume: pbconv.Volume(vol),
		Status: new(csi.ControllerGetVolumeResponse_VolumeStatus),
	}
	if c.can.PublishedNodesLister != nil {
		resp.Status.PublishedNodeIds = vol.Nodes
	}
	return resp, nil
}

// volume looks a volume up; only a not-found of this very ID is NOT_FOUND.
func (c *controller) volume(ctx context.Context, id string, secrets backends.Secrets) (*backends.Volume, error) {
	vol, err := c.backend.Volume(ctx, backends.VolumeRequest{ID: id, Secrets: secrets})
	if err != nil {
		return nil, aboutVolume(err, id)
	}
	if err := checkVolume(&c.traits, vol); err != nil {
		return nil, err
	}
	if vol.ID != id {
		return nil, badAnswer("asked for volume %q, it gave %q", id, vol.ID)
	}
	return vol, nil
}

// volumeToUse is volume for an RPC that makes something of the volume, or changes it.
func (c *controller) volumeToUse(ctx context.Context, id string, secrets backends.Secrets) (*backends.Volume, error) {
	vol, err := c.volume(ctx, id, secrets)
	return vol, unseen(err, silent)
}

func (c *controller) DeleteVolume(ctx context.Context, in *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	id := in.GetVolumeId()
	keys := []idempotency.Key{idKey(id)}
	if c.engine != nil {
		keys = append(keys, nodeKey(id))
	}
	op := operation("DeleteVolume", id, asked{message: in, id: id}, keys...)
	req := backends.DeleteVolumeRequest{ID: id, Secrets: pbconv.Secrets(in.GetSecrets(), nil)}
	if err := run(ctx, c.Driver, op, func(ctx context.Context) error { return c.deleteVolume(ctx, req) }); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// deleteVolume refuses a volume that this process has staged or published: a
// backend that shares its node may not see it. What was so before a reboot is not any
// more, and a CO may have forgotten it. That no volume has the ID is
// success, that anything else is missing is not.
func (c *controller) deleteVolume(ctx context.Context, req backends.DeleteVolumeRequest) error {
	if c.engine != nil {
		if err := c.engine.Release(ctx, req.ID); err != nil {
			return aboutVolume(err, req.ID)
		}
	}
	if err := c.unused(req.ID); err != nil {
		return err
	}
	err := c.backend.DeleteVolume(ctx, req)
	if gone(err, backends.KindVolume, req.ID) {
		return nil
	}
	return aboutVolume(err, req.ID)
}

// unused is ErrInUse when the volume is staged or published in this process.
func (c *controller) unused(id string) error {
	if c.engine == nil {
		return nil
	}
	if path, used := c.engine.InUse(id); used {
		return inUse(id, path)
	}
	return nil
}
