package mutants

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// snapshots are faults of snapshots.
func snapshots() []Mutant {
	return append(snapshotsMade(), snapshotsListed()...)
}

func snapshotsMade() []Mutant {
	type q = *csi.CreateSnapshotRequest
	return []Mutant{
		mutant(Other, "snapshot-unserved", "CS-01 CC-02", "CREATE_DELETE_SNAPSHOT is advertised, CreateSnapshot is not there", unimplemented[q]()),
		mutant(Other, "delete-snapshot-unserved", "DS-01 CC-02", "CREATE_DELETE_SNAPSHOT is advertised, DeleteSnapshot is not there", unimplemented[*csi.DeleteSnapshotRequest]()),
		mutant(Other, "snapshot-again-another", "CS-02", "each call cuts a snapshot, also of the same name", func(r *Rig) {
			var n atomic.Int64
			request(func(q q) {
				if q.GetName() != "" && q.GetSourceVolumeId() != "" {
					q.Name = fmt.Sprintf("%s (%d)", strings.ToValidUTF8(q.GetName()[:min(len(q.GetName()), 110)], ""), n.Add(1))
				}
			})(r)
		}),
		mutant(Other, "snapshot-again-exists", "CS-02", "the same call again: ALREADY_EXISTS", again(q.GetName, codes.AlreadyExists)),
		mutant(Other, "snapshot-of-another", "CS-10", "a snapshot of another volume has the name: that one is answered",
			conflictIgnored(q.GetName, codes.AlreadyExists, func(q, first q) { q.SourceVolumeId = first.GetSourceVolumeId() })),
		mutant(Other, "snapshot-no-time", "CS-13 GEN-16", "a snapshot has no creation_time", snapshotsAs(func(s *csi.Snapshot) { s.CreationTime = nil })),
		mutant(Other, "snapshot-other-time", "CS-02 CS-13", "creation_time is that of the call, not of the cut", reply(
			func(_ q, r *csi.CreateSnapshotResponse) { r.GetSnapshot().CreationTime = timestamppb.Now() })),
		mutant(Other, "snapshot-no-source", "CS-13 GEN-16", "a snapshot has no source_volume_id", snapshotsAs(func(s *csi.Snapshot) { s.SourceVolumeId = "" })),
		mutant(Other, "snapshot-no-id", "CS-13 GEN-16", "a snapshot has no snapshot_id", reply(func(_ q, r *csi.CreateSnapshotResponse) { r.GetSnapshot().SnapshotId = "" })),
		mutant(Other, "snapshot-negative", "CS-14", "size_bytes is -1", snapshotsAs(func(s *csi.Snapshot) { s.SizeBytes = -1 })),
		mutant(Other, "snapshot-of-nothing", "CS-20", "a snapshot of an unknown volume is OK", func(r *Rig) {
			around(r, func(ctx context.Context, q q, next snapshotNext) (*csi.CreateSnapshotResponse, error) {
				if q.GetName() == "" || q.GetSourceVolumeId() == "" || r.exists(ctx, q.GetSourceVolumeId()) {
					return next(ctx, q)
				}
				return &csi.CreateSnapshotResponse{Snapshot: &csi.Snapshot{
					SnapshotId: "s-" + q.GetName(), SourceVolumeId: q.GetSourceVolumeId(), CreationTime: timestamppb.Now(), ReadyToUse: true,
				}}, nil
			})
		}),
		mutant(Other, "snapshots-same-id", "CS-15 CS-02", "two snapshots of a volume have one snapshot_id", func(r *Rig) {
			var first memory[string]
			request(func(q q) {
				if q.GetName() == "" {
					return
				}
				if name, ok := first.get(q.GetSourceVolumeId()); ok {
					q.Name = name
				} else {
					first.put(q.GetSourceVolumeId(), q.GetName())
				}
			})(r)
		}),
		mutant(Other, "delete-snapshot-does-nothing", "DS-01 DS-02 LS-02", "OK, and the snapshot is still there", refuseOK[*csi.DeleteSnapshotRequest](&csi.DeleteSnapshotResponse{})),
		mutant(Other, "delete-member-alone", "DS-04 CS-16", "a member of a group is deleted alone, with OK", codeWhen(
			func(q *csi.DeleteSnapshotRequest) bool { return q.GetSnapshotId() != "" }, codes.InvalidArgument, codes.OK)),
		mutant(Other, "delete-snapshot-refused", "DS-07 DS-01", "no snapshot can be deleted while its volume is there", deleteSnapshotRefused),
	}
}

