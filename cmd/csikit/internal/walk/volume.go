package walk

import (
	"context"
	"errors"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

func (w *Walk) createRequest() *csi.CreateVolumeRequest {
	req := &csi.CreateVolumeRequest{
		Name: w.o.Name, Parameters: w.o.Parameters, Secrets: w.o.Secrets,
		VolumeCapabilities: []*csi.VolumeCapability{w.capability()},
	}
	if w.o.Size > 0 {
		req.CapacityRange = &csi.CapacityRange{RequiredBytes: w.o.Size}
	}
	if here := w.info.GetAccessibleTopology(); here != nil && w.can.service[csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS] {
		req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{here}, Preferred: []*csi.Topology{here}}
	}
	return req
}

func (w *Walk) create(ctx context.Context) error {
	req := w.createRequest()
	w.doubt = req
	resp, err := call(ctx, w, "CreateVolume", "a volume called "+req.GetName(), w.controller.CreateVolume, req)
	if err != nil {
		if final(err) {
			w.doubt = nil
		}
		return err
	}
	w.doubt, w.vol = nil, resp.GetVolume()
	if w.id() == "" {
		w.doubt = req
		return errors.New("CreateVolume answers OK and no volume_id")
	}
	w.made = append(w.made, w.id())
	c := w.vol.GetCapacityBytes()
	if c == 0 {
		w.See("volume %s, of no known size", w.id())
	} else {
		w.See("volume %s, %s", w.id(), mib(c))
		if c < w.o.Size {
			return fmt.Errorf("CreateVolume answers %d bytes, asked for were at least %d", c, w.o.Size)
		}
		w.size = c
	}
	return w.createAgain(ctx, req)
}

// createAgain: a CO that did not get the answer asks again.
func (w *Walk) createAgain(ctx context.Context, req *csi.CreateVolumeRequest) error {
	resp, err := call(ctx, w, "CreateVolume", "again: the same call", w.controller.CreateVolume, req)
	if err != nil {
		return err
	}
	if got := resp.GetVolume().GetVolumeId(); got != w.id() {
		w.made = append(w.made, got)
		return fmt.Errorf("CreateVolume repeated answers another volume, %s", got)
	}
	return nil
}

func (w *Walk) validate(ctx context.Context) error {
	resp, err := call(ctx, w, "ValidateVolumeCapabilities", "", w.controller.ValidateVolumeCapabilities, &csi.ValidateVolumeCapabilitiesRequest{
		VolumeId: w.id(), VolumeContext: w.vol.GetVolumeContext(), Parameters: w.o.Parameters, Secrets: w.o.Secrets,
		VolumeCapabilities: []*csi.VolumeCapability{w.capability()},
	})
	if err != nil {
		return err
	}
	if resp.GetConfirmed() == nil {
		return fmt.Errorf("ValidateVolumeCapabilities does not confirm what the volume was created for: %q", resp.GetMessage())
	}
	return nil
}

// list looks for the volume where the driver can show it.
func (w *Walk) list(ctx context.Context) error {
	if w.can.controller[csi.ControllerServiceCapability_RPC_GET_VOLUME] {
		resp, err := call(ctx, w, "ControllerGetVolume", "", w.controller.ControllerGetVolume, &csi.ControllerGetVolumeRequest{VolumeId: w.id()})
		if err != nil {
			return err
		}
		if got := resp.GetVolume().GetVolumeId(); got != w.id() {
			return fmt.Errorf("ControllerGetVolume answers volume %q", got)
		}
	}
	if w.can.controller[csi.ControllerServiceCapability_RPC_GET_CAPACITY] {
		resp, err := call(ctx, w, "GetCapacity", "", w.controller.GetCapacity, &csi.GetCapacityRequest{
			VolumeCapabilities: []*csi.VolumeCapability{w.capability()}, Parameters: w.o.Parameters, AccessibleTopology: w.info.GetAccessibleTopology(),
		})
		if err != nil {
			return err
		}
		w.See("%s are free", mib(resp.GetAvailableCapacity()))
	}
	return w.listed(ctx, true)
}

// maxPages bounds a list whose token goes round in circles.
const maxPages = 10_000

// listed looks through the pages of ListVolumes.
func (w *Walk) listed(ctx context.Context, want bool) error {
	if !w.can.controller[csi.ControllerServiceCapability_RPC_LIST_VOLUMES] {
		return nil
	}
	volumes, found, token := 0, false, ""
	for range maxPages {
		resp, err := call(ctx, w, "ListVolumes", "", w.controller.ListVolumes, &csi.ListVolumesRequest{StartingToken: token})
		if err != nil {
			return err
		}
		for _, e := range resp.GetEntries() {
			volumes++
			found = found || e.GetVolume().GetVolumeId() == w.id()
		}
		if token = resp.GetNextToken(); token == "" {
			break
		}
	}
	w.See("%d volumes", volumes)
	switch {
	case token != "":
		return fmt.Errorf("ListVolumes has not come to an end after %d pages", maxPages)
	case found != want:
		return fmt.Errorf("ListVolumes has volume %s: %t", w.id(), found)
	}
	return nil
}

func (w *Walk) delete(ctx context.Context) error {
	if err := w.deleteVolume(ctx, w.id(), "and its data"); err != nil {
		return err
	}
	return w.listed(ctx, false)
}
