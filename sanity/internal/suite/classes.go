package suite

import (
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// classChecks: what of H-29 the sidecars of Kubernetes ask with the parameters of
// classes, and what they ask next when they were refused.
func classChecks() []Check {
	const cv, node = "CREATE_DELETE_VOLUME", "CREATE_DELETE_VOLUME node"
	const attach = node + " PUBLISH_UNPUBLISH_VOLUME"
	return []Check{
		{ID: "H-29/provisioner/capacity", Title: "GetCapacity has all parameters of a StorageClass, also those of Kubernetes", Clauses: "GC-03 GC-01", Needs: cv + " GET_CAPACITY", Run: classCapacity},
		{ID: "H-29/provisioner/rescheduled", Title: "CreateVolume was RESOURCE_EXHAUSTED, and is asked again by the same name for another place", Clauses: "CV-33 CV-28", Needs: node + " plugin:VOLUME_ACCESSIBILITY_CONSTRAINTS", Run: rescheduled},
		{ID: "H-29/attacher/several-modes", Title: "A volume of several access modes is attached with one of them, and staged with another", Clauses: "CV-14 CP-07", Needs: attach, Run: severalModes},
		{ID: "H-29/attacher/forced", Title: "ControllerUnpublishVolume comes while the node has the volume: it is refused, or what the node does next is OK", Clauses: "CU-01 NB-01 NU-01 NS-06", Needs: attach, Run: forcedDetach},
		{ID: "H-29/resizer/recover", Title: "A volume that could not grow as far as was asked grows to less", Clauses: "CE-01 CE-05", Needs: cv + " EXPAND_VOLUME", Run: recovered},
		{ID: "H-29/resizer/other-mode", Title: "A SINGLE_NODE_WRITER volume grows as SINGLE_NODE_MULTI_WRITER, which the controller advertises", Clauses: "CE-01 CE-07", Needs: cv + " EXPAND_VOLUME SINGLE_NODE_MULTI_WRITER", Run: expandOtherMode},
		{ID: "H-29/resizer/modify-back", Title: "A volume in use whose modification was refused is modified as before", Clauses: "MV-01 MV-02", Needs: node + " MODIFY_VOLUME mutable", Run: modifyBack},
		{ID: "H-29/snapshotter/group-source-gone", Title: "CreateVolumeGroupSnapshot is asked again, and a volume of it is deleted meanwhile", Clauses: "GV-03", Needs: cv + " group", Run: groupOfGone},
		{ID: "H-29/snapshotter/metadata", Title: "CreateSnapshot has keys of Kubernetes among its parameters", Clauses: "CS-01 CS-02", Needs: cv + " CREATE_DELETE_SNAPSHOT", Run: snapshotMetadata},
		{ID: "H-29/snapshotter/deletion-policy", Title: "CreateVolumeGroupSnapshot has deletionPolicy among its parameters", Clauses: "GV-01", Needs: cv + " group", Run: deletionPolicy},
	}
}

// classCapacity: external-provisioner takes the keys of Kubernetes out of what it gives
// to CreateVolume, and not out of this.
func classCapacity(t *T) {
	t.Mode()
	ask := func(parameters map[string]string) (int64, error) {
		r, err := check.Try[*csi.GetCapacityResponse](t, &csi.GetCapacityRequest{Parameters: parameters, AccessibleTopology: t.Node.GetAccessibleTopology()})
		return r.GetAvailableCapacity(), err
	}
	plain, err := ask(t.Config().Parameters)
	if err != nil {
		t.Fatalf("GC-01", "GetCapacity: got %s, want OK", check.Describe(err))
	}
	class := map[string]string{
		"csi.storage.k8s.io/provisioner-secret-name": "s", "csi.storage.k8s.io/provisioner-secret-namespace": "default",
		"csi.storage.k8s.io/node-stage-secret-name": "${pvc.name}", "csi.storage.k8s.io/node-stage-secret-namespace": "${pvc.namespace}",
	}
	maps.Copy(class, t.Config().Parameters)
	const so = "external-provisioner asks with all parameters of a class, and pods whose claims wait for them are not scheduled"
	got, err := ask(class)
	if err == nil && plain > 0 && got == 0 {
		t.Warnf("GC-03", "GetCapacity with the names of a class's secrets among the parameters says 0 bytes, and %d without; %s", plain, so)
	}
	if err == nil {
		class["csi.storage.k8s.io/fstype"] = "ext4"
		_, err = ask(class)
	}
	if err != nil {
		t.Warnf("GC-03", "GetCapacity with keys of Kubernetes among the parameters: %s; %s", check.Describe(err), so)
	}
}

// rescheduled: that code is final, and makes the scheduler look for another node. The
// name is the claim's, and stays.
func rescheduled(t *T) {
	p := here(t)
	req := t.CreateRequest()
	req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{elsewhere(p.GetSegments())}}
	if _, err := t.Try(req); codeOf(err) != codes.ResourceExhausted {
		t.NotApplicable("CreateVolume for a place that nobody has: %s; see H-24/nowhere", check.Describe(err))
	}
	req = proto.Clone(req).(*csi.CreateVolumeRequest)
	req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{p}, Preferred: []*csi.Topology{p}}
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	switch {
	case codeOf(err) == codes.ResourceExhausted:
		t.NotRun("the driver has no room: %s", check.Describe(err))
	case err != nil:
		t.Failf("CV-33 CV-28", "CreateVolume by a name that was RESOURCE_EXHAUSTED elsewhere: got %s, want OK; a claim keeps its name when its pod is scheduled to another node", check.Describe(err))
	case !reachable(resp.GetVolume(), p):
		t.Failf("CV-28", "CreateVolume by a name that was RESOURCE_EXHAUSTED elsewhere made a volume that is not accessible from %s", t.Text(p))
	}
}