func deleteSnapshotRefused(r *Rig) {
	var source memory[string]
	reply(func(q *csi.CreateSnapshotRequest, resp *csi.CreateSnapshotResponse) {
		source.put(resp.GetSnapshot().GetSnapshotId(), q.GetSourceVolumeId())
	})(r)
	refuse(func(q *csi.DeleteSnapshotRequest) bool {
		id, ok := source.get(q.GetSnapshotId())
		return ok && r.exists(context.Background(), id)
	}, codes.InvalidArgument, "delete the volume first")(r)
}

func snapshotsListed() []Mutant {
	type q = *csi.ListSnapshotsRequest
	type r = *csi.ListSnapshotsResponse
	all := func(q q) bool { return q.GetSnapshotId() == "" && q.GetSourceVolumeId() == "" }
	return []Mutant{
		mutant(Other, "snapshots-unserved", "LS-01 CC-02", "LIST_SNAPSHOTS is advertised, ListSnapshots is not there", unimplemented[q]()),
		mutant(Other, "snapshots-leaves-out", "LS-02", "an unfiltered list lacks its first snapshot", reply(func(q q, r r) {
			if all(q) && q.GetStartingToken() == "" && len(r.GetEntries()) > 0 {
				r.Entries = r.GetEntries()[1:]
			}
		})),
		mutant(Other, "snapshots-without-members", "LS-02", "members of groups are not listed", reply(func(_ q, r r) {
			r.Entries = without(r.GetEntries(), func(e *csi.ListSnapshotsResponse_Entry) bool { return e.GetSnapshot().GetGroupSnapshotId() != "" })
		})),
		mutant(Other, "snapshots-ignore-max", "LS-04", "max_entries does not matter", requestWhen(func(q q) bool { return q.GetMaxEntries() > 0 }, func(q q) { q.MaxEntries = 0 })),
		mutant(Other, "snapshots-no-token", "LS-05", "after a full page there is no next_token", reply(func(_ q, r r) { r.NextToken = "" })),
		mutant(Other, "snapshots-ignore-id", "LS-07", "a filter for one snapshot does not matter", request(func(q q) { q.SnapshotId = "" })),
		mutant(Other, "snapshots-ignore-source", "LS-08", "a filter for one volume does not matter", request(func(q q) { q.SourceVolumeId = "" })),
		mutant(Other, "snapshots-source-ignores-tokens", "LS-05 LS-08 LS-04", "with a filter each page is the first", requestWhen(
			func(q q) bool { return q.GetSourceVolumeId() != "" }, func(q q) { q.StartingToken = "" })),
		mutant(Other, "snapshots-never-ready", "LS-09 CS-05", "a snapshot that is ready is listed as not ready, for ever", func(r *Rig) {
			around(r, func(ctx context.Context, q q, next snapshotsNext) (*csi.ListSnapshotsResponse, error) {
				resp, err := next(ctx, q)
				if err == nil {
					eachSnapshot(resp, func(s *csi.Snapshot) { s.ReadyToUse = false })
				}
				return resp, err
			})
		}),
		mutant(Other, "get-snapshot-unserved", "GS-01 CC-02", "GET_SNAPSHOT is advertised, GetSnapshot is not there", unimplemented[*csi.GetSnapshotRequest]()),
		mutant(Other, "get-snapshot-another", "GS-01 CS-13", "GetSnapshot answers another source_volume_id", reply(
			func(_ *csi.GetSnapshotRequest, r *csi.GetSnapshotResponse) {
				r.GetSnapshot().SourceVolumeId = "v-other"
			})),
	}
}

