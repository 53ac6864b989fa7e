package csidriver

import (
	"context"
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

func (c *controller) ControllerModifyVolume(ctx context.Context, in *csi.ControllerModifyVolumeRequest) (*csi.ControllerModifyVolumeResponse, error) {
	req, err := c.modifyRequest(in)
	if err != nil {
		return nil, err
	}
	op := operation("ControllerModifyVolume", req.ID, asked{message: in, id: req.ID}, idKey(req.ID))
	if err := run(ctx, c.Driver, op, func(ctx context.Context) error { return c.modifyVolume(ctx, req) }); err != nil {
		return nil, err
	}
	return &csi.ControllerModifyVolumeResponse{}, nil
}

// modifyRequest checks every key before the backend sees one: what is refused
// has changed nothing.
func (c *controller) modifyRequest(in *csi.ControllerModifyVolumeRequest) (*backends.ModifyVolumeRequest, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	mutable, owner := pbconv.Split(in.GetMutableParameters())
	secrets := pbconv.Secrets(in.GetSecrets(), &owner)
	return &backends.ModifyVolumeRequest{
		ID:      in.GetVolumeId(),
		Mutable: mutable,
		Owner:   owner,
		Secrets: secrets,
	}, c.schema.checkMutable(mutable)
}

// modifyVolume looks first, and lets a VolumeChecker refuse. A request without
// parameters of this driver's changes nothing.
func (c *controller) modifyVolume(ctx context.Context, req *backends.ModifyVolumeRequest) error {
	vol, err := c.volumeToUse(ctx, req.ID, req.Secrets)
	if err != nil || len(req.Mutable) == 0 {
		return err
	}
	if c.can.VolumeChecker != nil {
		err := c.can.VolumeChecker.CheckVolume(ctx, backends.CheckVolumeRequest{
			Volume:  vol,
			Mutable: maps.Clone(req.Mutable),
			Secrets: req.Secrets,
		})
		if err != nil {
			return aboutVolume(err, req.ID)
		}
	}
	patch := *req
	patch.Mutable = maps.Clone(req.Mutable)
	return aboutVolume(c.can.Modifier.ModifyVolume(ctx, patch), req.ID)
}