// severalModes: of a claim with several access modes the attacher takes the widest, and
// kubelet the first.
func severalModes(t *T) {
	first := snw
	if t.Has("node:SINGLE_NODE_MULTI_WRITER") && t.Has("SINGLE_NODE_MULTI_WRITER") {
		first = snmw
	}
	req := withCap(t, t.Cap(first), t.Cap(mnmw))
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	if err != nil {
		t.NotApplicable("the driver has no volumes of both %s and %s: %s", modes()[first], modes()[mnmw], check.Describe(err))
	}
	v := &check.Volume{Volume: resp.GetVolume(), T: t, Request: req, Cap: t.Cap(mnmw)}
	v.Publish = check.OK[*csi.ControllerPublishVolumeResponse](t, "CP-07 CV-14", v.AttachRequest()).GetPublishContext()
	v.Cap = t.Cap(first)
	toPod(t, v, false, "CV-14", "as "+modes()[first]+", of a volume that was made for that and for "+modes()[mnmw]+", and is attached as the latter",
		"of a PersistentVolume with both ReadWriteOnce and ReadWriteMany external-attacher takes the latter, and kubelet the first that is named")
}

// forcedDetach: six minutes after a node does not answer, or when somebody says that it
// is out of service, the volume is detached without it. A node that comes back knows
// nothing of that.
func forcedDetach(t *T) {
	v, target := use(t)
	if t.Config().Host {
		mustStore(t, "NP-07", target, "first")
	}
	detach := &csi.ControllerUnpublishVolumeRequest{VolumeId: v.VolumeId, NodeId: t.NodeID(), Secrets: t.Config().Secrets}
	if _, err := t.Try(detach); err != nil {
		if code := codeOf(err); code != codes.FailedPrecondition {
			t.Warnf("CU-01", "ControllerUnpublishVolume of a volume that the node still has: got %s; want OK, or FAILED_PRECONDITION", check.Describe(err))
			return
		}
		t.NotApplicable("what the node has is not detached: %s", check.Describe(err))
	}
	const so = "; a node that was away when its volume was detached never gets rid of it"
	if _, err := t.Try(v.UnpublishRequest(target)); err != nil {
		t.Fatalf("NB-01", "NodeUnpublishVolume of a volume that was detached meanwhile: got %s, want OK"+so, check.Describe(err))
	}
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		if _, err := t.Try(v.UnstageRequest()); err != nil {
			t.Fatalf("NU-01", "NodeUnstageVolume of a volume that was detached meanwhile: got %s, want OK"+so, check.Describe(err))
		}
	}
	target = v.ToNode().PublishAt()
	if t.Config().Host {
		mustHold(t, "NS-06 CU-01", "the volume was detached while the node had it, and attached again", target, "first")
	}
	v.Unpublish(target)
	v.FromNode()
}

// recovered: the claim is lowered to what there is room for.
func recovered(t *T) {
	v := t.NewVolume()
	size := sizeOf(t, v)
	if _, err := t.Try(expandRequest(v, 1<<60)); err == nil {
		t.NotApplicable("the driver grows volumes to 1 EiB")
	}
	want := max(t.Config().ExpandSize, 2*size)
	resp, err := check.Try[*csi.ControllerExpandVolumeResponse](t, expandRequest(v, want))
	switch {
	case codeOf(err) == codes.ResourceExhausted:
		t.NotRun("the driver has no room: %s", check.Describe(err))
	case err != nil:
		t.Failf("CE-01", "ControllerExpandVolume to %d bytes, after 1 EiB was refused: got %s, want OK; a claim that was given too big a size cannot be put right", want, check.Describe(err))
	case resp.GetCapacityBytes() < want || resp.GetCapacityBytes() >= 1<<60:
		t.Failf("CE-05", "ControllerExpandVolume to %d bytes, after 1 EiB was refused, says %d", want, resp.GetCapacityBytes())
	}
}

// expandOtherMode: the volume was made before the controller advertised the mode, by
// which external-resizer calls each ReadWriteOnce volume since then.
func expandOtherMode(t *T) {
	v := volumeOf(t, snw)
	size := max(t.Config().ExpandSize, 2*sizeOf(t, v))
	v.Cap = t.Cap(snmw)
	if _, err := t.Try(expandRequest(v, size)); err != nil && codeOf(err) != codes.ResourceExhausted {
		t.Warnf("CE-01 CE-07", "ControllerExpandVolume of a SINGLE_NODE_WRITER volume, as SINGLE_NODE_MULTI_WRITER: %s; external-resizer says so of each ReadWriteOnce volume as soon as the controller advertises SINGLE_NODE_MULTI_WRITER", check.Describe(err))
	}
}