// groups are faults of group snapshots.
func groups() []Mutant {
	type q = *csi.CreateVolumeGroupSnapshotRequest
	group := func(edit func(*csi.VolumeGroupSnapshot)) func(*Rig) {
		return both(
			reply(func(_ q, r *csi.CreateVolumeGroupSnapshotResponse) { edit(r.GetGroupSnapshot()) }),
			reply(func(_ *csi.GetVolumeGroupSnapshotRequest, r *csi.GetVolumeGroupSnapshotResponse) {
				edit(r.GetGroupSnapshot())
			}))
	}
	return []Mutant{
		mutant(Other, "group-unserved", "GV-01", "the capability is advertised, CreateVolumeGroupSnapshot is not there", unimplemented[q]()),
		mutant(Other, "group-again-another", "GV-03", "each call cuts a group, also of the same name", func(r *Rig) {
			var n atomic.Int64
			request(func(q q) {
				if q.GetName() != "" {
					q.Name = fmt.Sprintf("%.100s (%d)", q.GetName(), n.Add(1))
				}
			})(r)
		}),
		mutant(Other, "group-of-others", "GV-13", "a group of other volumes has the name: that one is answered",
			conflictIgnored(q.GetName, codes.AlreadyExists, func(q, first q) { q.SourceVolumeIds = first.GetSourceVolumeIds() })),
		mutant(Other, "group-no-time", "GV-06 GEN-16", "a group has no creation_time", group(func(g *csi.VolumeGroupSnapshot) { g.CreationTime = nil })),
		mutant(Other, "group-without-members", "GV-06 GEN-17", "a group has no snapshots", group(func(g *csi.VolumeGroupSnapshot) { g.Snapshots = nil })),
		mutant(Other, "group-one-member", "GV-06 GV-02 GV-11", "a group has a snapshot of its first volume alone", group(func(g *csi.VolumeGroupSnapshot) { g.Snapshots = g.GetSnapshots()[:min(1, len(g.GetSnapshots()))] })),
		mutant(Other, "group-ready-too-early", "GV-09", "a group is ready while a member is not", group(func(g *csi.VolumeGroupSnapshot) {
			g.ReadyToUse = true
			if len(g.GetSnapshots()) > 0 {
				g.GetSnapshots()[0].ReadyToUse = false
			}
		})),
		mutant(Other, "group-members-of-none", "GV-10 CS-16", "members have no group_snapshot_id", snapshotsAs(func(s *csi.Snapshot) { s.GroupSnapshotId = "" })),
		mutant(Other, "group-members-of-another", "GV-10", "members have another group_snapshot_id", group(func(g *csi.VolumeGroupSnapshot) {
			for _, s := range g.GetSnapshots() {
				s.GroupSnapshotId = "g-other"
			}
		})),
		mutant(Other, "group-delete-does-nothing", "GX-01", "OK, and the group and its members are still there", func(r *Rig) {
			around(r, func(ctx context.Context, q *csi.DeleteVolumeGroupSnapshotRequest, next func(context.Context, *csi.DeleteVolumeGroupSnapshotRequest) (proto.Message, error)) (proto.Message, error) {
				if q.GetGroupSnapshotId() == "" {
					return next(ctx, q)
				}
				return &csi.DeleteVolumeGroupSnapshotResponse{}, nil
			})
		}),
		mutant(Other, "group-delete-any-members", "GX-05", "a group is deleted, whatever members are named", request(func(q *csi.DeleteVolumeGroupSnapshotRequest) { q.SnapshotIds = nil })),
		mutant(Other, "group-get-any-members", "GQ-04", "a group is answered, whatever members are named", request(func(q *csi.GetVolumeGroupSnapshotRequest) { q.SnapshotIds = nil })),
		mutant(Other, "group-get-unserved", "GQ-01", "the capability is advertised, GetVolumeGroupSnapshot is not there", unimplemented[*csi.GetVolumeGroupSnapshotRequest]()),
		mutant(Other, "group-get-forgets-members", "GQ-01 GV-06", "GetVolumeGroupSnapshot answers no members", reply(
			func(_ *csi.GetVolumeGroupSnapshotRequest, r *csi.GetVolumeGroupSnapshotResponse) {
				r.GetGroupSnapshot().Snapshots = nil
			})),
	}
}
