package mutants

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

type (
	listNext      = func(context.Context, *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error)
	snapshotsNext = func(context.Context, *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error)
)

// lists are faults of ListVolumes and ControllerGetVolume.
func lists() []Mutant { return append(volumeLists(), volumeLooks()...) }

func volumeLists() []Mutant {
	type q = *csi.ListVolumesRequest
	type r = *csi.ListVolumesResponse
	return []Mutant{
		mutant(Other, "list-unserved", "LV-01 CC-02", "LIST_VOLUMES is advertised, ListVolumes is not there", unimplemented[q]()),
		mutant(Other, "list-leaves-last-out", "LV-02 LV-04", "the last entry of each page is left out", reply(func(_ q, r r) {
			if n := len(r.GetEntries()); n > 0 {
				r.Entries = r.GetEntries()[:n-1]
			}
		})),
		mutant(Other, "list-ignores-max", "LV-03", "max_entries does not matter", request(func(q q) {
			if q.GetMaxEntries() > 0 {
				q.MaxEntries = 0
			}
		})),
		mutant(Other, "list-no-token", "LV-04", "after a full page there is no next_token", reply(func(_ q, r r) { r.NextToken = "" })),
		mutant(Other, "list-never-ends", "LV-04 LV-02", "the token of the second page is its own again", reply(func(q q, r r) {
			if q.GetStartingToken() != "" {
				r.NextToken = q.GetStartingToken()
			}
		})),
		mutant(Other, "list-skips-after-delete", "LV-02 LV-04", "tokens are positions: after a deletion the next page leaves one out", positions),
		mutant(Other, "list-without-status", "LV-08", "entries have no status", reply(func(_ q, r r) {
			for _, e := range r.GetEntries() {
				e.Status = nil
			}
		})),
		mutant(Other, "list-without-nodes", "LV-08", "the nodes of an attached volume are not listed", reply(func(_ q, r r) {
			for _, e := range r.GetEntries() {
				if e.GetStatus() != nil {
					e.GetStatus().PublishedNodeIds = nil
				}
			}
		})),
		mutant(Other, "list-entry-empty", "LV-07 GEN-16", "an entry has no volume", reply(func(_ q, r r) {
			if len(r.GetEntries()) > 0 {
				r.GetEntries()[0].Volume = nil
			}
		})),
		mutant(Other, "list-twice", "LV-02 LV-04", "one volume is listed twice", reply(func(_ q, r r) {
			if len(r.GetEntries()) > 0 {
				r.Entries = append(r.GetEntries(), proto.Clone(r.GetEntries()[0]).(*csi.ListVolumesResponse_Entry))
			}
		})),
	}
}

func volumeLooks() []Mutant {
	type q = *csi.ListVolumesRequest
	return []Mutant{
		mutant(Other, "list-old", "LV-02", "the list is three seconds old", listOld),
		mutant(Other, "list-attached-only", "LV-02", "only volumes that were attached once are listed", func(r *Rig) {
			var attached memory[bool]
			reply(func(q *csi.ControllerPublishVolumeRequest, _ *csi.ControllerPublishVolumeResponse) {
				attached.put(q.GetVolumeId(), true)
			})(r)
			reply(func(_ q, resp *csi.ListVolumesResponse) {
				resp.Entries = without(resp.GetEntries(), func(e *csi.ListVolumesResponse_Entry) bool {
					_, ok := attached.get(e.GetVolume().GetVolumeId())
					return !ok
				})
			})(r)
		}),
		mutant(Other, "published-nodes-unattachable", "LV-09", "LIST_VOLUMES_PUBLISHED_NODES without PUBLISH_UNPUBLISH_VOLUME", func(r *Rig) {
			r.Mem.Without = append(r.Mem.Without, "Attacher")
			addControllerCapability(csi.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES)(r)
		}),
		mutant(Other, "get-volume-unserved", "CG-01 CC-02", "GET_VOLUME is advertised, ControllerGetVolume is not there", unimplemented[*csi.ControllerGetVolumeRequest]()),
		mutant(Other, "get-volume-without-status", "CG-05 GEN-16", "a volume has no status", reply(
			func(_ *csi.ControllerGetVolumeRequest, r *csi.ControllerGetVolumeResponse) { r.Status = nil })),
		mutant(Other, "get-volume-without-nodes", "CG-06", "the nodes of an attached volume are not answered", reply(
			func(_ *csi.ControllerGetVolumeRequest, r *csi.ControllerGetVolumeResponse) {
				if r.GetStatus() != nil {
					r.GetStatus().PublishedNodeIds = nil
				}
			})),
		mutant(Other, "get-volume-old-size", "CG-02 CE-05", "a volume that has grown has its old size", func(r *Rig) {
			var sizes memory[int64]
			reply(func(_ *csi.CreateVolumeRequest, resp *csi.CreateVolumeResponse) {
				sizes.put(resp.GetVolume().GetVolumeId(), resp.GetVolume().GetCapacityBytes())
			})(r)
			volumesAs(func(v *csi.Volume) {
				if size, ok := sizes.get(v.GetVolumeId()); ok {
					v.CapacityBytes = size
				}
			})(r)
		}),
	}
}

