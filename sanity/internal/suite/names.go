package suite

import (
	"maps"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/csikit/csikit/sanity/internal/check"
)

// nameChecks: H-12, H-13 and H-25.
func nameChecks() []Check {
	const cv, node = "CREATE_DELETE_VOLUME", "CREATE_DELETE_VOLUME node"
	all := []Check{
		{ID: "H-12/volumes", Title: "Any name of up to 128 bytes makes a volume of its own", Clauses: "CV-06 CV-40", Needs: cv, Run: volumeNames},
		{ID: "H-12/snapshots", Title: "Any name of up to 128 bytes makes a snapshot of its own", Clauses: "CS-09 CS-15", Needs: cv + " CREATE_DELETE_SNAPSHOT", Run: snapshotNames},
		{ID: "H-12/control", Title: "Control characters in a name are refused", Clauses: "CV-07", Needs: cv, Run: controlCharacters},
		{ID: "H-12/long", Title: "A name of 129 bytes is refused, or taken whole, and never cut", Clauses: "CV-06 CV-40", Needs: cv, Run: longNames},
		{ID: "H-25/unknown-fields", Title: "Fields of a later spec do not make a call fail", Clauses: "GEN-25", Needs: "controller", Run: unknownFields},
		{ID: "H-25/parameters", Title: "Keys of Kubernetes in parameters are taken", Clauses: "CV-17 CV-01", Needs: cv, Run: kubernetesKeys},
		{ID: "H-25/paths", Title: "Paths of 200 bytes and more, and with a slash at the end, are taken", Clauses: "NS-11 NP-19", Needs: node, Run: longPaths},
		{ID: "H-25/relative", Title: "Relative paths are refused", Clauses: "NS-10 NP-19 NG-06", Needs: node, Run: relativePaths},
		{ID: "H-25/flags", Title: "mount_flags of more than 4 KiB are refused, or do no harm", Clauses: "GEN-15", Needs: cv + " mount", Run: manyFlags},
		{ID: "H-25/big", Title: "Requests of 100 KiB are answered", Clauses: "GEN-05", Needs: cv, Run: bigRequest},
	}
	for _, r := range append(controllerRPCs(), nodeRPCs()...) {
		for _, field := range []string{"volume_id", "snapshot_id", "node_id", "source_volume_id", "group_snapshot_id"} {
			if methodNamed(r.name).Input().Fields().ByName(protoreflect.Name(field)) != nil && r.unary && r.name != "ListSnapshots" {
				all = append(all, Check{ID: "H-13/" + r.name + "/" + field, Title: r.name + " with a hostile " + field + " is an error, or does nothing", Clauses: "GEN-05 GEN-09", Needs: r.needs,
					Run: func(t *T) { hostile(t, r, protoreflect.Name(field)) }})
			}
		}
	}
	return all
}

// goodNames are ones that a driver must take.
func goodNames(unique string) []string {
	fill := func(s string, n int) string {
		return (unique + strings.Repeat(s, n))[:len(unique)+len(s)*((n*len(s)-len(unique))/len(s))]
	}
	return []string{
		unique, fill("x", 63), fill("x", 64), fill("x", 127), fill("x", 128), fill("\u00e9", 64), fill("\u20ac", 42), fill("\U0001f600", 32),
		unique + "/x", "/" + unique, "../" + unique, unique + "/..", "-" + unique, unique + " x", unique + "\t", unique + "\n", unique + `"x'`, unique + "$x`x`",
		unique + "\u00e9", unique + "e\u0301", unique + "Case", unique + "case", "." + unique, unique + "@x", unique + "#", unique + "%2f", unique + "\\x",
	}
}

func volumeNames(t *T) {
	t.Mode()
	ids := map[string]string{}
	for _, name := range goodNames(t.UniqueName()) {
		req := t.CreateRequest()
		req.Name = name
		resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
		if codeOf(err) == codes.ResourceExhausted {
			t.NotRun("the driver has no room: %s", check.Describe(err))
		}
		if err != nil {
			t.Failf("CV-06", "CreateVolume %q, of %d bytes: got %s, want OK", name, len(name), check.Describe(err))
			continue
		}
		id := resp.GetVolume().GetVolumeId()
		if other, twice := ids[id]; twice {
			t.Failf("CV-40 CV-06", "CreateVolume %q gives the volume of %q", name, other)
		}
		ids[id] = name
	}
}

