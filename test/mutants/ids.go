package mutants

import (
	"context"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Fields of messages that hold IDs.
var (
	volumeFields   = []protoreflect.Name{"volume_id", "source_volume_id", "source_volume_ids"}
	snapshotFields = []protoreflect.Name{"snapshot_id", "snapshot_ids", "base_snapshot_id", "target_snapshot_id", "group_snapshot_id"}
)

// rewriteIDs gives the CO other IDs than the driver behind has.
func rewriteIDs(r *Rig, fields []protoreflect.Name, in, out func(string) string) {
	r.every(func(ctx context.Context, _ string, req proto.Message, next next) (proto.Message, error) {
		req = proto.Clone(req)
		rewrite(req.ProtoReflect(), fields, in)
		resp, err := next(ctx, req)
		if err == nil {
			rewrite(resp.ProtoReflect(), fields, out)
		}
		return resp, err
	})
	streams(r, func(ctx context.Context, q proto.Message, send func(proto.Message) error, next nextStream) error {
		q = proto.Clone(q)
		rewrite(q.ProtoReflect(), fields, in)
		return next(ctx, q, send)
	})
}

// rewrite changes what is in some fields of a message and of those in it.
func rewrite(m protoreflect.Message, fields []protoreflect.Name, to func(string) string) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				rewrite(v.List().Get(i).Message(), fields, to)
			}
		case f.Message() != nil:
			rewrite(v.Message(), fields, to)
		case !slices.Contains(fields, f.Name()):
		case f.IsList():
			for i := range v.List().Len() {
				v.List().Set(i, protoreflect.ValueOfString(to(v.List().Get(i).String())))
			}
		case v.String() != "":
			m.Set(f, protoreflect.ValueOfString(to(v.String())))
		}
		return true
	})
}

// Capabilities of the services.
type (
	controllerRPC = csi.ControllerServiceCapability_RPC_Type
	nodeRPC       = csi.NodeServiceCapability_RPC_Type
	pluginService = csi.PluginCapability_Service_Type
)

func dropControllerCapability(drop ...controllerRPC) func(*Rig) {
	return reply(func(_ *csi.ControllerGetCapabilitiesRequest, r *csi.ControllerGetCapabilitiesResponse) {
		r.Capabilities = without(r.GetCapabilities(), func(c *csi.ControllerServiceCapability) bool { return slices.Contains(drop, c.GetRpc().GetType()) })
	})
}

func addControllerCapability(add controllerRPC) func(*Rig) {
	return reply(func(_ *csi.ControllerGetCapabilitiesRequest, r *csi.ControllerGetCapabilitiesResponse) {
		r.Capabilities = append(r.GetCapabilities(), &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: add}},
		})
	})
}

func dropNodeCapability(drop ...nodeRPC) func(*Rig) {
	return reply(func(_ *csi.NodeGetCapabilitiesRequest, r *csi.NodeGetCapabilitiesResponse) {
		r.Capabilities = without(r.GetCapabilities(), func(c *csi.NodeServiceCapability) bool { return slices.Contains(drop, c.GetRpc().GetType()) })
	})
}

func dropService(drop ...pluginService) func(*Rig) {
	return reply(func(_ *csi.GetPluginCapabilitiesRequest, r *csi.GetPluginCapabilitiesResponse) {
		r.Capabilities = without(r.GetCapabilities(), func(c *csi.PluginCapability) bool {
			return c.GetService() != nil && slices.Contains(drop, c.GetService().GetType())
		})
	})
}

// expansion replaces what GetPluginCapabilities says of growing volumes.
func expansion(types ...csi.PluginCapability_VolumeExpansion_Type) func(*Rig) {
	return reply(func(_ *csi.GetPluginCapabilitiesRequest, r *csi.GetPluginCapabilitiesResponse) {
		r.Capabilities = without(r.GetCapabilities(), func(c *csi.PluginCapability) bool { return c.GetVolumeExpansion() != nil })
		for _, t := range types {
			r.Capabilities = append(r.GetCapabilities(), &csi.PluginCapability{
				Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{Type: t}},
			})
		}
	})
}

// eachVolumeContext adds to volume_context.
func eachVolumeContext(key, value string) func(*Rig) {
	return volumesAs(func(v *csi.Volume) {
		if v.VolumeContext == nil {
			v.VolumeContext = make(map[string]string)
		}
		v.VolumeContext[key] = value
	})
}
