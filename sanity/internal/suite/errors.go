package suite

import (
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// refusal is a request that has one right answer, an error.
type refusal struct {
	id, title, clauses, needs string
	request                   func(*T) proto.Message
	want                      []codes.Code
}

func (r *refusal) check() Check {
	return Check{ID: "H-01/" + r.id, Title: r.title, Clauses: r.clauses + " GEN-05", Needs: r.needs, Run: func(t *T) {
		req := r.request(t)
		if _, ok := req.(*csi.GetMetadataAllocatedRequest); ok {
			streamRefused(t, r.clauses, "("+r.id+")", req, r.want[0])
			return
		}
		if _, ok := req.(*csi.GetMetadataDeltaRequest); ok {
			streamRefused(t, r.clauses, "("+r.id+")", req, r.want[0])
			return
		}
		t.Refused(r.clauses, "("+r.id+")", req, r.want...)
	}}
}

// nothing are ids of nothing: well formed, and of no driver.
const (
	noVolume   = "csikit-no-such-volume"
	noSnapshot = "csikit-no-such-snapshot"
	noGroup    = "csikit-no-such-group"
	noNode     = "csikit-no-such-node"
)

// errorChecks: H-01, the code of each error that can be brought about by a call.
func errorChecks() []Check {
	var all []Check
	for _, list := range [][]refusal{missingVolumes(), missingOthers(), conflicts(), contents()} {
		for _, r := range list {
			all = append(all, r.check())
		}
	}
	return append(append(all, moreErrorChecks()...), leftoverChecks()...)
}

var notFound, invalid = []codes.Code{codes.NotFound}, []codes.Code{codes.InvalidArgument}

// missingVolumes: what is asked of a volume that is not there.
func missingVolumes() []refusal {
	gone := func(r rpc, clause string, change func(t *T, req proto.Message)) refusal {
		return refusal{r.name + "/no-volume", r.name + " of a volume that is not there is NOT_FOUND", clause, r.needs, func(t *T) proto.Message {
			req := proto.Clone(r.request(t))
			m := req.ProtoReflect()
			m.Set(m.Descriptor().Fields().ByName("volume_id"), stringValue(noVolume))
			if change != nil {
				change(t, req)
			}
			return req
		}, notFound}
	}
	clauses := map[string]string{
		"ControllerPublishVolume": "CP-10", "ValidateVolumeCapabilities": "VC-06", "ControllerExpandVolume": "CE-08",
		"ControllerGetVolume": "CG-03", "ControllerModifyVolume": "MV-08", "ControllerGetVolumeHealth": "GH-03",
		"NodeGetVolumeStats": "NG-04", "NodeExpandVolume": "NE-06", "NodeGetVolumeHealth": "NH-04", "NodeStageVolume": "NS-07",
	}
	var all []refusal
	for _, r := range append(controllerRPCs(), nodeRPCs()...) {
		if clause := clauses[r.name]; clause != "" {
			all = append(all, gone(r, clause, nil))
		}
	}
	for _, r := range nodeRPCs() {
		if r.name == "NodePublishVolume" {
			publish := gone(r, "NP-09", func(t *T, req proto.Message) {
				p := req.(*csi.NodePublishVolumeRequest)
				if p.GetStagingTargetPath() != "" {
					p.StagingTargetPath = t.MakeDir("nothing-staged")
				}
			})
			// A node may not know more than that nothing is staged.
			publish.want = []codes.Code{codes.NotFound, codes.FailedPrecondition}
			all = append(all, publish)
		}
	}
	return all
}

// missingOthers: snapshots, groups and nodes that are not there.
func missingOthers() []refusal {
	const cv, snap = "CREATE_DELETE_VOLUME", "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT"
	source := func(s *csi.VolumeContentSource) func(*T) proto.Message {
		return func(t *T) proto.Message {
			t.Mode()
			req := t.CreateRequest()
			req.VolumeContentSource = s
			return req
		}
	}
	secrets := func(t *T) map[string]string { return t.Config().Secrets }
	return []refusal{
		{"CreateVolume/no-snapshot", "CreateVolume from a snapshot that is not there is NOT_FOUND", "CV-23", snap, source(fromSnapshot(noSnapshot)), notFound},
		{"CreateVolume/no-source", "CreateVolume from a volume that is not there is NOT_FOUND", "CV-23", cv + " CLONE_VOLUME", source(fromVolume(noVolume)), notFound},
		{"ControllerPublishVolume/no-node", "ControllerPublishVolume to a node that is not there is NOT_FOUND", "CP-11", cv + " PUBLISH_UNPUBLISH_VOLUME node", func(t *T) proto.Message {
			req := t.NewVolume().AttachRequest()
			req.NodeId = noNode
			return req
		}, notFound},
		{"CreateSnapshot/no-volume", "CreateSnapshot of a volume that is not there is an error, usually NOT_FOUND", "CS-20", snap, func(t *T) proto.Message { return t.SnapshotRequest(noVolume) },
			[]codes.Code{codes.NotFound, codes.InvalidArgument, codes.FailedPrecondition}},
		{"GetSnapshot/no-snapshot", "GetSnapshot of a snapshot that is not there is NOT_FOUND", "GS-03", "GET_SNAPSHOT", func(t *T) proto.Message {
			return &csi.GetSnapshotRequest{SnapshotId: noSnapshot, Secrets: secrets(t)}
		}, notFound},
		{"GetVolumeGroupSnapshot/no-group", "GetVolumeGroupSnapshot of a group that is not there is NOT_FOUND", "GQ-02", "group", func(t *T) proto.Message {
			return &csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: noGroup, SnapshotIds: []string{noSnapshot}, Secrets: secrets(t)}
		}, notFound},
		{"CreateVolumeGroupSnapshot/no-volume", "CreateVolumeGroupSnapshot of a volume that is not there is an error", "GV-04 GV-11", cv + " group", func(t *T) proto.Message {
			return groupRequest(t, t.NewVolume().VolumeId, noVolume)
		}, []codes.Code{codes.NotFound, codes.InvalidArgument, codes.FailedPrecondition}},
		{"GetMetadataAllocated/no-snapshot", "GetMetadataAllocated of a snapshot that is not there is NOT_FOUND", "SM-13", "metadata", func(t *T) proto.Message {
			return &csi.GetMetadataAllocatedRequest{SnapshotId: noSnapshot, Secrets: secrets(t)}
		}, notFound},
		{"GetMetadataDelta/no-base", "GetMetadataDelta from a snapshot that is not there is NOT_FOUND", "SM-13", snap + " metadata", func(t *T) proto.Message {
			return &csi.GetMetadataDeltaRequest{BaseSnapshotId: noSnapshot, TargetSnapshotId: readySnapshot(t, t.NewVolume()).GetSnapshotId(), Secrets: secrets(t)}
		}, notFound},
		{"GetMetadataDelta/no-target", "GetMetadataDelta to a snapshot that is not there is NOT_FOUND", "SM-13", snap + " metadata", func(t *T) proto.Message {
			return &csi.GetMetadataDeltaRequest{BaseSnapshotId: readySnapshot(t, t.NewVolume()).GetSnapshotId(), TargetSnapshotId: noSnapshot, Secrets: secrets(t)}
		}, notFound},
		{"NodeGetVolumeStats/other-path", "NodeGetVolumeStats at a path where the volume is not is NOT_FOUND", "NG-04", cv + " node node:GET_VOLUME_STATS", func(t *T) proto.Message {
			v := t.NewVolume().ToNode()
			v.PublishAt()
			return &csi.NodeGetVolumeStatsRequest{VolumeId: v.VolumeId, VolumePath: t.MakeDir("elsewhere")}
		}, notFound},
		{"NodeExpandVolume/not-there", "NodeExpandVolume of a volume that is not at the path is NOT_FOUND", "NE-06", cv + " node node:EXPAND_VOLUME", func(t *T) proto.Message {
			return nodeExpandRequest(t.NewVolume(), filepath.Join(t.MakeDir("elsewhere"), "mount"), t.Config().Size)
		}, []codes.Code{codes.NotFound, codes.FailedPrecondition, codes.InvalidArgument}}, // the volume is there: the spec has no code for the path
	}
}