func snapshotNames(t *T) {
	v := t.NewVolume()
	ids := map[string]string{}
	for _, name := range goodNames(t.UniqueName()) {
		req := t.SnapshotRequest(v.VolumeId)
		req.Name = name
		resp, err := check.Try[*csi.CreateSnapshotResponse](t, req)
		if err != nil {
			if codeOf(err) == codes.ResourceExhausted {
				t.NotRun("the driver has no room: %s", check.Describe(err))
			}
			t.Failf("CS-09", "CreateSnapshot %q, of %d bytes: got %s, want OK", name, len(name), check.Describe(err))
			continue
		}
		id := resp.GetSnapshot().GetSnapshotId()
		if other, twice := ids[id]; twice {
			t.Failf("CS-15 CS-09", "CreateSnapshot %q gives the snapshot of %q", name, other)
		}
		ids[id] = name
	}
}

func controlCharacters(t *T) {
	t.Mode()
	for _, c := range []string{"\x00", "\x01", "\x08", "\x0b", "\x0c", "\x0e", "\x1b", "\x1f", "\x7f", "\u0080", "\u009f"} {
		req := t.CreateRequest()
		req.Name += c
		t.Refused("CV-07", "by a name with "+quoted(c), req, codes.InvalidArgument)
	}
}

func quoted(s string) string { return strings.Trim(strings.ReplaceAll(check.Quote(s), `"`, ""), " ") }

func longNames(t *T) {
	t.Mode()
	unique := t.UniqueName()
	ids := map[string]bool{}
	for _, end := range []string{"a", "b"} {
		req := t.CreateRequest()
		req.Name = unique + strings.Repeat("x", 128-len(unique)) + end
		resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
		switch codeOf(err) {
		case codes.InvalidArgument:
		case codes.OK:
			if ids[resp.GetVolume().GetVolumeId()] {
				t.Failf("CV-06 CV-40", "two names of 129 bytes that differ in the last make one volume")
			}
			ids[resp.GetVolume().GetVolumeId()] = true
		default:
			t.Failf("CV-06", "CreateVolume by a name of 129 bytes: got %s, want INVALID_ARGUMENT", check.Describe(err))
		}
	}
}

// hostileIDs are ids that nobody has, and that somebody may trip over.
func hostileIDs() map[string]string {
	return map[string]string{
		"../../etc": "../../etc", "/etc/passwd": "/etc/passwd", ".": ".", "..": "..", "*": "*", "a NUL": "a\x00b", "-rf": "-rf",
		"a newline": "a\nb", "a shell": "$(reboot);`reboot`", "100 KiB": strings.Repeat("a", 100<<10), "%s": "%s%n", "slashes": "a/../../b", "blank": " ",
	}
}

// hostile: an error of the right kind, or OK where nothing is to be done.
func hostile(t *T, r rpc, field protoreflect.Name) {
	req := r.request(t)
	for what, id := range hostileIDs() {
		bad := proto.Clone(req)
		m := bad.ProtoReflect()
		m.Set(m.Descriptor().Fields().ByName(field), stringValue(id))
		if c, ok := bad.(*csi.CreateSnapshotRequest); ok {
			c.Name = t.UniqueName()
		}
		_, err := t.Try(bad)
		code := codeOf(err)
		switch {
		case code == codes.InvalidArgument || code == codes.NotFound || code == codes.FailedPrecondition || code == codes.AlreadyExists:
		case code == codes.OK && undoes(r.name):
		case code == codes.OK:
			t.Failf("GEN-09", "%s with the %s %q (%s): got OK, and nobody has that", r.name, field, shortID(id), what)
		default:
			t.Failf("GEN-09 GEN-05", "%s with the %s %q (%s): got %s, want NOT_FOUND or INVALID_ARGUMENT", r.name, field, shortID(id), what, check.Describe(err))
		}
	}
	if d, ok := req.(*csi.DeleteVolumeRequest); ok {
		if _, err := t.Try(d); err != nil {
			t.Failf("DV-01", "after all that DeleteVolume: %s", check.Describe(err))
		}
	}
}

func undoes(name string) bool {
	return strings.HasPrefix(name, "Delete") || strings.Contains(name, "Unpublish") || strings.Contains(name, "Unstage")
}

func shortID(id string) string { return id[:min(len(id), 40)] }

