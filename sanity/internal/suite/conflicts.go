package suite

import (
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/csikit/csikit/sanity/internal/check"
)

func stringValue(s string) protoreflect.Value { return protoreflect.ValueOfString(s) }

var exists = []codes.Code{codes.AlreadyExists}

// conflicts: what is there already, in another way.
func conflicts() []refusal {
	const cv, attach, node = "CREATE_DELETE_VOLUME", "CREATE_DELETE_VOLUME PUBLISH_UNPUBLISH_VOLUME node", "CREATE_DELETE_VOLUME node"
	snap := cv + " CREATE_DELETE_SNAPSHOT"
	return []refusal{
		{"CreateSnapshot/other-source", "CreateSnapshot by a name that another volume's snapshot has is ALREADY_EXISTS", "CS-10", snap, func(t *T) proto.Message {
			req := t.SnapshotRequest(t.NewVolume().VolumeId)
			check.OK[*csi.CreateSnapshotResponse](t, "CS-01", req)
			other := proto.Clone(req).(*csi.CreateSnapshotRequest)
			other.SourceVolumeId = t.NewVolume().VolumeId
			return other
		}, exists},
		{"CreateVolumeGroupSnapshot/other-sources", "CreateVolumeGroupSnapshot by the name of a group of other volumes is ALREADY_EXISTS", "GV-13", cv + " group", func(t *T) proto.Message {
			req := groupRequest(t, t.NewVolume().VolumeId)
			check.OK[*csi.CreateVolumeGroupSnapshotResponse](t, "GV-01", req)
			other := proto.Clone(req).(*csi.CreateVolumeGroupSnapshotRequest)
			other.SourceVolumeIds = []string{t.NewVolume().VolumeId}
			return other
		}, exists},
		{"DeleteSnapshot/member", "DeleteSnapshot of a group's member is INVALID_ARGUMENT", "DS-04 CS-16", cv + " CREATE_DELETE_SNAPSHOT group", func(t *T) proto.Message {
			g := newGroup(t, t.NewVolume().VolumeId)
			return &csi.DeleteSnapshotRequest{SnapshotId: members(g)[0], Secrets: t.Config().Secrets}
		}, invalid},
		{"DeleteVolumeGroupSnapshot/mismatch", "DeleteVolumeGroupSnapshot with snapshots that are not the group's is INVALID_ARGUMENT", "GX-05", cv + " group", func(t *T) proto.Message {
			g := newGroup(t, t.NewVolume().VolumeId)
			return &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: g.GetGroupSnapshotId(), SnapshotIds: []string{noSnapshot}, Secrets: t.Config().Secrets}
		}, invalid},
		{"GetVolumeGroupSnapshot/mismatch", "GetVolumeGroupSnapshot with snapshots that are not the group's is INVALID_ARGUMENT", "GQ-04", cv + " group", func(t *T) proto.Message {
			r := getGroup(t, newGroup(t, t.NewVolume().VolumeId))
			r.SnapshotIds = append(r.SnapshotIds, noSnapshot)
			return r
		}, invalid},
		{"ControllerPublishVolume/other-readonly", "ControllerPublishVolume of a published volume, with another readonly, is ALREADY_EXISTS", "CP-12", attach + " PUBLISH_READONLY", func(t *T) proto.Message {
			v := t.NewVolume()
			v.Attach()
			r := v.AttachRequest()
			r.Readonly = true
			return r
		}, exists},
		{"NodeStageVolume/other-type", "NodeStageVolume of a staged volume, with another capability, is ALREADY_EXISTS", "NS-08", node + " node:STAGE_UNSTAGE_VOLUME", func(t *T) proto.Message {
			v := twoTypes(t)
			v.ToNode()
			r := v.StageRequest()
			r.VolumeCapability = check.Capability(v.Cap.GetAccessMode().GetMode(), !t.Config().Block)
			return r
		}, exists},
		{"NodePublishVolume/other-readonly", "NodePublishVolume at a target that is in use, with another readonly, is ALREADY_EXISTS", "NP-10", node, func(t *T) proto.Message {
			v := t.NewVolume().ToNode()
			r := v.PublishRequest()
			check.OK[*csi.NodePublishVolumeResponse](t, "NP-07", r)
			r = proto.Clone(r).(*csi.NodePublishVolumeRequest)
			r.Readonly = true
			return r
		}, exists},
		{"NodePublishVolume/other-type", "NodePublishVolume at a target that is in use, with another capability, is ALREADY_EXISTS", "NP-10", node, func(t *T) proto.Message {
			v := twoTypes(t)
			v.ToNode()
			r := v.PublishRequest()
			check.OK[*csi.NodePublishVolumeResponse](t, "NP-07", r)
			r = proto.Clone(r).(*csi.NodePublishVolumeRequest)
			r.VolumeCapability = check.Capability(v.Cap.GetAccessMode().GetMode(), !t.Config().Block)
			return r
		}, []codes.Code{codes.AlreadyExists, codes.FailedPrecondition}},
	}
}

