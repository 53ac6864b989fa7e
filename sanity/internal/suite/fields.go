package suite

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/csikit/csikit/sanity/internal/check"
)

// pause is how long a check waits before it asks again.
func pause(t *T) {
	select {
	case <-t.Context().Done():
	case <-time.After(25 * time.Millisecond):
	}
}

// required are the fields that each RPC must refuse to do without, and the clause
// that says so.
var required = map[string]map[string]string{
	"CreateVolume":               {"name": "CV-05", "volume_capabilities": "CV-13"},
	"DeleteVolume":               {"volume_id": "DV-03"},
	"ControllerPublishVolume":    {"volume_id": "CP-04", "node_id": "CP-05", "volume_capability": "CP-06"},
	"ControllerUnpublishVolume":  {"volume_id": "CU-06"},
	"ValidateVolumeCapabilities": {"volume_id": "VC-04", "volume_capabilities": "VC-05"},
	"CreateSnapshot":             {"source_volume_id": "CS-07", "name": "CS-08"},
	"DeleteSnapshot":             {"snapshot_id": "DS-03"},
	"GetSnapshot":                {"snapshot_id": "GS-05"},
	"ControllerExpandVolume":     {"volume_id": "CE-03", "capacity_range": "CE-04"},
	"ControllerGetVolume":        {"volume_id": "CG-04"},
	"ControllerModifyVolume":     {"volume_id": "MV-03", "mutable_parameters": "MV-04"},
	"ControllerGetVolumeHealth":  {"volume_id": "GH-04"},
	"CreateVolumeGroupSnapshot":  {"name": "GV-07", "source_volume_ids": "GV-08"},
	"DeleteVolumeGroupSnapshot":  {"group_snapshot_id": "GX-03", "snapshot_ids": "GX-04"},
	"GetVolumeGroupSnapshot":     {"group_snapshot_id": "GQ-03", "snapshot_ids": "GQ-04"},
	"NodeStageVolume":            {"volume_id": "NS-03", "staging_target_path": "NS-04", "volume_capability": "NS-05"},
	"NodeUnstageVolume":          {"volume_id": "NU-04", "staging_target_path": "NU-05"},
	"NodePublishVolume":          {"volume_id": "NP-02", "target_path": "NP-03", "volume_capability": "NP-04"},
	"NodeUnpublishVolume":        {"volume_id": "NB-05", "target_path": "NB-06"},
	"NodeGetVolumeStats":         {"volume_id": "NG-02", "volume_path": "NG-03"},
	"NodeExpandVolume":           {"volume_id": "NE-03", "volume_path": "NE-04"},
	"NodeGetVolumeHealth":        {"volume_id": "NH-03"},
	"GetMetadataAllocated":       {"snapshot_id": "SM-12"},
	"GetMetadataDelta":           {"base_snapshot_id": "SM-12", "target_snapshot_id": "SM-12"},
}

// lenient are the fields that drivers in use do without, for csi-sanity and
// external-snapshotter send none: OK is worth a warning only.
var lenient = map[string]bool{"MV-04": true, "GX-04": true, "GQ-04": true}

// missingFieldChecks: H-02, each RPC without each required field.
func missingFieldChecks() []Check {
	var all []Check
	for _, r := range append(controllerRPCs(), nodeRPCs()...) {
		fields := check.NewMessage(methodNamed(r.name).Input()).ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			clause, ok := required[r.name][string(f.Name())]
			if !ok {
				continue
			}
			all = append(all, Check{
				ID: "H-02/" + r.name + "/" + string(f.Name()), Title: r.name + " without " + string(f.Name()) + " is INVALID_ARGUMENT",
				Clauses: clause + " GEN-08", Needs: r.needs, Run: func(t *T) { without(t, r, f, clause) },
			})
		}
		if r.name != "ValidateVolumeCapabilities" {
			all = append(all, capabilityFieldChecks(r)...)
		}
	}
	return all
}

func methodNamed(name string) protoreflect.MethodDescriptor {
	for _, m := range check.Methods() {
		if string(m.Name()) == name {
			return m
		}
	}
	return nil
}

func without(t *T, r rpc, f protoreflect.FieldDescriptor, clause string) {
	req := r.request(t)
	bare := proto.Clone(req)
	bare.ProtoReflect().Clear(f)
	why := "without " + string(f.Name())
	if !r.unary {
		streamRefused(t, clause, why, bare, codes.InvalidArgument)
		return
	}
	if !lenient[clause] {
		t.Refused(clause+" GEN-08", why, bare, codes.InvalidArgument)
		return
	}
	if t.Refused(clause+" GEN-08", why, bare, codes.InvalidArgument, codes.OK) == codes.OK {
		t.Warnf(clause, "%s %s is taken: the field is required, and COs in use leave it out", r.name, why)
	}
}

// streamRefused is Refused for an RPC that answers by a stream.
func streamRefused(t *T, clauses, why string, req proto.Message, want codes.Code) {
	err := t.Stream(t.Context(), req, func(proto.Message) bool { return true })
	if got := codeOf(err); got != want {
		t.Failf(clauses, "%s %s: got %s, want %s", check.Name(req), why, check.Describe(err), check.CodeName(want))
	}
}

// capabilityFieldChecks: a capability without its mode, or without its type.
func capabilityFieldChecks(r rpc) []Check {
	fields := check.NewMessage(methodNamed(r.name).Input()).ProtoReflect().Descriptor().Fields()
	f := fields.ByName("volume_capability")
	if f == nil {
		f = fields.ByName("volume_capabilities")
	}
	if f == nil || required[r.name][string(f.Name())] == "" {
		return nil
	}
	var all []Check
	for _, part := range []string{"access_mode", "access_type"} {
		all = append(all, Check{
			ID: "H-02/" + r.name + "/" + string(f.Name()) + "." + part, Title: r.name + " with a capability that has no " + part + " is INVALID_ARGUMENT",
			Clauses: "CV-16 GEN-08", Needs: r.needs,
			Run: func(t *T) {
				req := proto.Clone(r.request(t))
				c := req.ProtoReflect().Get(f)
				m := protoreflect.Message(nil)
				if f.IsList() {
					m = c.List().Get(0).Message()
				} else {
					m = c.Message()
				}
				if part == "access_mode" {
					m.Clear(m.Descriptor().Fields().ByName("access_mode"))
				} else {
					m.Clear(m.WhichOneof(m.Descriptor().Oneofs().ByName("access_type")))
				}
				t.Refused("CV-16 GEN-08", "with a capability without "+part, req, codes.InvalidArgument)
			},
		})
	}
	return all
}
