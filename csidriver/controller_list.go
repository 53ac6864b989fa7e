package csidriver

import (
	"context"
	"errors"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

func (c *controller) ListVolumes(ctx context.Context, in *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	size := 0
	list := listing[*csi.ListVolumesResponse]{
		pager: &c.volumePages,
		name:  "ListVolumes",
		page: func(page backends.Page) (resp *csi.ListVolumesResponse, err error) {
			resp, size, err = c.listPage(ctx, page)
			return resp, err
		},
		look:   func(r *csi.ListVolumesResponse) (int, *string) { return len(r.Entries), &r.NextToken },
		atMost: func() int { return size },
	}
	return list.answer(ctx, in.GetStartingToken(), in.GetMaxEntries())
}

// listPage answers one page, and says how many bytes it has at most.
func (c *controller) listPage(ctx context.Context, page backends.Page) (*csi.ListVolumesResponse, int, error) {
	vols, next, err := c.can.VolumeLister.ListVolumes(ctx, backends.ListVolumesRequest{Page: page})
	if err != nil {
		return nil, 0, aboutVolume(err, "")
	}
	if err := checkPage(page, len(vols), next); err != nil {
		return nil, 0, err
	}
	size := maxString + overhead // of the token
	for _, v := range vols {
		n, err := measureVolume(&c.traits, v)
		if err != nil {
			return nil, 0, err
		}
		size += n
	}
	return &csi.ListVolumesResponse{NextToken: next, Entries: pbconv.Entries(vols, c.can.PublishedNodesLister != nil)}, size, nil
}

func (c *controller) GetCapacity(ctx context.Context, in *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	req, err := c.capacityRequest(in)
	if errors.Is(err, errNoCapability) {
		return &csi.GetCapacityResponse{}, nil // no such volume can be made
	}
	if err != nil {
		return nil, err
	}
	err = c.checkCapacity(ctx, req)
	if refuses(err) {
		return &csi.GetCapacityResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	have, err := c.can.CapacityReporter.Capacity(ctx, *req)
	if err != nil {
		return nil, aboutVolume(err, "")
	}
	return c.capacityResponse(have)
}

func (c *controller) capacityRequest(in *csi.GetCapacityRequest) (*backends.CapacityRequest, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	params, _ := pbconv.Split(in.GetParameters())
	// Without parameters the question is for the pool as a whole.
	if err := c.schema.check(params, false); err != nil {
		return nil, err
	}
	place := pbconv.Segments(in.GetAccessibleTopology())
	// external-provisioner asks with an empty one where a driver has no topology.
	if len(place) > 0 && !c.features.topology() {
		return nil, invalid("accessible_topology: this driver has no VOLUME_ACCESSIBILITY_CONSTRAINTS")
	}
	if err := checkSegments(&c.traits, place); err != nil {
		return nil, invalid("accessible_topology: %w", err)
	}
	return &backends.CapacityRequest{
		Capabilities: pbconv.Capabilities(in.GetVolumeCapabilities()),
		Parameters:   c.schema.complete(params, nil),
		Topology:     place,
	}, checkCapabilities(&c.traits, in.GetVolumeCapabilities())
}

// checkCapacity asks a VolumeChecker whether such a volume could be made at all.
func (c *controller) checkCapacity(ctx context.Context, req *backends.CapacityRequest) error {
	if c.can.VolumeChecker == nil || len(req.Capabilities) == 0 {
		return nil
	}
	check := backends.CheckVolumeRequest{Capabilities: req.Capabilities, Parameters: req.Parameters}
	if len(req.Topology) > 0 {
		check.Topology.Requisite = []backends.Segments{req.Topology}
	}
	return aboutVolume(c.can.VolumeChecker.CheckVolume(ctx, check), "")
}

// capacityResponse adds the limits of Traits where the backend has none.
func (c *controller) capacityResponse(have backends.Capacity) (*csi.GetCapacityResponse, error) {
	if have.Available < 0 || have.MaxVolume < 0 || have.MinVolume < 0 {
		return nil, badAnswer("a capacity of %d bytes, volumes of %d to %d", have.Available, have.MinVolume, have.MaxVolume)
	}
	if have.MaxVolume == 0 {
		have.MaxVolume = c.traits.SizeMax
	}
	if have.MinVolume == 0 {
		have.MinVolume = c.traits.SizeMin
	}
	if c.opts.NoAlpha {
		have.MinVolume = 0
	}
	return pbconv.Capacity(have), nil
}