// twoTypes makes a volume that can be mounted and be raw.
func twoTypes(t *T) *check.Volume {
	mode := t.Mode()
	req := t.CreateRequest()
	req.VolumeCapabilities = []*csi.VolumeCapability{t.Cap(mode), check.Capability(mode, !t.Config().Block)}
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	if err != nil {
		t.NotApplicable("the driver has no volumes that are both mounted and raw")
	}
	return &check.Volume{Volume: resp.GetVolume(), T: t, Request: req, Cap: req.GetVolumeCapabilities()[0]}
}

// moreErrorChecks are those that take more than one call to judge.
func moreErrorChecks() []Check {
	const attach = "CREATE_DELETE_VOLUME PUBLISH_UNPUBLISH_VOLUME node"
	return []Check{
		{ID: "H-01/DeleteVolume/published", Title: "DeleteVolume of a published volume is FAILED_PRECONDITION", Clauses: "DV-07", Needs: attach, Run: func(t *T) {
			v := t.NewVolume()
			v.Attach()
			t.Refused("DV-07", "of a volume that is published to a node", v.DeleteRequest(), codes.FailedPrecondition)
		}},
		{ID: "H-01/DeleteVolume/staged", Title: "DeleteVolume of a staged volume is FAILED_PRECONDITION, as far as the controller can know", Clauses: "DV-07", Needs: "CREATE_DELETE_VOLUME node", Run: deleteInUse},
		{ID: "H-01/ControllerUnpublishVolume/missing", Title: "ControllerUnpublishVolume of a volume or a node that is not there is OK, or NOT_FOUND", Clauses: "CU-02 CU-03 CU-07", Needs: attach, Run: detachMissing},
		{ID: "H-01/Node/missing", Title: "NodeUnpublishVolume and NodeUnstageVolume of a volume that is not there are OK, or NOT_FOUND", Clauses: "NU-03 NU-06 NB-03 NB-07", Needs: "node", Run: undoMissing},
		{ID: "H-01/second-node", Title: "A single-node volume is published to a second node: FAILED_PRECONDITION, which names the first", Clauses: "CP-14 CP-15", Needs: attach, Run: secondNode},
		{ID: "H-01/ControllerPublishVolume/other-type", Title: "ControllerPublishVolume of a published volume, with another capability, is ALREADY_EXISTS", Clauses: "CP-13", Needs: attach, Run: otherAttach},
		{ID: "H-01/secret-keys", Title: "A key of secrets that is none is INVALID_ARGUMENT", Clauses: "GEN-22", Needs: "CREATE_DELETE_VOLUME", Run: secretKeys},
	}
}

func deleteInUse(t *T) {
	v := t.NewVolume().ToNode()
	target := v.PublishAt()
	_, err := t.Try(v.DeleteRequest())
	switch codeOf(err) {
	case codes.FailedPrecondition:
	case codes.OK:
		t.Warnf("DV-07", "DeleteVolume deleted a volume that is published on this node, and not by ControllerPublishVolume: a CO that lost its state loses data")
		_, _ = t.Try(v.UnpublishRequest(target)) // what there is left of it
		if v.Staging != "" {
			_, _ = t.Try(v.UnstageRequest())
		}
	default:
		t.Failf("DV-07", "DeleteVolume of a volume that is published on this node: got %s, want FAILED_PRECONDITION", check.Describe(err))
	}
}

