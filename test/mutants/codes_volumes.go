package mutants

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// codesOfVolumes are wrong codes of what is done with one volume.
func codesOfVolumes() []Mutant {
	type attachRequest = *csi.ControllerPublishVolumeRequest
	key := func(q attachRequest) string { return q.GetVolumeId() + " " + q.GetNodeId() }
	return []Mutant{
		mutant(Code, "delete-again-not-found", "DV-02", "deleting a volume that is gone: NOT_FOUND",
			missing((*csi.DeleteVolumeRequest).GetVolumeId, codes.NotFound)),
		mutant(Code, "delete-in-use-code", "DV-07", "deleting a volume that is in use: INTERNAL",
			code[*csi.DeleteVolumeRequest](codes.FailedPrecondition, codes.Internal)),
		mutant(Code, "attach-no-volume-code", "CP-10", "attaching an unknown volume: INTERNAL",
			withoutVolume((*csi.ControllerPublishVolumeRequest).GetVolumeId, false, codes.NotFound, codes.Internal)),
		mutant(Code, "attach-no-node-code", "CP-11", "attaching to an unknown node: INVALID_ARGUMENT",
			withoutVolume((*csi.ControllerPublishVolumeRequest).GetVolumeId, true, codes.NotFound, codes.InvalidArgument)),
		mutant(Code, "attach-readonly-conflict-code", "CP-12", "attached with another readonly: FAILED_PRECONDITION",
			conflictCode(key, func(a, b attachRequest) bool { return a.GetReadonly() != b.GetReadonly() }, codes.AlreadyExists, codes.FailedPrecondition)),
		mutant(Code, "attach-limit-code", "CP-16", "the node is full: FAILED_PRECONDITION",
			code[attachRequest](codes.ResourceExhausted, codes.FailedPrecondition)),
		mutant(Code, "detach-again-not-found", "CU-02", "detaching what is not attached: NOT_FOUND", detachAgain),
		mutant(Code, "validate-no-volume-code", "VC-06", "validating an unknown volume: INVALID_ARGUMENT",
			code[*csi.ValidateVolumeCapabilitiesRequest](codes.NotFound, codes.InvalidArgument)),
		mutant(Code, "get-volume-missing-code", "CG-03", "getting an unknown volume: INTERNAL",
			code[*csi.ControllerGetVolumeRequest](codes.NotFound, codes.Internal)),
		mutant(Code, "health-missing-code", "GH-03", "the health of an unknown volume: OK and empty",
			func(r *Rig) {
				around(r, func(ctx context.Context, q *csi.ControllerGetVolumeHealthRequest, next func(context.Context, *csi.ControllerGetVolumeHealthRequest) (*csi.ControllerGetVolumeHealthResponse, error)) (*csi.ControllerGetVolumeHealthResponse, error) {
					resp, err := next(ctx, q)
					if status.Code(err) == codes.NotFound {
						return &csi.ControllerGetVolumeHealthResponse{VolumeHealth: &csi.VolumeHealth{VolumeId: q.GetVolumeId()}}, nil
					}
					return resp, err
				})
			}),
		mutant(Code, "modify-unsupported-code", "MV-06 GEN-09", "an unknown mutable parameter: FAILED_PRECONDITION",
			codeWhen(func(q *csi.ControllerModifyVolumeRequest) bool { return len(q.GetMutableParameters()) > 0 }, codes.InvalidArgument, codes.FailedPrecondition)),
		mutant(Code, "modify-no-volume-code", "MV-08", "modifying an unknown volume: INVALID_ARGUMENT",
			code[*csi.ControllerModifyVolumeRequest](codes.NotFound, codes.InvalidArgument)),
		mutant(Code, "expand-no-volume-code", "CE-08", "growing an unknown volume: INTERNAL",
			code[*csi.ControllerExpandVolumeRequest](codes.NotFound, codes.Internal)),
		mutant(Code, "expand-range-code", "CE-10", "growing above any size: INVALID_ARGUMENT",
			code[*csi.ControllerExpandVolumeRequest](codes.OutOfRange, codes.InvalidArgument)),
		mutant(Code, "unserved-internal", "GEN-03 GEN-04", "an RPC that is not advertised: INTERNAL", both(
			func(r *Rig) { r.Mem.Without = append(r.Mem.Without, "Modifier", "CapacityReporter") },
			code[*csi.ControllerModifyVolumeRequest](codes.Unimplemented, codes.Internal),
			code[*csi.GetCapacityRequest](codes.Unimplemented, codes.Internal))),
	}
}

// missing answers another code than OK where the volume is not there.
func missing[Q proto.Message](id func(Q) string, with codes.Code) func(*Rig) {
	return func(r *Rig) {
		around(r, func(ctx context.Context, q Q, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
			if id(q) != "" && !r.exists(ctx, id(q)) {
				return nil, status.Errorf(with, "volume %s does not exist", id(q))
			}
			return next(ctx, q)
		})
	}
}

// withoutVolume changes a code where the volume is there, or is not.
func withoutVolume[Q proto.Message](id func(Q) string, there bool, from, to codes.Code) func(*Rig) {
	return func(r *Rig) {
		around(r, func(ctx context.Context, q Q, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
			resp, err := next(ctx, q)
			if status.Code(err) == from && r.exists(ctx, id(q)) == there {
				return nil, status.Error(to, status.Convert(err).Message())
			}
			return resp, err
		})
	}
}

// detachAgain finds fault with what is detached already.
func detachAgain(r *Rig) {
	var attached memory[bool]
	around(r, func(ctx context.Context, q *csi.ControllerPublishVolumeRequest, next func(context.Context, *csi.ControllerPublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		resp, err := next(ctx, q)
		if err == nil {
			attached.put(q.GetVolumeId(), true)
		}
		return resp, err
	})
	around(r, func(ctx context.Context, q *csi.ControllerUnpublishVolumeRequest, next func(context.Context, *csi.ControllerUnpublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		if _, ok := attached.get(q.GetVolumeId()); q.GetVolumeId() != "" && !ok {
			return nil, status.Errorf(codes.NotFound, "volume %s is not attached", q.GetVolumeId())
		}
		resp, err := next(ctx, q)
		if err == nil {
			attached.drop(q.GetVolumeId())
		}
		return resp, err
	})
}
