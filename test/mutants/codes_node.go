package mutants

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// codesOfNode are wrong codes of the node service.
func codesOfNode() []Mutant {
	return []Mutant{
		mutant(Code, "stage-no-volume-code", "NS-07", "staging an unknown volume: INTERNAL",
			code[*csi.NodeStageVolumeRequest](codes.NotFound, codes.Internal)),
		onLoop(mutant(Code, "stage-conflict-code", "NS-08", "staged with another capability: INTERNAL",
			code[*csi.NodeStageVolumeRequest](codes.AlreadyExists, codes.Internal))),
		mutant(Code, "publish-no-volume-code", "NP-09", "publishing an unknown volume: INTERNAL",
			unknownVolume(codes.Internal)),
		onLoop(mutant(Code, "publish-conflict-code", "NP-10", "published with another readonly: INTERNAL",
			code[*csi.NodePublishVolumeRequest](codes.AlreadyExists, codes.Internal))),
		mutant(Code, "publish-unstaged-code", "NP-14", "no staging_target_path: INVALID_ARGUMENT",
			codeWhen(func(q *csi.NodePublishVolumeRequest) bool { return q.GetStagingTargetPath() == "" }, codes.FailedPrecondition, codes.InvalidArgument)),
		mutant(Code, "stats-no-volume-code", "NG-04", "the figures of an unknown volume: INTERNAL",
			code[*csi.NodeGetVolumeStatsRequest](codes.NotFound, codes.Internal)),
		onLoop(mutant(Code, "node-expand-no-volume-code", "NE-06", "growing an unknown volume on the node: INTERNAL",
			code[*csi.NodeExpandVolumeRequest](codes.NotFound, codes.Internal))),
		onLoop(mutant(Code, "node-expand-range-code", "NE-08", "growing on the node beyond the device: INTERNAL",
			code[*csi.NodeExpandVolumeRequest](codes.OutOfRange, codes.Internal))),
		mutant(Code, "node-health-no-volume-code", "NH-04", "the health of a volume that is not on the node: INTERNAL",
			code[*csi.NodeGetVolumeHealthRequest](codes.NotFound, codes.Internal)),
		mutant(Code, "unstage-again-not-found", "NU-03", "unstaging what is not staged: NOT_FOUND", unstageAgain),
	}
}

