package suite

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/csikit/csikit/sanity/internal/check"
)

func codeOf(err error) codes.Code { return status.Code(err) }

// capabilityChecks: H-11, what a driver says of itself is so.
func capabilityChecks() []Check {
	all := []Check{
		{ID: check.MandatoryID, Title: "What every plugin must have is there: GetPluginInfo, GetPluginCapabilities, Probe, and the capabilities of its services", Clauses: "GEN-01 GEN-02 ID-01 ID-05 ID-14 CC-01 NC-01", Run: hasMandatory},
		{ID: "H-11/plugin-info", Title: "The plugin has a name of domain form, and a version", Clauses: "ID-01 ID-02 ID-03 ID-04", Run: pluginInfo},
		{ID: "H-11/constant", Title: "Capabilities are the same at every call and on every connection", Clauses: "ID-05 ID-06 CC-01 NC-01", Run: constantCapabilities},
		{ID: "H-11/rules", Title: "No capability is there without the one that it is about", Clauses: "ID-07 ID-10 ID-12 LV-09 LH-02", Run: capabilityRules},
		{ID: "H-11/probe", Title: "A driver that serves is ready", Clauses: "ID-14 ID-17", Run: probeReady},
		{ID: "H-11/services", Title: "Identity, and the services that are advertised, are at the endpoint", Clauses: "GEN-01 GEN-02 PR-05 ID-08 ID-09 GG-01", Run: services},
	}
	for _, r := range append(controllerRPCs(), nodeRPCs()...) {
		all = append(all, gateCheck(r))
	}
	return all
}

// hasMandatory: a run without them does not come here; see check.Without.
func hasMandatory(t *T) {
	lacks, err := check.LacksMandatory(t.Context(), t.Config())
	if err != nil {
		t.NotRun("%v", err)
	}
	for _, m := range lacks {
		t.Failf(m.Clauses, "%s is UNIMPLEMENTED at %s", m.Method, m.Endpoint)
	}
}

