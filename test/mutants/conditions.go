package mutants

import (
	"context"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// conditions are faults that show beside something else: a volume with snapshots, a
// snapshot with copies, a second node, place or target.
func conditions() []Mutant {
	return append(conditionsOfVolumes(), conditionsOfSnapshots()...)
}

func conditionsOfVolumes() []Mutant {
	type q = *csi.CreateVolumeRequest
	return []Mutant{
		mutant(Other, "topology-first-alone", "CV-29 CV-30", "of several places the first alone is tried", request(func(q q) {
			r := q.GetAccessibilityRequirements()
			if len(r.GetPreferred()) > 0 {
				r.Requisite, r.Preferred = r.GetPreferred()[:1], nil
			} else if len(r.GetRequisite()) > 1 {
				r.Requisite = r.GetRequisite()[:1]
			}
		})),
		mutant(Other, "create-any-capability-again", "CV-35", "a volume of that name is answered, whatever its capabilities", remembering(createName,
			func(ctx context.Context, first, q q, err error, next func(context.Context, q) (proto.Message, error)) (proto.Message, error) {
				if c := status.Code(err); c != codes.AlreadyExists && c != codes.InvalidArgument {
					return nil, err
				}
				q = proto.Clone(q).(*csi.CreateVolumeRequest)
				q.VolumeCapabilities = first.GetVolumeCapabilities()
				return next(ctx, q)
			})),
		mutant(Other, "delete-with-snapshots-half", "DV-06", "a volume with snapshots is FAILED_PRECONDITION, and gone", deletedByHalf),
		mutant(Other, "attach-second-node", "CP-14 CP-11", "a single-node volume is attached to a second node too, whoever that is", attachedTwice),
		mutant(Code, "detach-missing-internal", "CU-07 CU-03", "a volume that is not there is to be detached: INTERNAL", func(r *Rig) {
			around(r, func(ctx context.Context, q *csi.ControllerUnpublishVolumeRequest, next func(context.Context, *csi.ControllerUnpublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
				if q.GetVolumeId() != "" && !r.exists(ctx, q.GetVolumeId()) {
					return nil, status.Errorf(codes.Internal, "volume %s: no rows in result set", q.GetVolumeId())
				}
				return next(ctx, q)
			})
		}),
		mutant(Code, "modify-nothing-internal", "MV-04", "no mutable_parameters: INTERNAL", refuse(
			func(q *csi.ControllerModifyVolumeRequest) bool {
				return q.GetVolumeId() != "" && len(q.GetMutableParameters()) == 0
			}, codes.Internal, "nothing to modify")),
		mutant(Other, "second-target-empty", "NP-11", "a second target of a SINGLE_NODE_SINGLE_WRITER volume: OK, and nothing is there", codeWhen(
			func(q *csi.NodePublishVolumeRequest) bool {
				return q.GetVolumeCapability().GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
			}, codes.FailedPrecondition, codes.OK)),
		mutant(Other, "mount-group-ignored", "NS-12 NS-13", "volume_mount_group does not matter", both(
			request(func(q *csi.NodeStageVolumeRequest) { noGroup(q.GetVolumeCapability()) }),
			request(func(q *csi.NodePublishVolumeRequest) { noGroup(q.GetVolumeCapability()) }))),
		mutant(Other, "mount-group-first", "NS-12", "the first volume_mount_group of a volume is its group for ever", firstGroup),
		mutant(Other, "mount-group-refuses-next", "NS-12", "another volume_mount_group than the first: INVALID_ARGUMENT", nextGroupRefused),
		mutant(Other, "mount-group-next-empty", "NU-02 NS-06", "a volume of another volume_mount_group is a new one, and empty", nextGroupEmpty),
	}
}

// firstGroup looks whether a volume has a group, and not which one.
func firstGroup(r *Rig) {
	var first memory[string]
	as := func(id string, c *csi.VolumeCapability) {
		m := c.GetMount()
		if m.GetVolumeMountGroup() == "" {
			return
		}
		if was, ok := first.get(id); ok {
			m.VolumeMountGroup = was
		}
		first.put(id, m.GetVolumeMountGroup())
	}
	request(func(q *csi.NodeStageVolumeRequest) { as(q.GetVolumeId(), q.GetVolumeCapability()) })(r)
	request(func(q *csi.NodePublishVolumeRequest) { as(q.GetVolumeId(), q.GetVolumeCapability()) })(r)
}

// nextGroupRefused keeps the group with the volume.
func nextGroupRefused(r *Rig) {
	var first memory[string]
	group := func(q *csi.NodeStageVolumeRequest) string {
		return q.GetVolumeCapability().GetMount().GetVolumeMountGroup()
	}
	reply(func(q *csi.NodeStageVolumeRequest, _ *csi.NodeStageVolumeResponse) {
		if _, ok := first.get(q.GetVolumeId()); !ok && group(q) != "" {
			first.put(q.GetVolumeId(), group(q))
		}
	})(r)
	refuse(func(q *csi.NodeStageVolumeRequest) bool {
		was, ok := first.get(q.GetVolumeId())
		return ok && group(q) != "" && group(q) != was
	}, codes.InvalidArgument, "the volume is of another group")(r)
}

// nextGroupEmpty loses what was there under the group before.
func nextGroupEmpty(r *Rig) {
	var first memory[string]
	reply(func(q *csi.NodePublishVolumeRequest, _ *csi.NodePublishVolumeResponse) {
		group := q.GetVolumeCapability().GetMount().GetVolumeMountGroup()
		was, ok := first.get(q.GetVolumeId())
		if group == "" || ok && was == group {
			return
		}
		first.put(q.GetVolumeId(), group)
		if ok {
			r.note(emptyDir(q.GetTargetPath()))
		}
	})(r)
}

func noGroup(c *csi.VolumeCapability) {
	if m := c.GetMount(); m != nil {
		m.VolumeMountGroup = ""
	}
}

// attachedTwice does not look whether another node has the volume.
func attachedTwice(r *Rig) {
	var at memory[string]
	around(r, func(ctx context.Context, q *csi.ControllerPublishVolumeRequest, next func(context.Context, *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error)) (*csi.ControllerPublishVolumeResponse, error) {
		if node, ok := at.get(q.GetVolumeId()); ok && node != q.GetNodeId() && q.GetNodeId() != "" {
			return &csi.ControllerPublishVolumeResponse{}, nil
		}
		resp, err := next(ctx, q)
		if err == nil {
			at.put(q.GetVolumeId(), q.GetNodeId())
		}
		return resp, err
	})
	reply(func(q *csi.ControllerUnpublishVolumeRequest, _ *csi.ControllerUnpublishVolumeResponse) {
		at.drop(q.GetVolumeId())
	})(r)
}

// deletedByHalf finds the snapshots when it has begun.
func deletedByHalf(r *Rig) {
	around(r, func(ctx context.Context, q *csi.DeleteVolumeRequest, next deleteNext) (*csi.DeleteVolumeResponse, error) {
		if q.GetVolumeId() == "" || r.isHidden(q.GetVolumeId()) {
			return next(ctx, q)
		}
		list, err := r.controller().ListSnapshots(ctx, &csi.ListSnapshotsRequest{SourceVolumeId: q.GetVolumeId()})
		if err == nil && len(list.GetEntries()) > 0 {
			r.hide(q.GetVolumeId(), 0)
			return nil, status.Errorf(codes.FailedPrecondition, "volume %s has %d snapshots", q.GetVolumeId(), len(list.GetEntries()))
		}
		return next(ctx, q)
	})
	hideVolumes(r)
}

func conditionsOfSnapshots() []Mutant {
	return []Mutant{
		mutant(Other, "snapshot-busy-internal", "CS-04 CS-02", "a snapshot that is being copied is not ready, and asked about it is INTERNAL", func(r *Rig) {
			var seen memory[bool]
			around(r, func(ctx context.Context, q *csi.CreateSnapshotRequest, next func(context.Context, *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error)) (*csi.CreateSnapshotResponse, error) {
				if _, ok := seen.get(q.GetName()); ok {
					return nil, status.Errorf(codes.Internal, "snapshot %q is being copied", q.GetName())
				}
				resp, err := next(ctx, q)
				if err == nil {
					seen.put(q.GetName(), true)
					resp.GetSnapshot().ReadyToUse = false
				}
				return resp, err
			})
		}),
		mutant(Code, "delete-used-snapshot-internal", "DS-05", "a snapshot of which a volume was made is not deleted: INTERNAL", func(r *Rig) {
			used := usedSnapshots(r)
			refuse(func(q *csi.DeleteSnapshotRequest) bool { return used(q.GetSnapshotId()) }, codes.Internal, "snapshot has dependent clones")(r)
		}),
		mutant(Code, "delete-used-group-internal", "GX-06", "a group of which a volume was made is not deleted: INTERNAL", func(r *Rig) {
			used := usedSnapshots(r)
			refuse(func(q *csi.DeleteVolumeGroupSnapshotRequest) bool {
				return slices.ContainsFunc(q.GetSnapshotIds(), used)
			}, codes.Internal, "snapshot has dependent clones")(r)
		}),
		mutant(Code, "group-delete-nothing-internal", "GX-04", "no snapshot_ids: INTERNAL", refuse(
			func(q *csi.DeleteVolumeGroupSnapshotRequest) bool {
				return q.GetGroupSnapshotId() != "" && len(q.GetSnapshotIds()) == 0
			}, codes.Internal, "nothing to delete")),
		mutant(Other, "group-leaves-missing-out", "GV-04 GV-11", "a group of volumes of which one is not there is one of the others", func(r *Rig) {
			around(r, func(ctx context.Context, q *csi.CreateVolumeGroupSnapshotRequest, next func(context.Context, *csi.CreateVolumeGroupSnapshotRequest) (proto.Message, error)) (proto.Message, error) {
				q = proto.Clone(q).(*csi.CreateVolumeGroupSnapshotRequest)
				if there := without(q.GetSourceVolumeIds(), func(id string) bool { return !r.exists(ctx, id) }); len(there) > 0 {
					q.SourceVolumeIds = there
				}
				return next(ctx, q)
			})
		}),
		mutant(Other, "group-members-no-source", "GV-17", "no volume can be made of a group's snapshot", func(r *Rig) {
			var member memory[bool]
			reply(func(_ *csi.CreateVolumeGroupSnapshotRequest, resp *csi.CreateVolumeGroupSnapshotResponse) {
				for _, s := range resp.GetGroupSnapshot().GetSnapshots() {
					member.put(s.GetSnapshotId(), true)
				}
			})(r)
			refuse(func(q *csi.CreateVolumeRequest) bool {
				_, ok := member.get(q.GetVolumeContentSource().GetSnapshot().GetSnapshotId())
				return ok
			}, codes.InvalidArgument, "the snapshot is a group's")(r)
		}),
	}
}

// usedSnapshots notes of which snapshots volumes are made, and tells.
func usedSnapshots(r *Rig) func(id string) bool {
	var of memory[bool]
	reply(func(q *csi.CreateVolumeRequest, _ *csi.CreateVolumeResponse) {
		if id := q.GetVolumeContentSource().GetSnapshot().GetSnapshotId(); id != "" {
			of.put(id, true)
		}
	})(r)
	return func(id string) bool {
		_, ok := of.get(id)
		return ok
	}
}