func fromSnapshot(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
}

func fromVolume(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

// contents: fields whose value no driver can take.
func contents() []refusal {
	const cv = "CREATE_DELETE_VOLUME"
	change := func(f func(*T, *csi.CreateVolumeRequest)) func(*T) proto.Message {
		return func(t *T) proto.Message {
			t.Mode()
			req := t.CreateRequest()
			f(t, req)
			return req
		}
	}
	return []refusal{
		{"CreateVolume/empty-source", "CreateVolume with a source of no type is INVALID_ARGUMENT", "CV-22", cv, change(func(_ *T, r *csi.CreateVolumeRequest) {
			r.VolumeContentSource = &csi.VolumeContentSource{}
		}), invalid},
		{"CreateVolume/second-capability", "CreateVolume with one good capability and one without a mode is INVALID_ARGUMENT", "CV-14 CV-15 CV-16", cv, change(func(t *T, r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities = append(r.VolumeCapabilities, t.Cap(csi.VolumeCapability_AccessMode_UNKNOWN))
		}), invalid},
		{"CreateVolume/unknown-mode", "CreateVolume with an access mode that no spec has is INVALID_ARGUMENT", "CV-15 GEN-09", cv, change(func(t *T, r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities = []*csi.VolumeCapability{t.Cap(99)}
		}), invalid},
		{"CreateVolume/mutable-unknown", "CreateVolume with mutable parameters that nobody knows is INVALID_ARGUMENT", "CV-18 GEN-09", cv + " MODIFY_VOLUME", change(func(_ *T, r *csi.CreateVolumeRequest) {
			r.MutableParameters = map[string]string{"csikit-no-such-key": "1"}
		}), invalid},
		{"ListVolumes/negative", "ListVolumes with a negative max_entries is refused", "LV-05", "LIST_VOLUMES", func(*T) proto.Message { return &csi.ListVolumesRequest{MaxEntries: -1} }, invalid},
		{"ListSnapshots/negative", "ListSnapshots with a negative max_entries is refused", "LS-10", "LIST_SNAPSHOTS", func(t *T) proto.Message {
			return &csi.ListSnapshotsRequest{MaxEntries: -1, Secrets: t.Config().Secrets}
		}, invalid},
		{"ListVolumes/token", "ListVolumes with a token that is none is ABORTED", "LV-06", "LIST_VOLUMES", func(*T) proto.Message { return &csi.ListVolumesRequest{StartingToken: "csikit-no-token"} }, []codes.Code{codes.Aborted}},
		{"ListSnapshots/token", "ListSnapshots with a token that is none is ABORTED", "LS-06", "LIST_SNAPSHOTS", func(t *T) proto.Message {
			return &csi.ListSnapshotsRequest{StartingToken: "csikit-no-token", Secrets: t.Config().Secrets}
		}, []codes.Code{codes.Aborted}},
		{"ControllerListVolumeHealth/token", "ControllerListVolumeHealth with a token that is none is ABORTED", "LH-06", "LIST_VOLUME_HEALTH", func(*T) proto.Message {
			return &csi.ControllerListVolumeHealthRequest{StartingToken: "csikit-no-token"}
		}, []codes.Code{codes.Aborted}},
		{"ControllerModifyVolume/unknown", "ControllerModifyVolume with a key that nobody knows is INVALID_ARGUMENT", "MV-06", cv + " MODIFY_VOLUME", func(t *T) proto.Message {
			r := modifyRequest(t.NewVolume())
			r.MutableParameters = map[string]string{"csikit-no-such-key": "1"}
			return r
		}, invalid},
		{"ControllerPublishVolume/readonly", "ControllerPublishVolume, readonly, without PUBLISH_READONLY is INVALID_ARGUMENT", "CP-09", cv + " PUBLISH_UNPUBLISH_VOLUME node", func(t *T) proto.Message {
			if t.Has("PUBLISH_READONLY") {
				t.NotApplicable("PUBLISH_READONLY is advertised")
			}
			r := t.NewVolume().AttachRequest()
			r.Readonly = true
			return r
		}, invalid},
		{"NodePublishVolume/no-staging", "NodePublishVolume without staging_target_path, where volumes are staged, is FAILED_PRECONDITION", "NP-14", cv + " node node:STAGE_UNSTAGE_VOLUME", func(t *T) proto.Message {
			r := t.NewVolume().ToNode().PublishRequest()
			r.StagingTargetPath = ""
			return r
		}, []codes.Code{codes.FailedPrecondition}},
		{"GetMetadataAllocated/negative", "GetMetadataAllocated from an offset below zero is OUT_OF_RANGE", "SM-14", cv + " CREATE_DELETE_SNAPSHOT metadata", func(t *T) proto.Message {
			return &csi.GetMetadataAllocatedRequest{SnapshotId: readySnapshot(t, t.NewVolume()).GetSnapshotId(), StartingOffset: -1, Secrets: t.Config().Secrets}
		}, []codes.Code{codes.OutOfRange}},
		{"GetMetadataAllocated/beyond", "GetMetadataAllocated from beyond the volume is OUT_OF_RANGE", "SM-14", cv + " CREATE_DELETE_SNAPSHOT metadata", func(t *T) proto.Message {
			return &csi.GetMetadataAllocatedRequest{SnapshotId: readySnapshot(t, t.NewVolume()).GetSnapshotId(), StartingOffset: 1 << 60, Secrets: t.Config().Secrets}
		}, []codes.Code{codes.OutOfRange}},
		{"GetMetadataDelta/beyond", "GetMetadataDelta from beyond the volume is OUT_OF_RANGE", "SM-14", cv + " CREATE_DELETE_SNAPSHOT metadata", func(t *T) proto.Message {
			v := t.NewVolume()
			return &csi.GetMetadataDeltaRequest{BaseSnapshotId: readySnapshot(t, v).GetSnapshotId(), TargetSnapshotId: readySnapshot(t, v).GetSnapshotId(), StartingOffset: 1 << 60, Secrets: t.Config().Secrets}
		}, []codes.Code{codes.OutOfRange}},
	}
}