// modifyBack: the claim names a class that does not work, and then the one that it had.
func modifyBack(t *T) {
	v := t.NewVolume().ToNode()
	target := v.PublishAt()
	good := modifyRequest(v)
	_, err := t.Try(good)
	if codeOf(err) == codes.FailedPrecondition {
		t.NotApplicable("a volume in use is not modified: %s", check.Describe(err))
	}
	if err != nil {
		t.Fatalf("MV-01", "ControllerModifyVolume of a volume in use: got %s, want OK", check.Describe(err))
	}
	bad := proto.Clone(good).(*csi.ControllerModifyVolumeRequest)
	bad.MutableParameters["csikit-no-such-key"] = "1"
	if _, err := t.Try(bad); err == nil {
		t.NotApplicable("the driver takes any mutable parameters")
	}
	if _, err := t.Try(good); err != nil {
		t.Failf("MV-01 MV-02", "ControllerModifyVolume as before, after one that was refused: got %s, want OK; a claim that was given a wrong VolumeAttributesClass cannot be put right", check.Describe(err))
	}
	v.Unpublish(target)
	v.FromNode()
}

// groupOfGone is snapshotOfGone, of a group.
func groupOfGone(t *T) {
	v, other := t.NewVolume(), t.NewVolume()
	req := groupRequest(t, v.VolumeId, other.VolumeId)
	first := check.OK[*csi.CreateVolumeGroupSnapshotResponse](t, "GV-01", req).GetGroupSnapshot()
	if _, err := t.Try(v.DeleteRequest()); err != nil {
		t.NotApplicable("a volume stays while it has snapshots: %s", check.Describe(err))
	}
	again, err := check.Try[*csi.CreateVolumeGroupSnapshotResponse](t, req)
	switch {
	case err != nil:
		t.Warnf("GV-03", "CreateVolumeGroupSnapshot again, of a group that is there and one of whose volumes is not: %s; external-snapshotter asks so until ready_to_use, and takes that for the group's error", check.Describe(err))
	case again.GetGroupSnapshot().GetGroupSnapshotId() != first.GetGroupSnapshotId():
		t.Failf("GV-03", "CreateVolumeGroupSnapshot again, one of whose volumes is gone, gives %s; it was %s", again.GetGroupSnapshot().GetGroupSnapshotId(), first.GetGroupSnapshotId())
	}
}

// snapshotMetadata: external-snapshotter adds names of its objects
// (--extra-create-metadata), as external-provisioner does; see H-25/parameters.
func snapshotMetadata(t *T) {
	v := t.NewVolume()
	req := t.SnapshotRequest(v.VolumeId)
	with := map[string]string{"csi.storage.k8s.io/volumesnapshot/name": "s", "csi.storage.k8s.io/volumesnapshot/namespace": "default", "csi.storage.k8s.io/volumesnapshotcontent/name": "snapcontent-1"}
	maps.Copy(with, req.GetParameters())
	first := check.OK[*csi.CreateSnapshotResponse](t, "CS-01", req).GetSnapshot()
	named := t.SnapshotRequest(v.VolumeId)
	named.Parameters = with
	if _, err := t.Try(named); err != nil {
		t.Warnf("CS-01", "CreateSnapshot with the keys that external-snapshotter adds (--extra-create-metadata): %s", check.Describe(err))
		return
	}
	again := proto.Clone(req).(*csi.CreateSnapshotRequest)
	again.Parameters = with
	resp, err := check.Try[*csi.CreateSnapshotResponse](t, again)
	if err != nil || resp.GetSnapshot().GetSnapshotId() != first.GetSnapshotId() {
		t.Warnf("CS-02", "CreateSnapshot again, now with the keys that external-snapshotter adds: got %s, want the same snapshot; a snapshotter that is started with --extra-create-metadata asks so for what was begun before", check.Describe(err))
	}
}

// deletionPolicy is a field of the class beside its parameters. Kubernetes' own suite
// for storage drivers writes it among them too, and nobody takes it out.
func deletionPolicy(t *T) {
	v := t.NewVolume()
	plain := groupRequest(t, v.VolumeId)
	g := check.OK[*csi.CreateVolumeGroupSnapshotResponse](t, "GV-01", plain).GetGroupSnapshot()
	check.OK[*csi.DeleteVolumeGroupSnapshotResponse](t, "GX-01", &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: g.GetGroupSnapshotId(), SnapshotIds: members(g), Secrets: t.Config().Secrets})
	req := groupRequest(t, v.VolumeId)
	req.Parameters = map[string]string{"deletionPolicy": "Delete"}
	maps.Copy(req.Parameters, t.Config().SnapshotParameters)
	if _, err := t.Try(req); err != nil {
		t.Warnf("GV-01", "CreateVolumeGroupSnapshot with the parameter deletionPolicy: %s; right by the spec, and Kubernetes' External.Storage suite has it in each VolumeGroupSnapshotClass", check.Describe(err))
	}
}