func detachMissing(t *T) {
	secrets := t.Config().Secrets
	for why, req := range map[string]*csi.ControllerUnpublishVolumeRequest{
		"of a volume that is not there": {VolumeId: noVolume, NodeId: t.NodeID(), Secrets: secrets},
		"from a node that is not there": {VolumeId: t.NewVolume().VolumeId, NodeId: noNode, Secrets: secrets},
	} {
		if t.Refused("CU-03 CU-07", why, req, codes.OK, codes.NotFound) == codes.NotFound {
			t.Warnf("CU-03", "ControllerUnpublishVolume %s: NOT_FOUND; it should be OK when it is safe to say that nothing is published", why)
		}
	}
	t.Refused("CU-02", "of a volume that is not published", &csi.ControllerUnpublishVolumeRequest{VolumeId: t.NewVolume().VolumeId, NodeId: t.NodeID(), Secrets: secrets}, codes.OK)
}

func undoMissing(t *T) {
	t.Refused("NB-07 NB-03", "of a volume that is not there", &csi.NodeUnpublishVolumeRequest{VolumeId: noVolume, TargetPath: t.MakeDir("pod") + "/mount"}, codes.OK, codes.NotFound)
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		t.Refused("NU-06 NU-03", "of a volume that is not there", &csi.NodeUnstageVolumeRequest{VolumeId: noVolume, StagingTargetPath: t.MakeDir("staging")}, codes.OK, codes.NotFound)
	}
}

func secondNode(t *T) {
	v := t.NewVolume(func(r *csi.CreateVolumeRequest) {
		r.VolumeCapabilities = []*csi.VolumeCapability{t.Cap(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)}
	})
	v.Attach()
	req := v.AttachRequest()
	if other := t.Config().OtherNode; other != "" {
		req.NodeId = other
		t.Refused("CP-14", "of a single-node volume to the node "+other, req, codes.FailedPrecondition)
		v.Detach()
		v.Publish = check.OK[*csi.ControllerPublishVolumeResponse](t, "CP-01", req).GetPublishContext() // now it can be there
		t.Refused("CP-14", "of a single-node volume that is published at the node "+other, v.AttachRequest(), codes.FailedPrecondition)
		check.OK[*csi.ControllerUnpublishVolumeResponse](t, "CU-04", &csi.ControllerUnpublishVolumeRequest{VolumeId: v.VolumeId, NodeId: other, Secrets: t.Config().Secrets})
		v.Attach()
	}
	req.NodeId = noNode // a driver may look at either first
	_, err := t.Try(req)
	switch codeOf(err) {
	case codes.FailedPrecondition:
		if !strings.Contains(err.Error(), t.NodeID()) {
			t.Warnf("CP-15", "the message does not name the node at which the volume is: %s", check.Describe(err))
		}
	case codes.NotFound:
	default:
		t.Failf("CP-14 CP-11", "ControllerPublishVolume of a single-node volume to a second node: got %s, want FAILED_PRECONDITION", check.Describe(err))
	}
}

// otherAttach: a driver whose attachments serve any capability may say OK.
func otherAttach(t *T) {
	v := twoTypes(t)
	v.Attach()
	req := v.AttachRequest()
	req.VolumeCapability = check.Capability(v.Cap.GetAccessMode().GetMode(), !t.Config().Block)
	if t.Refused("CP-13", "with another access type", req, codes.AlreadyExists, codes.OK) == codes.OK {
		t.Warnf("CP-13", "ControllerPublishVolume of a volume that is published to be mounted, and now to be raw (or the other way round), is OK: right only if that makes no difference")
	}
}

func secretKeys(t *T) {
	t.Mode()
	req := t.CreateRequest()
	req.Secrets = map[string]string{"no good key\n": "value"}
	if t.Refused("GEN-22", "with a key of secrets that has a space and a newline", req, codes.InvalidArgument, codes.OK) == codes.OK {
		t.Warnf("GEN-22", "CreateVolume takes a key of secrets that has a space and a newline")
	}
}