func unknownFields(t *T) {
	for _, r := range []rpc{{"ControllerGetCapabilities", "controller", func(*T) proto.Message { return &csi.ControllerGetCapabilitiesRequest{} }, true}} {
		withUnknown(t, r.request(t))
	}
	if t.Has("CREATE_DELETE_VOLUME") {
		t.Mode()
		withUnknown(t, t.CreateRequest())
		withUnknown(t, validateRequest(t.NewVolume()))
	}
	if t.HasNode {
		withUnknown(t, &csi.NodeGetInfoRequest{})
	}
}

func withUnknown(t *T, req proto.Message) {
	req.ProtoReflect().SetUnknown(unknownField())
	if _, err := t.Try(req); err != nil {
		t.Failf("GEN-25", "%s with a field of a later spec: got %s, want OK", check.Name(req), check.Describe(err))
	}
}

func kubernetesKeys(t *T) {
	t.Mode()
	req := t.CreateRequest()
	with := map[string]string{"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "default", "csi.storage.k8s.io/pv/name": "pvc-1"}
	maps.Copy(with, req.GetParameters())
	req.Parameters = with
	a, err := check.Try[*csi.CreateVolumeResponse](t, req)
	if err != nil {
		t.Warnf("CV-17", "CreateVolume with the keys that external-provisioner adds (--extra-create-metadata): %s", check.Describe(err))
		return
	}
	again := proto.Clone(req).(*csi.CreateVolumeRequest)
	again.Parameters["csi.storage.k8s.io/pv/name"] = "pvc-2"
	b, err := check.Try[*csi.CreateVolumeResponse](t, again)
	if err != nil || b.GetVolume().GetVolumeId() != a.GetVolume().GetVolumeId() {
		t.Warnf("CV-02", "CreateVolume again, with another csi.storage.k8s.io/pv/name: got %s, want the same volume", check.Describe(err))
	}
}

func longPaths(t *T) {
	v := t.NewVolume()
	v.Attach()
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		v.Staging = t.MakeDir(strings.Repeat("s", 200))
		check.OK[*csi.NodeStageVolumeResponse](t, "NS-11", v.StageRequest())
	}
	req := v.PublishRequest()
	req.TargetPath = filepath.Join(t.MakeDir(strings.Repeat("t", 200)), strings.Repeat("u", 200))
	check.OK[*csi.NodePublishVolumeResponse](t, "NP-19", req)
	slash := v.UnpublishRequest(req.GetTargetPath() + "/")
	if _, err := t.Try(slash); err != nil {
		t.Warnf("NP-19", "NodeUnpublishVolume with a slash at the end of target_path: %s", check.Describe(err))
	}
	v.Unpublish(req.GetTargetPath())
	v.FromNode()
}

func relativePaths(t *T) {
	v := t.NewVolume()
	v.Attach()
	refuse := []codes.Code{codes.InvalidArgument, codes.FailedPrecondition, codes.NotFound}
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		req := v.StageRequest()
		req.StagingTargetPath = "csikit/relative"
		t.Refused("NS-10", "at a relative path", req, refuse...)
	}
	v.Stage()
	req := v.PublishRequest()
	req.TargetPath = "csikit/relative"
	t.Refused("NP-19", "at a relative path", req, refuse...)
	if t.Has("node:GET_VOLUME_STATS") {
		t.Refused("NG-06 NG-04", "at a relative path", &csi.NodeGetVolumeStatsRequest{VolumeId: v.VolumeId, VolumePath: "csikit/relative"}, refuse...)
	}
}

func manyFlags(t *T) {
	t.Mode()
	req := t.CreateRequest()
	for range 200 {
		req.GetVolumeCapabilities()[0].GetMount().MountFlags = append(req.GetVolumeCapabilities()[0].GetMount().MountFlags, "csikit-flag-of-thirty-bytes-xx")
	}
	t.Refused("GEN-15 GEN-05", "with 6 KiB of mount_flags", req, codes.InvalidArgument, codes.OK, codes.FailedPrecondition)
}

func bigRequest(t *T) {
	t.Mode()
	req := t.CreateRequest()
	big := map[string]string{"csikit-big": strings.Repeat("x", 100<<10)}
	req.Parameters = big
	t.Refused("GEN-05", "with 100 KiB of parameters", req, codes.InvalidArgument, codes.OK)
}
