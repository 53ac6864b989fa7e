package mutants

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// creates are faults of making and deleting volumes.
func creates() []Mutant {
	type q = *csi.CreateVolumeRequest
	edit := func(edit func(*csi.Volume)) func(*Rig) {
		return reply(func(_ q, resp *csi.CreateVolumeResponse) { edit(resp.GetVolume()) })
	}
	ignored := func(like func(q, first q)) func(*Rig) { return conflictIgnored(createName, codes.AlreadyExists, like) }
	return []Mutant{
		mutant(Other, "create-unimplemented", "CV-01 CC-02", "CREATE_DELETE_VOLUME is advertised, CreateVolume is not there", unimplemented[q]()),
		mutant(Other, "delete-unimplemented", "DV-01 CC-02", "CREATE_DELETE_VOLUME is advertised, DeleteVolume is not there", unimplemented[*csi.DeleteVolumeRequest]()),
		mutant(Other, "create-again-another", "CV-02 CV-03", "each create makes a volume, also of the same name", createAgainAnother),
		mutant(Other, "create-again-exists", "CV-02", "the same create again: ALREADY_EXISTS", again(createName, codes.AlreadyExists)),
		mutant(Other, "create-any-size", "CV-34", "a volume of that name is answered, whatever its size", ignored(func(q, first q) { q.CapacityRange = first.GetCapacityRange() })),
		mutant(Other, "create-any-parameters", "CV-36", "a volume of that name is answered, whatever its parameters", ignored(func(q, first q) {
			q.Parameters, q.MutableParameters = first.GetParameters(), first.GetMutableParameters()
		})),
		mutant(Other, "create-any-topology", "CV-37", "a volume of that name is answered, wherever it is", ignored(func(q, first q) { q.AccessibilityRequirements = first.GetAccessibilityRequirements() })),
		mutant(Other, "create-any-source", "CV-38", "a volume of that name is answered, whatever it was made of", ignored(func(q, first q) { q.VolumeContentSource = first.GetVolumeContentSource() })),
		mutant(Other, "create-any-capability", "CV-15 CV-14", "block volumes are made, as directories", request(func(q q) {
			for i, c := range q.GetVolumeCapabilities() {
				if c.GetBlock() != nil {
					q.VolumeCapabilities[i] = mountCapability()
				}
			}
		})),
		mutant(Other, "create-first-capability", "CV-14 CV-15", "only the first capability is looked at", requestWhen(
			func(q q) bool { return len(q.GetVolumeCapabilities()) > 1 }, func(q q) { q.VolumeCapabilities = q.GetVolumeCapabilities()[:1] })),
		mutant(Other, "create-mutable-unadvertised", "CV-19", "mutable parameters are taken without MODIFY_VOLUME", func(r *Rig) {
			r.Mem.Without = append(r.Mem.Without, "Modifier")
			request(func(q q) { q.MutableParameters = nil })(r)
		}),
		mutant(Other, "create-any-mutable", "CV-18 GEN-09", "mutable parameters that nobody knows are ignored", requestWhen(always, func(q q) { knownMutable(q.GetMutableParameters()) })),
		mutant(Other, "create-range-empty", "CV-11", "a capacity_range of no bytes is the default", requestWhen(
			func(q q) bool {
				return q.GetCapacityRange() != nil && q.GetCapacityRange().GetLimitBytes() == 0 && q.GetCapacityRange().GetRequiredBytes() == 0
			},
			func(q q) { q.CapacityRange = nil })),
		mutant(Other, "restore-unserved", "CV-20", "CREATE_DELETE_SNAPSHOT is advertised, nothing can be restored", refuse(
			func(q q) bool { return q.GetVolumeContentSource().GetSnapshot().GetSnapshotId() != "" }, codes.InvalidArgument, "content sources are not supported")),
		mutant(Other, "clone-unserved", "CV-21 CC-02", "CLONE_VOLUME is advertised, nothing can be cloned", refuse(
			func(q q) bool { return q.GetVolumeContentSource().GetVolume().GetVolumeId() != "" }, codes.Unimplemented, "not implemented")),
		mutant(Other, "clone-unadvertised-empty", "CV-22", "CLONE_VOLUME is not there, and a clone is an empty volume", func(r *Rig) {
			r.Mem.Without = append(r.Mem.Without, "Cloner")
			requestWhen(func(q q) bool { return q.GetVolumeContentSource().GetVolume() != nil }, func(q q) { q.VolumeContentSource = nil })(r)
		}),
		mutant(Other, "content-source-missing", "CV-45", "a clone's content_source is not answered", volumesAs(func(v *csi.Volume) { v.ContentSource = nil })),
		mutant(Other, "create-no-volume", "CV-39 GEN-16", "OK without a volume", reply(func(_ q, resp *csi.CreateVolumeResponse) { resp.Volume = nil })),
		mutant(Other, "create-no-id", "CV-39 GEN-16", "OK without a volume_id", edit(func(v *csi.Volume) { v.VolumeId = "" })),
		mutant(Other, "create-context-changes", "CV-42", "volume_context is another at each call", func(r *Rig) {
			var n atomic.Int64
			volumesAs(func(v *csi.Volume) { v.VolumeContext = map[string]string{"call": fmt.Sprint(n.Add(1))} })(r)
		}),
		mutant(Other, "create-smaller-than-source", "CV-26", "a volume smaller than its snapshot is made", request(func(q q) {
			if q.GetVolumeContentSource().GetSnapshot() != nil {
				q.CapacityRange = nil
			}
		})),
		mutant(Other, "delete-does-nothing", "DV-01 DV-02 LV-02", "OK, and the volume is still there", refuseOK[*csi.DeleteVolumeRequest](&csi.DeleteVolumeResponse{})),
		mutant(Other, "delete-in-use", "DV-07", "a volume that is in use is deleted", deleteInUse),
		mutant(Other, "delete-takes-snapshots", "DV-05 DV-04", "with a volume go its snapshots", deleteTakesSnapshots),
	}
}

