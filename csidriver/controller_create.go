package csidriver

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
	"github.com/csikit/csikit/idempotency"
)

// wanted is a volume that is asked for, and what it is to be made of.
type wanted struct {
	backends.CreateVolumeRequest
	source backends.ContentSource
	least  int64 // bytes that the source has; 0: not known
	// unmakeable is why no such volume is made. It does not count for one that is
	// there: a release with narrower limits still knows what an older one made.
	unmakeable error
}

func (c *controller) CreateVolume(ctx context.Context, in *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	req, err := c.createRequest(in)
	if err != nil {
		return nil, err
	}
	a, keys, err := c.createKeys(in, req)
	if err != nil {
		return nil, err
	}
	op := operation("CreateVolume", req.Name, a, keys...)
	vol, err := do(ctx, c.Driver, op, func(ctx context.Context) (*backends.Volume, error) {
		return c.createVolume(ctx, req)
	})
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: pbconv.Volume(vol)}, nil
}

// createRequest validates and decodes. What it refuses is refused before
// anything is looked at; what only the driver's limits forbid, when the name turns
// out to be free.
func (c *controller) createRequest(in *csi.CreateVolumeRequest) (*wanted, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	if err := c.checkCreate(in); err != nil {
		return nil, err
	}
	params, owner := pbconv.Split(in.GetParameters())
	mutable, _ := pbconv.Split(in.GetMutableParameters())
	params = overridden(params, mutable)
	req := &wanted{source: pbconv.Source(in.GetVolumeContentSource()), unmakeable: c.schema.checkCreate(params, mutable)}
	req.CreateVolumeRequest = backends.CreateVolumeRequest{
		Name:         in.GetName(),
		Range:        pbconv.Range(in.GetCapacityRange()),
		Capabilities: pbconv.Capabilities(in.GetVolumeCapabilities()),
		Fingerprint:  fingerprint(c.schema.immutable(params)),
		Parameters:   c.schema.complete(params, mutable),
		Mutable:      mutable,
		Topology:     pbconv.Topology(in.GetAccessibilityRequirements()),
		Secrets:      pbconv.Secrets(in.GetSecrets(), &owner),
		Owner:        owner,
	}
	if err := checkRequirement(&c.traits, req.Topology); err != nil {
		return nil, err
	}
	if r := req.Range; r.Limit > 0 && r.Required > r.Limit {
		return nil, outOfRange("required_bytes %d is more than limit_bytes %d", r.Required, r.Limit)
	}
	size, err := resolveSize(&c.traits, req.Range)
	if req.unmakeable == nil {
		req.unmakeable = err
	}
	req.Size = size
	return req, nil
}

// checkCreate refuses what the driver advertises no capability for.
func (c *controller) checkCreate(in *csi.CreateVolumeRequest) error {
	switch {
	case in.GetVolumeContentSource().GetSnapshot() != nil && c.can.Snapshotter == nil:
		return invalid("volume_content_source.snapshot: this driver has no CREATE_DELETE_SNAPSHOT")
	case in.GetVolumeContentSource().GetVolume() != nil && c.can.Cloner == nil:
		return invalid("volume_content_source.volume: this driver has no CLONE_VOLUME")
	case len(in.GetMutableParameters()) > 0 && c.can.Modifier == nil:
		return invalid("mutable_parameters: this driver has no MODIFY_VOLUME")
	case in.GetAccessibilityRequirements() != nil && !c.features.topology():
		return invalid("accessibility_requirements: this driver has no VOLUME_ACCESSIBILITY_CONSTRAINTS")
	}
	if err := checkRange(in.GetCapacityRange()); err != nil {
		return err
	}
	return checkCapabilities(&c.traits, in.GetVolumeCapabilities())
}