var pluginName = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9.]{0,61}[A-Za-z0-9])?$`)

func pluginInfo(t *T) {
	info := check.OK[*csi.GetPluginInfoResponse](t, "ID-01", &csi.GetPluginInfoRequest{})
	switch name := info.GetName(); {
	case name == "":
		t.Failf("ID-01 GEN-16", "GetPluginInfo: no name")
	case len(name) > 63 || !pluginName.MatchString(name):
		t.Failf("ID-02", "GetPluginInfo: the name %q is not well formed: up to 63 letters, digits, - and ., a letter or digit first and last", name)
	case !strings.Contains(name, "."):
		t.Warnf("ID-03", "GetPluginInfo: the name %q has no company in it: it should be like a domain", name)
	case name != strings.ToLower(name):
		t.Warnf("ID-02", "GetPluginInfo: the name %q has capitals: Kubernetes cannot have a CSIDriver of that name", name)
	}
	if info.GetVendorVersion() == "" {
		t.Failf("ID-04 GEN-16", "GetPluginInfo: no vendor_version")
	}
}

// capabilitiesNow is what the driver says over connections of its own.
func capabilitiesNow(t *T) string {
	var said []string
	for _, req := range []proto.Message{
		&csi.GetPluginInfoRequest{}, &csi.GetPluginCapabilitiesRequest{}, &csi.ControllerGetCapabilitiesRequest{},
		&csi.GroupControllerGetCapabilitiesRequest{}, &csi.NodeGetCapabilitiesRequest{},
	} {
		resp, err := t.Try(req)
		if err != nil {
			said = append(said, check.Name(req)+": "+check.CodeName(codeOf(err)))
			continue
		}
		said = append(said, check.Name(req)+": "+sorted(resp))
	}
	return strings.Join(said, "\n")
}

// sorted is an answer as text, whatever the order of its lists.
func sorted(m proto.Message) string {
	f := m.ProtoReflect().Descriptor().Fields().ByName("capabilities")
	if f == nil {
		return stable(m)
	}
	var list []string
	l := m.ProtoReflect().Get(f).List()
	for i := range l.Len() {
		list = append(list, stable(l.Get(i).Message().Interface()))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// stable is a message as text that is the same for equal messages.
func stable(m proto.Message) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%q", b)
}

func constantCapabilities(t *T) {
	first := capabilitiesNow(t)
	for range 20 {
		if now := capabilitiesNow(t); now != first {
			t.Fatalf("ID-06", "capabilities have changed:\n%s\nand before:\n%s", now, first)
		}
	}
	other, err := t.Redial()
	if err != nil {
		t.Fatalf("ID-06", "a second connection: %v", err)
	}
	defer other()
	if now := capabilitiesNow(t); now != first {
		t.Failf("ID-06", "capabilities on a second connection:\n%s\nand on the first:\n%s", now, first)
	}
}

func capabilityRules(t *T) {
	for _, r := range []struct{ has, needs, clause string }{
		{"expansion:ONLINE", "EXPAND_VOLUME|node:EXPAND_VOLUME", "ID-10"},
		{"expansion:OFFLINE", "EXPAND_VOLUME", "ID-12"},
		{"LIST_VOLUMES_PUBLISHED_NODES", "PUBLISH_UNPUBLISH_VOLUME", "LV-09"},
		{"LIST_VOLUME_HEALTH", "GET_VOLUME_HEALTH", "LH-02"},
	} {
		if t.Has(r.has) && !slices.ContainsFunc(strings.Split(r.needs, "|"), t.Has) {
			t.Failf(r.clause, "%s is advertised, and %s is not", r.has, strings.ReplaceAll(r.needs, "|", " or "))
		}
	}
	for has, needs := range map[string]string{
		"LIST_VOLUMES_PUBLISHED_NODES": "LIST_VOLUMES", "PUBLISH_READONLY": "PUBLISH_UNPUBLISH_VOLUME", "CLONE_VOLUME": "CREATE_DELETE_VOLUME",
	} {
		if t.Has(has) && !t.Has(needs) {
			t.Warnf("CC-02", "%s is advertised, and %s is not: nobody can use it", has, needs)
		}
	}
	if t.HasController && !t.Has("plugin:CONTROLLER_SERVICE") {
		t.Warnf("ID-07", "there is a Controller service, and CONTROLLER_SERVICE is not advertised")
	}
}

func probeReady(t *T) {
	resp := check.OK[*csi.ProbeResponse](t, "ID-14", &csi.ProbeRequest{})
	if resp.GetReady() != nil && !resp.GetReady().GetValue() {
		t.Failf("ID-17", "Probe: ready is false, and the driver serves")
	}
}

func services(t *T) {
	for _, s := range []struct {
		advertised bool
		req        proto.Message
		clause     string
	}{
		{true, &csi.GetPluginInfoRequest{}, "GEN-01"},
		{t.Has("plugin:CONTROLLER_SERVICE"), &csi.ControllerGetCapabilitiesRequest{}, "GEN-02 CC-01 PR-05"},
		{t.HasNode, &csi.NodeGetCapabilitiesRequest{}, "GEN-02 NC-01 PR-05"},
		{t.Has("plugin:GROUP_CONTROLLER_SERVICE"), &csi.GroupControllerGetCapabilitiesRequest{}, "ID-08 GG-01"},
	} {
		if _, err := t.Try(s.req); s.advertised && err != nil {
			t.Failf(s.clause, "%s: got %s, want OK", check.Name(s.req), check.Describe(err))
		}
	}
	if !t.Has("plugin:GROUP_CONTROLLER_SERVICE") && t.Has("group") {
		t.Failf("ID-08", "the GroupController service serves group snapshots, and GROUP_CONTROLLER_SERVICE is not advertised")
	}
}

// implemented are the clauses that say when an RPC is there.
var implemented = map[string]string{
	"CreateVolume": "CV-01", "DeleteVolume": "DV-01", "ControllerPublishVolume": "CP-01", "ControllerUnpublishVolume": "CU-01",
	"ValidateVolumeCapabilities": "VC-01", "ListVolumes": "LV-01", "GetCapacity": "GC-01", "ControllerGetCapabilities": "CC-01",
	"CreateSnapshot": "CS-01", "DeleteSnapshot": "DS-01", "ListSnapshots": "LS-01", "GetSnapshot": "GS-01",
	"ControllerExpandVolume": "CE-01", "ControllerGetVolume": "CG-01", "ControllerModifyVolume": "MV-01",
	"ControllerGetVolumeHealth": "GH-01", "ControllerListVolumeHealth": "LH-01", "GroupControllerGetCapabilities": "GG-01",
	"CreateVolumeGroupSnapshot": "GV-01", "DeleteVolumeGroupSnapshot": "GX-01", "GetVolumeGroupSnapshot": "GQ-01",
	"GetMetadataAllocated": "SM-01", "GetMetadataDelta": "SM-01",
	"NodeStageVolume": "NS-01", "NodeUnstageVolume": "NU-01", "NodePublishVolume": "NP-07", "NodeUnpublishVolume": "NB-01",
	"NodeGetVolumeStats": "NG-01", "NodeExpandVolume": "NE-01", "NodeGetVolumeHealth": "NH-01", "NodeGetStorageHealth": "NT-01",
	"NodeGetCapabilities": "NC-01", "NodeGetInfo": "NI-01",
}

// own is the capability that an RPC stands for; "" has none.
func own(r rpc) string {
	for n := range strings.FieldsSeq(r.needs) {
		if n != "CREATE_DELETE_VOLUME" && n != "node" && n != "controller" && n != "mutable" && n != "CREATE_DELETE_SNAPSHOT" {
			return n
		}
	}
	if r.name == "CreateSnapshot" || r.name == "DeleteSnapshot" {
		return "CREATE_DELETE_SNAPSHOT"
	}
	if r.name == "CreateVolume" || r.name == "DeleteVolume" {
		return "CREATE_DELETE_VOLUME"
	}
	return ""
}

// gateCheck: an RPC answers OK when it is advertised, else UNIMPLEMENTED.
func gateCheck(r rpc) Check {
	service := "controller"
	if strings.HasPrefix(r.name, "Node") {
		service = "node"
	}
	clause := implemented[r.name]
	return Check{
		ID: "H-11/served/" + r.name, Title: r.name + " is served when it is advertised, and else UNIMPLEMENTED",
		Clauses: clause + " CC-02 NC-02 GEN-03 GEN-04", Needs: service,
		Run: func(t *T) { gate(t, r, clause) },
	}
}

func gate(t *T, r rpc, clause string) {
	if c := own(r); c == "" || slices.ContainsFunc(strings.Split(c, "|"), t.Has) {
		if v, why := t.Need(r.needs); v != check.Pass {
			t.Skip(v, why)
		}
		served(t, r, clause)
		return
	}
	bare := filled(methodNamed(r.name).Input())
	err := error(nil)
	if r.unary {
		_, err = t.Try(bare)
	} else {
		err = t.Stream(t.Context(), bare, func(proto.Message) bool { return false })
	}
	switch codeOf(err) {
	case codes.Unimplemented:
	case codes.OK:
		t.Failf("GEN-04", "%s is not advertised, and answers an empty request with OK; want UNIMPLEMENTED", r.name)
	default:
		t.Failf("GEN-04", "%s is not advertised: got %s, want UNIMPLEMENTED", r.name, check.Describe(err))
	}
}

func served(t *T, r rpc, clause string) {
	req := r.request(t)
	var err error
	if r.unary {
		_, err = t.Try(req)
	} else {
		err = t.Stream(t.Context(), req, func(proto.Message) bool { return true })
	}
	side := "CC-02"
	if strings.HasPrefix(r.name, "Node") {
		side = "NC-02"
	}
	switch codeOf(err) {
	case codes.OK:
	case codes.ResourceExhausted:
		t.NotRun("%s: the driver has no room: %v", r.name, err)
	default:
		t.Failf(clause+" "+side, "%s: got %s, want OK", r.name, check.Describe(err))
	}
}

// filled is a request with something in each field that a driver may look at
// before it looks whether it serves the RPC.
func filled(d protoreflect.MessageDescriptor) proto.Message {
	req := check.NewMessage(d)
	m := req.ProtoReflect()
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		text := protoreflect.ValueOfString("csikit-none")
		if strings.Contains(string(f.Name()), "path") {
			text = protoreflect.ValueOfString("/csikit/none")
		}
		switch {
		case f.IsMap() || f.Name() == "starting_token":
		case f.IsList() && f.Kind() == protoreflect.StringKind:
			m.Mutable(f).List().Append(text)
		case f.IsList() && f.Name() == "volume_capabilities":
			m.Mutable(f).List().Append(protoreflect.ValueOfMessage(writer().ProtoReflect()))
		case f.IsList():
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, text)
		case f.Name() == "volume_capability":
			m.Set(f, protoreflect.ValueOfMessage(writer().ProtoReflect()))
		case f.Name() == "capacity_range":
			m.Set(f, protoreflect.ValueOfMessage(capRange(1<<30, 0).ProtoReflect()))
		}
	}
	return req
}

func writer() *csi.VolumeCapability {
	return check.Capability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, false)
}
