package mutants

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// codesOfLists are wrong codes of lists.
func codesOfLists() []Mutant {
	return []Mutant{
		mutant(Code, "list-token-code", "LV-06", "an invalid starting_token: INVALID_ARGUMENT",
			code[*csi.ListVolumesRequest](codes.Aborted, codes.InvalidArgument)),
		mutant(Other, "list-token-starts-over", "LV-06", "an invalid starting_token starts over",
			startsOver(func(q *csi.ListVolumesRequest) { q.StartingToken = "" })),
		mutant(Code, "list-negative-accepted", "LV-05", "a negative max_entries is as good as none",
			requestWhen(func(q *csi.ListVolumesRequest) bool { return q.GetMaxEntries() < 0 }, func(q *csi.ListVolumesRequest) { q.MaxEntries = 0 })),
		mutant(Code, "snapshots-token-code", "LS-06", "an invalid starting_token: INTERNAL",
			code[*csi.ListSnapshotsRequest](codes.Aborted, codes.Internal)),
		mutant(Code, "health-list-token-code", "LH-06", "an invalid starting_token: INVALID_ARGUMENT",
			code[*csi.ControllerListVolumeHealthRequest](codes.Aborted, codes.InvalidArgument)),
		mutant(Code, "snapshots-unknown-id-code", "LS-07", "a filter for a snapshot that is not there: NOT_FOUND, not an empty list", func(r *Rig) {
			around(r, func(ctx context.Context, q *csi.ListSnapshotsRequest, next func(context.Context, *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error)) (*csi.ListSnapshotsResponse, error) {
				resp, err := next(ctx, q)
				if err == nil && q.GetSnapshotId() != "" && len(resp.GetEntries()) == 0 {
					return nil, status.Error(codes.NotFound, "no such snapshot")
				}
				return resp, err
			})
		}),
	}
}

// startsOver repeats a call that was ABORTED, changed.
func startsOver[Q proto.Message](edit func(Q)) func(*Rig) {
	return func(r *Rig) {
		around(r, func(ctx context.Context, q Q, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
			resp, err := next(ctx, q)
			if status.Code(err) != codes.Aborted {
				return resp, err
			}
			q = proto.Clone(q).(Q)
			edit(q)
			return next(ctx, q)
		})
	}
}

// codesOfSnapshots are wrong codes of snapshots and groups of them.
func codesOfSnapshots() []Mutant {
	type snapshotRequest = *csi.CreateSnapshotRequest
	return []Mutant{
		mutant(Code, "snapshot-name-taken-code", "CS-10", "a snapshot of another volume has the name: INTERNAL",
			code[snapshotRequest](codes.AlreadyExists, codes.Internal)),
		mutant(Code, "delete-snapshot-again-not-found", "DS-02", "deleting a snapshot that is gone: NOT_FOUND", func(r *Rig) {
			around(r, func(ctx context.Context, q *csi.DeleteSnapshotRequest, next func(context.Context, *csi.DeleteSnapshotRequest) (proto.Message, error)) (proto.Message, error) {
				list, err := r.controller().ListSnapshots(ctx, &csi.ListSnapshotsRequest{SnapshotId: q.GetSnapshotId()})
				if q.GetSnapshotId() != "" && err == nil && len(list.GetEntries()) == 0 {
					return nil, status.Error(codes.NotFound, "no such snapshot")
				}
				return next(ctx, q)
			})
		}),
		mutant(Code, "delete-member-code", "DS-04", "deleting a member of a group: FAILED_PRECONDITION",
			codeWhen(func(q *csi.DeleteSnapshotRequest) bool { return q.GetSnapshotId() != "" }, codes.InvalidArgument, codes.FailedPrecondition)),
		mutant(Code, "get-snapshot-missing-code", "GS-03", "getting an unknown snapshot: INTERNAL",
			code[*csi.GetSnapshotRequest](codes.NotFound, codes.Internal)),
		mutant(Code, "group-name-taken-code", "GV-13", "a group of other volumes has the name: FAILED_PRECONDITION",
			code[*csi.CreateVolumeGroupSnapshotRequest](codes.AlreadyExists, codes.FailedPrecondition)),
		mutant(Code, "delete-group-mismatch-code", "GX-05", "deleting a group with members that are not its own: INTERNAL",
			codeWhen(func(q *csi.DeleteVolumeGroupSnapshotRequest) bool { return q.GetGroupSnapshotId() != "" }, codes.InvalidArgument, codes.Internal)),
		mutant(Code, "get-group-missing-code", "GQ-02", "getting an unknown group: INTERNAL",
			code[*csi.GetVolumeGroupSnapshotRequest](codes.NotFound, codes.Internal)),
		mutant(Code, "metadata-missing-code", "SM-13", "the metadata of an unknown snapshot: INTERNAL",
			streamCode(codes.NotFound, codes.Internal)),
		mutant(Code, "metadata-offset-code", "SM-14", "an offset beyond the volume: INVALID_ARGUMENT",
			streamCode(codes.OutOfRange, codes.InvalidArgument)),
	}
}

// streamCode is code for both streams of metadata.
func streamCode(from, to codes.Code) func(*Rig) {
	return func(r *Rig) {
		streams(r, func(ctx context.Context, q proto.Message, send func(proto.Message) error, next nextStream) error {
			err := next(ctx, q, send)
			if status.Code(err) == from {
				return status.Error(to, status.Convert(err).Message())
			}
			return err
		})
	}
}

// streams intercepts both streams of metadata.
func streams(r *Rig, fn func(ctx context.Context, q proto.Message, send func(proto.Message) error, next nextStream) error) {
	for _, method := range []string{"GetMetadataAllocated", "GetMetadataDelta"} {
		r.stream = append(r.stream, streamInterceptor{method, fn})
	}
}