// unknownVolume answers what becomes of publishing a volume that does not exist.
func unknownVolume(with codes.Code) func(*Rig) {
	return func(r *Rig) {
		around(r, func(ctx context.Context, q *csi.NodePublishVolumeRequest, next func(context.Context, *csi.NodePublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
			resp, err := next(ctx, q)
			if c := status.Code(err); c != codes.NotFound && c != codes.FailedPrecondition || r.exists(ctx, q.GetVolumeId()) {
				return resp, err
			}
			if with == codes.OK {
				return &csi.NodePublishVolumeResponse{}, nil
			}
			return nil, status.Error(with, "cannot mount")
		})
	}
}

// fields are fields that nobody checks.
func fields() []Mutant {
	return append(fieldsOfController(), fieldsOfNode()...)
}

func fieldsOfController() []Mutant {
	type createRequest = *csi.CreateVolumeRequest
	return []Mutant{
		mutant(Code, "create-name-unchecked", "CV-05 GEN-08", "a volume without a name is made", requestWhen(
			func(q createRequest) bool { return q.GetName() == "" }, func(q createRequest) { q.Name = "unnamed" })),
		mutant(Code, "create-capabilities-unchecked", "CV-13 GEN-08", "a volume without capabilities is made", requestWhen(
			func(q createRequest) bool { return len(q.GetVolumeCapabilities()) == 0 },
			func(q createRequest) { q.VolumeCapabilities = []*csi.VolumeCapability{mountCapability()} })),
		mutant(Code, "create-mode-unchecked", "CV-16 GEN-09", "access mode UNKNOWN, or none, is a writer on one node", requestWhen(always,
			func(q createRequest) {
				for _, c := range q.GetVolumeCapabilities() {
					if c != nil && c.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_UNKNOWN {
						c.AccessMode = mountCapability().GetAccessMode()
					}
				}
			})),
		mutant(Code, "create-type-unchecked", "CV-16 GEN-08", "no access_type is a mount", requestWhen(always,
			func(q createRequest) {
				for _, c := range q.GetVolumeCapabilities() {
					if c != nil && c.GetAccessType() == nil {
						c.AccessType = mountCapability().GetAccessType()
					}
				}
			})),
		mutant(Code, "create-negative-accepted", "CV-10", "a negative size is none", requestWhen(
			func(q createRequest) bool {
				return q.GetCapacityRange().GetRequiredBytes() < 0 || q.GetCapacityRange().GetLimitBytes() < 0
			},
			func(q createRequest) { q.CapacityRange = nil })),
		mutant(Code, "create-control-characters", "CV-07", "control characters in a name are taken out", request(
			func(q createRequest) { q.Name = printable(q.GetName()) })),
		mutant(Code, "delete-id-unchecked", "DV-03 GEN-08", "deleting no volume: OK", codeWhen(
			func(q *csi.DeleteVolumeRequest) bool { return q.GetVolumeId() == "" }, codes.InvalidArgument, codes.OK)),
		mutant(Code, "attach-node-unchecked", "CP-05 GEN-08", "no node_id is this node", requestWhen(
			func(q *csi.ControllerPublishVolumeRequest) bool { return q.GetNodeId() == "" },
			func(q *csi.ControllerPublishVolumeRequest) { q.NodeId = nodeID })),
		mutant(Code, "attach-capability-unchecked", "CP-06 GEN-08", "attaching without a capability: NOT_FOUND, or OK", requestWhen(
			func(q *csi.ControllerPublishVolumeRequest) bool { return q.GetVolumeCapability() == nil },
			func(q *csi.ControllerPublishVolumeRequest) { q.VolumeCapability = mountCapability() })),
		mutant(Code, "validate-capabilities-unchecked", "VC-05 GEN-08", "no capabilities are confirmed", codeWhen(
			func(q *csi.ValidateVolumeCapabilitiesRequest) bool { return len(q.GetVolumeCapabilities()) == 0 }, codes.InvalidArgument, codes.OK)),
		mutant(Code, "expand-range-unchecked", "CE-04 GEN-08", "growing to no size: OK", codeWhen(
			func(q *csi.ControllerExpandVolumeRequest) bool { return q.GetCapacityRange() == nil }, codes.InvalidArgument, codes.OK)),
		mutant(Code, "snapshot-name-unchecked", "CS-08 GEN-08", "a snapshot without a name is made", requestWhen(
			func(q *csi.CreateSnapshotRequest) bool { return q.GetName() == "" }, func(q *csi.CreateSnapshotRequest) { q.Name = "unnamed" })),
		mutant(Code, "group-sources-unchecked", "GV-08 GEN-08", "a group of no volumes: NOT_FOUND", codeWhen(
			func(q *csi.CreateVolumeGroupSnapshotRequest) bool {
				return len(q.GetSourceVolumeIds()) == 0 && q.GetName() != ""
			}, codes.InvalidArgument, codes.NotFound)),
	}
}

func fieldsOfNode() []Mutant {
	return []Mutant{
		mutant(Code, "stage-id-unchecked", "NS-03 GEN-08", "staging no volume: NOT_FOUND", codeWhen(
			func(q *csi.NodeStageVolumeRequest) bool { return q.GetVolumeId() == "" }, codes.InvalidArgument, codes.NotFound)),
		mutant(Code, "stage-relative-path", "NS-10", "a relative staging path is one below the root", requestWhen(
			func(q *csi.NodeStageVolumeRequest) bool { return relative(q.GetStagingTargetPath()) },
			func(q *csi.NodeStageVolumeRequest) { q.StagingTargetPath = "/" + q.GetStagingTargetPath() })),
		mutant(Code, "stage-capability-unchecked", "NS-05 GEN-08", "staging without a capability mounts", requestWhen(
			func(q *csi.NodeStageVolumeRequest) bool { return q.GetVolumeCapability() == nil },
			func(q *csi.NodeStageVolumeRequest) { q.VolumeCapability = mountCapability() })),
		mutant(Code, "publish-target-unchecked", "NP-03 GEN-08", "publishing nowhere: OK", codeWhen(
			func(q *csi.NodePublishVolumeRequest) bool { return q.GetTargetPath() == "" && q.GetVolumeId() != "" }, codes.InvalidArgument, codes.OK)),
		mutant(Code, "unpublish-id-unchecked", "NB-05 GEN-08", "unpublishing no volume: OK", codeWhen(
			func(q *csi.NodeUnpublishVolumeRequest) bool { return q.GetVolumeId() == "" }, codes.InvalidArgument, codes.OK)),
	}
}