// createKeys locks the name, the ID if the backend can say it beforehand, and the
// source against its deletion.
func (c *controller) createKeys(in *csi.CreateVolumeRequest, req *wanted) (asked, []idempotency.Key, error) {
	a, keys := asked{message: in}, []idempotency.Key{nameKey(req.Name)}
	switch {
	case req.source.SnapshotID != "":
		keys = append(keys, sharedSnapshotKey(req.source.SnapshotID))
	case req.source.VolumeID != "":
		keys = append(keys, sharedIDKey(req.source.VolumeID))
	}
	if c.can.VolumeIDer == nil {
		return a, keys, nil
	}
	id, err := c.can.VolumeIDer.VolumeID(backendCopy(req))
	if err != nil {
		return a, nil, err
	}
	a.id = id
	return a, append(keys, idKey(id)), nil
}

// createVolume looks the name up first: what is there already decides, whatever
// else the request says. A source is looked at only when the name is free: the
// volume may be there and its source gone.
func (c *controller) createVolume(ctx context.Context, req *wanted) (*backends.Volume, error) {
	vol, err := c.findVolume(ctx, req)
	if vol != nil || err != nil {
		return vol, err
	}
	if req.unmakeable != nil {
		return nil, req.unmakeable
	}
	make, err := c.maker(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := c.checkByBackend(ctx, nil, req); err != nil {
		return nil, err
	}
	vol, err = make(ctx, backendCopy(req))
	if errors.Is(err, backends.ErrExists) {
		return c.lookAgain(ctx, req, err)
	}
	if err != nil {
		return nil, aboutVolume(err, "")
	}
	if err := checkMade(&c.traits, vol, req); err != nil {
		return nil, err
	}
	return vol, nil
}

// findVolume gives the volume of that name if it is what is asked for, nil if
// the name is free.
func (c *controller) findVolume(ctx context.Context, req *wanted) (*backends.Volume, error) {
	vol, err := c.backend.FindVolume(ctx, backendCopy(req))
	if gone(err, backends.KindVolume, c.names(req)...) {
		return nil, nil
	}
	if err != nil {
		return nil, unseen(aboutVolume(err, ""), silent)
	}
	if err := c.checkExisting(ctx, vol, req); err != nil {
		return nil, err
	}
	if err := c.holdsSource(ctx, vol, req); err != nil {
		return nil, err
	}
	return vol, nil
}

// names are what a backend may call the volume that it does not find: the name,
// or the ID that a volume of this name has.
func (c *controller) names(req *wanted) []string {
	names := []string{req.Name}
	if c.can.VolumeIDer == nil {
		return names
	}
	if id, err := c.can.VolumeIDer.VolumeID(backendCopy(req)); err == nil {
		names = append(names, id)
	}
	return names
}

// lookAgain finds what another replica has made meanwhile.
func (c *controller) lookAgain(ctx context.Context, req *wanted, cause error) (*backends.Volume, error) {
	vol, err := c.findVolume(ctx, req)
	if err == nil && vol == nil {
		return nil, fmt.Errorf("volume %q is being made by somebody else: %w", req.Name, cause)
	}
	return vol, err
}

// checkByBackend asks a VolumeChecker, if there is one.
func (c *controller) checkByBackend(ctx context.Context, vol *backends.Volume, req *wanted) error {
	if c.can.VolumeChecker == nil {
		return nil
	}
	err := c.can.VolumeChecker.CheckVolume(ctx, backends.CheckVolumeRequest{
		Volume:       vol,
		Capabilities: req.Capabilities,
		Parameters:   req.Parameters,
		Mutable:      req.Mutable,
		Size:         req.Size,
		Topology:     req.Topology,
		Source:       req.source,
		Secrets:      req.Secrets,
	})
	if vol != nil {
		return unseen(aboutVolume(err, ""), silent) // it is there
	}
	return unseen(aboutVolume(err, ""), silentRefusals)
}

// backendCopy is the request for a method of the backend, with maps of its own.
func backendCopy(req *wanted) backends.CreateVolumeRequest {
	r := req.CreateVolumeRequest
	r.Parameters, r.Mutable = maps.Clone(req.Parameters), maps.Clone(req.Mutable)
	return r
}
