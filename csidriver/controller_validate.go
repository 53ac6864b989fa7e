package csidriver

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

func (c *controller) ValidateVolumeCapabilities(ctx context.Context, in *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	secrets := pbconv.Secrets(in.GetSecrets(), nil)
	vol, err := c.volume(ctx, in.GetVolumeId(), secrets)
	if err != nil {
		return nil, err
	}
	err = c.confirm(ctx, in, vol, secrets)
	switch {
	case err == nil:
		return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: pbconv.Confirmed(in)}, nil
	case refuses(err):
		return &csi.ValidateVolumeCapabilitiesResponse{Message: shortMessage(c.server.redact.scrub(in, err.Error()))}, nil
	default:
		return nil, err
	}
}

// maxClipped is what clip may add: the message is a string of an answer, and has
// its limit.
const maxClipped = 32

// confirm says why the volume cannot be used as asked.
func (c *controller) confirm(ctx context.Context, in *csi.ValidateVolumeCapabilitiesRequest, vol *backends.Volume, secrets backends.Secrets) error {
	if err := checkCapabilities(&c.traits, in.GetVolumeCapabilities()); err != nil {
		return err
	}
	mutable, _ := pbconv.Split(in.GetMutableParameters())
	if err := c.confirmMutable(mutable, vol); err != nil {
		return err
	}
	if err := sameContext(vol.Context, in.GetVolumeContext()); err != nil {
		return err
	}
	params, _ := pbconv.Split(in.GetParameters())
	params = overridden(params, mutable)
	if err := c.confirmParameters(params, vol); err != nil {
		return err
	}
	if c.can.VolumeChecker == nil {
		return nil
	}
	return aboutVolume(c.can.VolumeChecker.CheckVolume(ctx, backends.CheckVolumeRequest{
		Volume:       vol,
		Capabilities: pbconv.Capabilities(in.GetVolumeCapabilities()),
		Parameters:   params,
		Mutable:      mutable,
		Secrets:      secrets,
	}), vol.ID)
}

// confirmParameters compares the parameters, if there are any, with those of
// which the volume was made.
func (c *controller) confirmParameters(params map[string]string, vol *backends.Volume) error {
	if len(params) == 0 {
		return nil
	}
	if err := c.schema.check(params, false); err != nil {
		return err
	}
	if !sameFingerprint(vol.Fingerprint, fingerprint(c.schema.immutable(params))) {
		return fmt.Errorf("%w: the volume was made with other parameters", backends.ErrIncompatible)
	}
	return nil
}

// confirmMutable compares the mutable parameters with those that the volume has.
func (c *controller) confirmMutable(mutable map[string]string, vol *backends.Volume) error {
	switch {
	case len(mutable) == 0:
		return nil
	case c.can.Modifier == nil:
		return invalid("mutable_parameters: this driver has no MODIFY_VOLUME")
	case !sameMutable(vol.Mutable, mutable):
		return fmt.Errorf("%w: the volume has other mutable parameters", backends.ErrIncompatible)
	}
	return c.schema.checkMutable(mutable)
}

// sameContext compares what the driver wrote. A CO adds keys of its own, and may
// leave the context out.
func sameContext(want, got map[string]string) error {
	for k, v := range want {
		if g, ok := got[k]; ok && g != v {
			return fmt.Errorf("%w: volume_context %q is not that of the volume", backends.ErrIncompatible, k)
		}
	}
	return nil
}
