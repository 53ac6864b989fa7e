package walk

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Volume is a volume on its way.
type Volume struct {
	*Walk

	name   string // and that of its directory
	alias  string // what it is called in the print; "": it is the only one
	source *csi.VolumeContentSource
	ask    int64 // bytes; 0: none are asked for
	block  bool
	gid    string // volume_mount_group

	vol       *csi.Volume
	ids       []string                 // of volumes that are not deleted
	doubt     *csi.CreateVolumeRequest // a volume may have been made
	attached  bool                     // or may be
	attach    map[string]string        // publish_context
	staged    bool                     // or may be
	published []string                 // or may be
	size      int64                    // that the volume has
	known     bool                     // the driver says so
	grow      bool                     // the node is still to expand it

	seen map[string]bool // by pod: its volume is here
	has  *content
}

// newVolume is one to be created; alias tells it from the walk's own, which is "".
func (w *Walk) newVolume(alias string) *Volume {
	v := &Volume{Walk: w, name: w.o.Name, alias: alias, ask: w.o.Size, size: w.o.Size, block: w.o.Block, seen: map[string]bool{}}
	if alias != "" {
		v.name += "-" + alias
	}
	w.made = append(w.made, v)
	return v
}

// label says which volume an RPC is for.
func (v *Volume) label(what string) string {
	switch {
	case v.alias == "":
		return what
	case what == "":
		return v.alias
	}
	return v.alias + ": " + what
}

func (v *Volume) capability() *csi.VolumeCapability {
	c := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER}}
	if v.can.multiWriter() {
		c.AccessMode.Mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	}
	if v.block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	} else {
		c.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: v.o.FSType, VolumeMountGroup: v.gid}}
	}
	return c
}

func (v *Volume) createRequest() *csi.CreateVolumeRequest {
	req := &csi.CreateVolumeRequest{
		Name: v.name, Parameters: v.o.Parameters, Secrets: v.o.Secrets, VolumeContentSource: v.source,
		VolumeCapabilities: []*csi.VolumeCapability{v.capability()},
	}
	if v.ask > 0 {
		req.CapacityRange = &csi.CapacityRange{RequiredBytes: v.ask}
	}
	if here := v.info.GetAccessibleTopology(); here != nil && v.can.service[csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS] {
		req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{here}, Preferred: []*csi.Topology{here}}
	}
	return req
}

func (v *Volume) create(ctx context.Context) error {
	if err := os.MkdirAll(v.dir(), 0o750); err != nil {
		return err
	}
	req := v.createRequest()
	v.doubt = req
	resp, err := call(ctx, v.Walk, "CreateVolume", v.label("a volume called "+req.GetName()), v.controller.CreateVolume, req)
	if err != nil {
		if final(err) {
			v.doubt = nil
		}
		return err
	}
	v.doubt, v.vol = nil, resp.GetVolume()
	if v.id() == "" {
		v.doubt = req
		return errors.New("CreateVolume answers OK and no volume_id")
	}
	v.ids = append(v.ids, v.id())
	if err := v.sized(); err != nil {
		return err
	}
	if err := v.sameSource(); err != nil {
		return err
	}
	return v.createAgain(ctx, req)
}

// sized looks at the capacity that was answered.
func (v *Volume) sized() error {
	c := v.vol.GetCapacityBytes()
	if c == 0 {
		v.See("volume %s, of no known size", v.id())
		return nil
	}
	v.See("volume %s, %s", v.id(), mib(c))
	if c < v.ask {
		return fmt.Errorf("CreateVolume answers %d bytes, asked for were at least %d", c, v.ask)
	}
	v.size, v.known = c, true
	return nil
}

// sameSource: a CO deletes a volume that does not say what it was made of.
func (v *Volume) sameSource() error {
	got := v.vol.GetContentSource()
	if got.GetSnapshot().GetSnapshotId() == v.source.GetSnapshot().GetSnapshotId() && got.GetVolume().GetVolumeId() == v.source.GetVolume().GetVolumeId() {
		return nil
	}
	return fmt.Errorf("CreateVolume answers content_source %v, asked for was %v", got, v.source)
}

// createAgain: a CO that did not get the answer asks again.
func (v *Volume) createAgain(ctx context.Context, req *csi.CreateVolumeRequest) error {
	resp, err := call(ctx, v.Walk, "CreateVolume", v.label("again: the same call"), v.controller.CreateVolume, req)
	if err != nil {
		return err
	}
	if got := resp.GetVolume().GetVolumeId(); got != v.id() {
		v.ids = append(v.ids, got)
		return fmt.Errorf("CreateVolume repeated answers another volume, %s", got)
	}
	return nil
}

// resolve finds out whether a CreateVolume that ended in doubt made a volume, as
// a CO does: it asks again.
func (v *Volume) resolve(ctx context.Context) error {
	if v.doubt == nil {
		return nil
	}
	resp, err := call(ctx, v.Walk, "CreateVolume", v.label("is there one?"), v.controller.CreateVolume, v.doubt)
	switch id := resp.GetVolume().GetVolumeId(); {
	case err == nil && id != "":
		v.ids = append(v.ids, id)
	case err == nil:
		return errors.New("CreateVolume answers OK and no volume_id")
	case !final(err):
		return err
	}
	v.doubt = nil
	return nil
}

func (v *Volume) validate(ctx context.Context) error {
	resp, err := call(ctx, v.Walk, "ValidateVolumeCapabilities", "", v.controller.ValidateVolumeCapabilities, &csi.ValidateVolumeCapabilitiesRequest{
		VolumeId: v.id(), VolumeContext: v.vol.GetVolumeContext(), Parameters: v.o.Parameters, Secrets: v.o.Secrets,
		VolumeCapabilities: []*csi.VolumeCapability{v.capability()},
	})
	if err != nil {
		return err
	}
	if resp.GetConfirmed() == nil {
		return fmt.Errorf("ValidateVolumeCapabilities does not confirm what the volume was created for: %q", resp.GetMessage())
	}
	return nil
}

func (v *Volume) deleteVolume(ctx context.Context, id, what string) error {
	_, err := call(ctx, v.Walk, "DeleteVolume", v.label(what), v.controller.DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: id, Secrets: v.o.Secrets})
	if err != nil {
		return err
	}
	v.ids = v.ids[1:]
	return nil
}

// delete deletes the volume and looks whether the driver knows it still.
func (v *Volume) delete(ctx context.Context) error {
	if err := v.deleteVolume(ctx, v.id(), "and its data"); err != nil {
		return err
	}
	if err := v.listed(ctx, false); err != nil {
		return err
	}
	if v.can.controller[csi.ControllerServiceCapability_RPC_GET_VOLUME] {
		_, err := try(ctx, v.Walk, "ControllerGetVolume", v.label("is it gone?"), v.controller.ControllerGetVolume, &csi.ControllerGetVolumeRequest{VolumeId: v.id()})
		if status.Code(err) != codes.NotFound {
			return fmt.Errorf("ControllerGetVolume of a volume that was deleted: want NotFound, got %w", orOK(err))
		}
	}
	if err := v.removeDirs(); err != nil {
		return err
	}
	v.forget(v)
	return nil
}