// positions makes pages by position, of a list that is looked at anew for each.
func positions(r *Rig) {
	around(r, func(ctx context.Context, q *csi.ListVolumesRequest, next listNext) (*csi.ListVolumesResponse, error) {
		at, err := strconv.Atoi(q.GetStartingToken())
		if q.GetStartingToken() != "" && err != nil || q.GetMaxEntries() < 0 {
			return next(ctx, q)
		}
		resp, err := next(ctx, &csi.ListVolumesRequest{})
		if err != nil {
			return nil, err
		}
		all := resp.GetEntries()
		at = min(max(at, 0), len(all))
		end := len(all)
		if q.GetMaxEntries() > 0 {
			end = min(at+int(q.GetMaxEntries()), len(all))
		}
		page := &csi.ListVolumesResponse{Entries: slices.Clone(all[at:end])}
		if end < len(all) {
			page.NextToken = strconv.Itoa(end)
		}
		return page, nil
	})
}

func listOld(r *Rig) {
	var last memory[*csi.ListVolumesResponse]
	var when memory[time.Time]
	around(r, func(ctx context.Context, q *csi.ListVolumesRequest, next listNext) (*csi.ListVolumesResponse, error) {
		key := q.String()
		if t, ok := when.get(key); ok && time.Since(t) < 3*time.Second {
			resp, _ := last.get(key)
			return resp, nil
		}
		resp, err := next(ctx, q)
		if err == nil {
			last.put(key, resp)
			when.put(key, time.Now())
		}
		return resp, err
	})
}

// capacity are faults of GetCapacity.
func capacity() []Mutant {
	type q = *csi.GetCapacityRequest
	type r = *csi.GetCapacityResponse
	return []Mutant{
		mutant(Other, "capacity-unserved", "GC-01 CC-02", "GET_CAPACITY is advertised, GetCapacity is not there", unimplemented[q]()),
		mutant(Other, "capacity-any-capability", "GC-02", "there is room for volumes that are not supported", request(func(q q) { q.VolumeCapabilities = nil })),
		mutant(Other, "capacity-any-parameters", "GC-03", "there is room for volumes of parameters that create refuses", request(func(q q) { q.Parameters = nil })),
		mutant(Other, "capacity-anywhere", "GC-04", "there is room in places that do not exist", request(func(q q) { q.AccessibleTopology = nil })),
		mutant(Other, "capacity-negative", "GC-05", "available_capacity is -1", reply(func(_ q, r r) { r.AvailableCapacity = -1 })),
		mutant(Other, "capacity-maximum-negative", "GC-06", "maximum_volume_size is -1", reply(func(_ q, r r) {
			if r.GetMaximumVolumeSize() != nil {
				r.MaximumVolumeSize.Value = -1
			}
		})),
		mutant(Other, "capacity-topology-unadvertised", "GC-08", "a topology is ignored without VOLUME_ACCESSIBILITY_CONSTRAINTS", both(withoutTopology,
			request(func(q q) { q.AccessibleTopology = nil }))),
		mutant(Other, "capacity-topology-code", "GC-04 GC-01", "any topology: INVALID_ARGUMENT, though constraints are advertised", refuse(
			func(q q) bool { return q.GetAccessibleTopology() != nil }, codes.InvalidArgument, "topology is not supported")),
	}
}