// knownMutable leaves out the parameters that package mem does not know.
func knownMutable(m map[string]string) {
	for k := range m {
		if k != "tier" && k != "cache" {
			delete(m, k)
		}
	}
}

// again refuses what was OK before.
func again[Q proto.Message](key func(Q) string, with codes.Code) func(*Rig) {
	return func(r *Rig) {
		var done memory[bool]
		around(r, func(ctx context.Context, q Q, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
			if _, ok := done.get(key(q)); ok {
				return nil, status.Errorf(with, "%q was done already", key(q))
			}
			resp, err := next(ctx, q)
			if err == nil && key(q) != "" {
				done.put(key(q), true)
			}
			return resp, err
		})
	}
}

// refuseOK answers OK to all that the driver behind would not call invalid.
func refuseOK[Q proto.Message](resp proto.Message) func(*Rig) {
	return func(r *Rig) {
		around(r, func(ctx context.Context, q Q, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
			if stringField(q, "volume_id") == "" && stringField(q, "snapshot_id") == "" {
				return next(ctx, q)
			}
			return resp, nil
		})
	}
}

func createAgainAnother(r *Rig) {
	var n atomic.Int64
	request(func(q *csi.CreateVolumeRequest) {
		if q.GetName() != "" && len(q.GetName()) <= 128 {
			q.Name = fmt.Sprintf("%s (%d)", strings.ToValidUTF8(q.GetName()[:min(len(q.GetName()), 110)], ""), n.Add(1))
		}
	})(r)
}

// deleteInUse undoes what stands in the way.
func deleteInUse(r *Rig) {
	around(r, func(ctx context.Context, q *csi.DeleteVolumeRequest, next deleteNext) (*csi.DeleteVolumeResponse, error) {
		resp, err := next(ctx, q)
		if status.Code(err) != codes.FailedPrecondition {
			return resp, err
		}
		r.hide(q.GetVolumeId(), 0)
		return &csi.DeleteVolumeResponse{}, nil
	})
	hideVolumes(r)
}

func deleteTakesSnapshots(r *Rig) {
	var of memory[[]string]
	reply(func(q *csi.CreateSnapshotRequest, resp *csi.CreateSnapshotResponse) {
		ids, _ := of.get(q.GetSourceVolumeId())
		if id := resp.GetSnapshot().GetSnapshotId(); !slices.Contains(ids, id) {
			of.put(q.GetSourceVolumeId(), append(ids, id))
		}
	})(r)
	reply(func(q *csi.DeleteVolumeRequest, _ *csi.DeleteVolumeResponse) {
		ids, _ := of.get(q.GetVolumeId())
		for _, id := range ids {
			_, err := r.controller().DeleteSnapshot(context.Background(), &csi.DeleteSnapshotRequest{SnapshotId: id})
			r.note(err)
		}
	})(r)
}

// names are faults with names of volumes and snapshots.
func names() []Mutant {
	ascii := func(s string) bool { return strings.IndexFunc(s, func(c rune) bool { return c > 0x7e || c < ' ' }) < 0 }
	return []Mutant{
		mutant(Other, "name-ascii-only", "CV-06", "a name that is not ASCII: INVALID_ARGUMENT", refuse(
			func(q *csi.CreateVolumeRequest) bool { return !ascii(q.GetName()) }, codes.InvalidArgument, "bad name")),
		mutant(Other, "name-short-only", "CV-06", "a name of more than 63 bytes: INVALID_ARGUMENT", refuse(
			func(q *csi.CreateVolumeRequest) bool { return len(q.GetName()) > 63 }, codes.InvalidArgument, "the name is too long")),
		mutant(Other, "name-no-slash", "CV-06", "a name with a slash: INVALID_ARGUMENT", refuse(
			func(q *csi.CreateVolumeRequest) bool { return strings.ContainsAny(q.GetName(), "/ ") }, codes.InvalidArgument, "bad name")),
		mutant(Other, "name-truncated", "CV-06 CV-40 CV-02", "names that begin with the same 40 bytes are the same", request(
			func(q *csi.CreateVolumeRequest) {
				q.Name = strings.ToValidUTF8(q.GetName()[:min(len(q.GetName()), 40)], "")
			})),
		mutant(Other, "name-case-folded", "CV-06 CV-40 CV-02", "names that differ in case are the same", request(
			func(q *csi.CreateVolumeRequest) { q.Name = strings.ToLower(q.GetName()) })),
		mutant(Other, "snapshot-name-ascii-only", "CS-09", "a name that is not ASCII: INVALID_ARGUMENT", refuse(
			func(q *csi.CreateSnapshotRequest) bool { return !ascii(q.GetName()) }, codes.InvalidArgument, "bad name")),
		mutant(Other, "snapshot-name-short-only", "CS-09", "a name of more than 63 bytes: INVALID_ARGUMENT", refuse(
			func(q *csi.CreateSnapshotRequest) bool { return len(q.GetName()) > 63 }, codes.InvalidArgument, "the name is too long")),
	}
}
