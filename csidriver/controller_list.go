package csidriver

import (
	"context"
	"errors"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

// A page has to stay under the 4 MiB that gRPC clients take. An entry is 200
// bytes or so (two context keys and a topology), and 5 KiB at the worst.
const (
	maxPage      = 4000    // entries
	maxPageBytes = 7 << 19 // 3.5 MiB
)

func (c *controller) ListVolumes(ctx context.Context, in *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	page := backends.Page{Token: in.GetStartingToken(), Limit: maxPage}
	if n := int(in.GetMaxEntries()); n > 0 {
		page.Limit = min(n, maxPage)
	}
	if len(page.Token) > maxString {
		return nil, backends.ErrStaleToken // never one of ours: those are shorter
	}
	// The token is the backend's, so a page is cut by asking for a smaller one.
	for ; ; page.Limit /= 2 {
		resp, err := c.listPage(ctx, page)
		if err != nil || page.Limit == 1 || proto.Size(resp) <= maxPageBytes {
			return resp, err
		}
	}
}

func (c *controller) listPage(ctx context.Context, page backends.Page) (*csi.ListVolumesResponse, error) {
	vols, next, err := c.can.VolumeLister.ListVolumes(ctx, backends.ListVolumesRequest{Page: page})
	if err != nil {
		return nil, aboutVolume(err, "")
	}
	if err := checkPage(page, len(vols), next); err != nil {
		return nil, err
	}
	resp := &csi.ListVolumesResponse{NextToken: next, Entries: make([]*csi.ListVolumesResponse_Entry, len(vols))}
	for i, v := range vols {
		if err := checkVolume(&c.traits, v); err != nil {
			return nil, err
		}
		resp.Entries[i] = &csi.ListVolumesResponse_Entry{Volume: pbconv.Volume(v)}
	}
	return resp, nil
}

func checkPage(page backends.Page, entries int, next string) error {
	switch {
	case entries > page.Limit:
		return badAnswer("a page of %d entries, asked for were %d", entries, page.Limit)
	case !fits(next, maxString):
		return badAnswer("a page token of more than %d bytes, or not UTF-8", maxString)
	case next != "" && next == page.Token:
		return badAnswer("a page whose token is that of the page itself")
	}
	return nil
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
	if in.GetAccessibleTopology() != nil && !c.features.topology() {
		return nil, invalid("accessible_topology: this driver has no VOLUME_ACCESSIBILITY_CONSTRAINTS")
	}
	if err := checkSegments(&c.traits, place); err != nil {
		return nil, invalid("accessible_topology: %w", err)
	}
	return &backends.CapacityRequest{
		Capabilities: pbconv.Capabilities(in.GetVolumeCapabilities()),
		Parameters:   c.schema.complete(params),
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
