package mutants

import (
	"context"
	"strings"
	"sync/atomic"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

type healthEntry = csi.VolumeHealth_VolumeHealthEntry

// degraded is something to be wrong with a volume.
func degraded() *healthEntry {
	return &healthEntry{Status: csi.VolumeHealthErrorType_DEGRADED, Reason: "Rebuilding", Message: "a disk is being replaced"}
}

// sick has the list of ill volumes name all that there are, with these conditions.
func sick(conditions ...*healthEntry) func(*Rig) {
	return func(r *Rig) {
		around(r, func(ctx context.Context, q *csi.ControllerListVolumeHealthRequest, next func(context.Context, *csi.ControllerListVolumeHealthRequest) (*csi.ControllerListVolumeHealthResponse, error)) (*csi.ControllerListVolumeHealthResponse, error) {
			resp, err := next(ctx, q)
			if err != nil || q.GetStartingToken() != "" {
				return resp, err
			}
			all, err := r.controller().ListVolumes(ctx, &csi.ListVolumesRequest{})
			if err != nil {
				return nil, err
			}
			for _, v := range all.GetEntries() {
				resp.Entries = append(resp.GetEntries(), &csi.VolumeHealth{VolumeId: v.GetVolume().GetVolumeId(), HealthStatuses: conditions})
			}
			return resp, nil
		})
	}
}

// health are faults of what is said of ill volumes.
func health() []Mutant {
	type get = *csi.ControllerGetVolumeHealthRequest
	type nodeGet = *csi.NodeGetVolumeHealthRequest
	ill := func(list ...*healthEntry) *csi.VolumeHealth { return &csi.VolumeHealth{HealthStatuses: list} }
	return []Mutant{
		mutant(Other, "health-unserved", "GH-01 CC-02", "GET_VOLUME_HEALTH is advertised, ControllerGetVolumeHealth is not there", unimplemented[get]()),
		mutant(Other, "health-list-unserved", "LH-01 CC-02", "LIST_VOLUME_HEALTH is advertised, ControllerListVolumeHealth is not there", unimplemented[*csi.ControllerListVolumeHealthRequest]()),
		mutant(Other, "health-list-without-get", "LH-02 GH-01", "LIST_VOLUME_HEALTH without GET_VOLUME_HEALTH", both(
			dropControllerCapability(csi.ControllerServiceCapability_RPC_GET_VOLUME_HEALTH), unimplemented[get]())),
		mutant(Other, "health-empty", "GH-05 GEN-16", "OK without volume_health", reply(func(_ get, r *csi.ControllerGetVolumeHealthResponse) { r.VolumeHealth = nil })),
		mutant(Other, "health-twice", "LH-07", "a condition of a volume is told twice", both(sick(degraded(), degraded()),
			reply(func(q get, r *csi.ControllerGetVolumeHealthResponse) {
				r.VolumeHealth = ill(degraded(), degraded())
				r.VolumeHealth.VolumeId = q.GetVolumeId()
			}))),
		mutant(Other, "health-no-reason", "LH-08 GEN-16", "a condition has no reason", sick(&healthEntry{Status: csi.VolumeHealthErrorType_DEGRADED})),
		mutant(Other, "health-no-id", "LH-08 GEN-16", "a condition has no volume_id", reply(func(_ *csi.ControllerListVolumeHealthRequest, r *csi.ControllerListVolumeHealthResponse) {
			r.Entries = append(r.GetEntries(), ill(degraded()))
		})),
		mutant(Other, "health-list-ignores-max", "LH-05", "all volumes are ill, and max_entries does not matter", sick(degraded())),
		mutant(Other, "node-health-unserved", "NH-01 NC-02", "GET_VOLUME_HEALTH is advertised, NodeGetVolumeHealth is not there", unimplemented[nodeGet]()),
		mutant(Other, "node-health-empty", "NH-05 GEN-16", "OK without volume_health", reply(func(_ nodeGet, r *csi.NodeGetVolumeHealthResponse) { r.VolumeHealth = nil })),
		mutant(Other, "node-health-twice", "NH-05", "a condition is told twice", reply(func(q nodeGet, r *csi.NodeGetVolumeHealthResponse) {
			r.VolumeHealth = ill(degraded(), degraded())
			r.VolumeHealth.VolumeId = q.GetVolumeId()
		})),
		mutant(Other, "storage-health-unserved", "NT-01 NC-02", "GET_STORAGE_HEALTH is advertised, NodeGetStorageHealth is not there", unimplemented[*csi.NodeGetStorageHealthRequest]()),
		mutant(Other, "storage-health-no-status", "NT-02 GEN-16", "a condition has neither status nor reason", storageIll(1, &csi.NodeGetStorageHealthResponse_StorageBackendHealth{Message: "slow"})),
		mutant(Other, "storage-health-twice", "NT-03", "a condition is told twice", storageIll(2, &csi.NodeGetStorageHealthResponse_StorageBackendHealth{
			Status: csi.StorageHealthErrorType_STORAGE_DEGRADED, Reason: "PathLost"})),
	}
}

func storageIll(times int, h *csi.NodeGetStorageHealthResponse_StorageBackendHealth) func(*Rig) {
	return reply(func(_ *csi.NodeGetStorageHealthRequest, r *csi.NodeGetStorageHealthResponse) {
		for range times {
			r.BackendHealth = append(r.GetBackendHealth(), h)
		}
	})
}

// modify are faults of ControllerModifyVolume.
func modify() []Mutant {
	type q = *csi.ControllerModifyVolumeRequest
	return []Mutant{
		mutant(Other, "modify-unserved", "MV-01 CC-02", "MODIFY_VOLUME is advertised, ControllerModifyVolume is not there", unimplemented[q]()),
		mutant(Other, "modify-again-fails", "MV-02", "the same call again: ALREADY_EXISTS", again(func(q q) string {
			if len(q.GetMutableParameters()) == 0 {
				return ""
			}
			return q.GetVolumeId() + strings.Join(strings.Fields(q.String()), " ")
		}, codes.AlreadyExists)),
		mutant(Other, "modify-anything", "MV-06 GEN-09", "parameters that nobody knows are ignored", request(func(q q) { ignoreUnknown(q.GetMutableParameters()) })),
		mutant(Other, "modify-any-volume", "MV-08", "modifying an unknown volume: OK", codeWhen(
			func(q q) bool { return len(q.GetMutableParameters()) > 0 }, codes.NotFound, codes.OK)),
	}
}

// ignoreUnknown leaves something to do.
func ignoreUnknown(m map[string]string) {
	n := len(m)
	knownMutable(m)
	if n > 0 && len(m) == 0 {
		m["tier"] = "standard"
	}
}

// stats are faults of NodeGetVolumeStats and NodeGetInfo.
func stats() []Mutant {
	type q = *csi.NodeGetVolumeStatsRequest
	type r = *csi.NodeGetVolumeStatsResponse
	info := func(edit func(*csi.NodeGetInfoResponse)) func(*Rig) {
		return reply(func(_ *csi.NodeGetInfoRequest, r *csi.NodeGetInfoResponse) { edit(r) })
	}
	usage := func(edit func(*csi.VolumeUsage)) func(*Rig) {
		return reply(func(_ q, r r) {
			for _, u := range r.GetUsage() {
				edit(u)
			}
		})
	}
	return []Mutant{
		mutant(Other, "stats-unserved", "NG-01 NC-02", "GET_VOLUME_STATS is advertised, NodeGetVolumeStats is not there", unimplemented[q]()),
		mutant(Other, "stats-no-total", "NG-05 GEN-16", "usage has no total", usage(func(u *csi.VolumeUsage) { u.Total = 0 })),
		mutant(Other, "stats-no-unit", "NG-05 GEN-16", "usage has no unit", usage(func(u *csi.VolumeUsage) { u.Unit = csi.VolumeUsage_UNKNOWN })),
		mutant(Other, "stats-negative", "NG-05", "available is -1", usage(func(u *csi.VolumeUsage) { u.Available = -1 })),
		mutant(Other, "stats-staging-refused", "NG-06", "at its staging path a volume has no figures: NOT_FOUND", func(r *Rig) {
			var staging memory[bool]
			reply(func(q *csi.NodeStageVolumeRequest, _ *csi.NodeStageVolumeResponse) {
				staging.put(q.GetStagingTargetPath(), true)
			})(r)
			refuse(func(q q) bool { _, ok := staging.get(q.GetVolumePath()); return ok }, codes.NotFound, "nothing is published there")(r)
		}),
		mutant(Other, "stats-any-path", "NG-04", "a path where the volume is not has figures too", codeWhen(
			func(q q) bool { return q.GetVolumePath() != "" }, codes.NotFound, codes.OK)),
		mutant(Other, "node-id-empty", "NI-02 GEN-16", "node_id is empty", info(func(r *csi.NodeGetInfoResponse) { r.NodeId = "" })),
		mutant(Other, "node-id-long", "NI-03", "node_id has 300 bytes", info(func(r *csi.NodeGetInfoResponse) { r.NodeId = strings.Repeat("n", 300) })),
		mutant(Other, "node-limit-negative", "NI-04", "max_volumes_per_node is -1", info(func(r *csi.NodeGetInfoResponse) { r.MaxVolumesPerNode = -1 })),
		mutant(Other, "node-info-unserved", "NI-01", "NodeGetInfo is not there", unimplemented[*csi.NodeGetInfoRequest]()),
		mutant(Other, "node-id-changes", "NI-02 NI-07", "node_id is another at each call", func(r *Rig) {
			var n atomic.Int64
			info(func(r *csi.NodeGetInfoResponse) { r.NodeId += strings.Repeat("x", int(n.Add(1)-1)) })(r)
			trim := func(id string) string { return strings.TrimRight(id, "x") }
			request(func(q *csi.ControllerPublishVolumeRequest) { q.NodeId = trim(q.GetNodeId()) })(r)
			request(func(q *csi.ControllerUnpublishVolumeRequest) { q.NodeId = trim(q.GetNodeId()) })(r)
		}),
	}
}
