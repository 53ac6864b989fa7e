package mutants

import (
	"context"
	"maps"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends/mem"
)

// withoutTopology takes the constraints away from the driver behind.
func withoutTopology(r *Rig) { r.Mem.Without = append(r.Mem.Without, "TopologyReporter") }

// eachTopology edits every topology that is answered, of the node too.
func eachTopology(edit func(map[string]string) map[string]string) func(*Rig) {
	all := func(list []*csi.Topology) {
		for _, t := range list {
			t.Segments = edit(t.GetSegments())
		}
	}
	return both(
		volumesAs(func(v *csi.Volume) { all(v.GetAccessibleTopology()) }),
		reply(func(_ *csi.NodeGetInfoRequest, r *csi.NodeGetInfoResponse) {
			if r.GetAccessibleTopology() != nil {
				all([]*csi.Topology{r.GetAccessibleTopology()})
			}
		}),
	)
}

// topology are faults of where volumes are.
func topology() []Mutant { return append(placedAs(), writtenAs()...) }

func placedAs() []Mutant {
	type q = *csi.CreateVolumeRequest
	return []Mutant{
		mutant(Other, "topology-ignored", "CV-28 CV-33 CV-30", "where a volume is to be reachable does not matter", request(func(q q) { q.AccessibilityRequirements = nil })),
		mutant(Other, "topology-not-answered", "CV-28 CV-30", "the volume's topology is another than the requisite one", func(r *Rig) {
			reply(func(q q, resp *csi.CreateVolumeResponse) {
				if len(q.GetAccessibilityRequirements().GetRequisite()) == 1 {
					resp.GetVolume().AccessibleTopology = []*csi.Topology{{Segments: map[string]string{mem.TopologyKey: "zone-elsewhere"}}}
				}
			})(r)
		}),
		mutant(Other, "topology-unadvertised", "CV-31", "a volume has a topology without VOLUME_ACCESSIBILITY_CONSTRAINTS", both(withoutTopology,
			volumesAs(func(v *csi.Volume) {
				v.AccessibleTopology = []*csi.Topology{{Segments: map[string]string{mem.TopologyKey: "zone-1"}}}
			}))),
		mutant(Other, "requirements-unadvertised", "CV-32", "requirements are ignored without VOLUME_ACCESSIBILITY_CONSTRAINTS", both(withoutTopology,
			request(func(q q) { q.AccessibilityRequirements = nil }))),
	}
}

func writtenAs() []Mutant {
	return []Mutant{
		mutant(Other, "topology-key-bad", "CV-46 NI-06", "a topology key has a prefix with upper-case letters", eachTopology(func(m map[string]string) map[string]string {
			return rekey(m, func(k string) string { return "Topology_" + k })
		})),
		mutant(Other, "topology-keys-case", "CV-48", "two topology keys differ in case alone", eachTopology(func(m map[string]string) map[string]string {
			out := maps.Clone(m)
			for k, v := range m {
				prefix, name, _ := strings.Cut(k, "/")
				out[prefix+"/"+strings.ToUpper(name)] = v
			}
			return out
		})),
		mutant(Other, "topology-value-bad", "CV-49", "a topology value has a space and ends in a dash", eachTopology(func(m map[string]string) map[string]string {
			out := make(map[string]string)
			for k, v := range m {
				out[k] = v + " -"
			}
			return out
		})),
		mutant(Other, "topology-two-prefixes", "CV-47 NI-06", "volumes have another prefix in their topology than nodes", volumesAs(func(v *csi.Volume) {
			for _, t := range v.GetAccessibleTopology() {
				t.Segments = rekey(t.GetSegments(), func(k string) string { return "other." + k })
			}
		})),
		mutant(Other, "node-topology-unadvertised", "NI-05", "the node has a topology without VOLUME_ACCESSIBILITY_CONSTRAINTS", both(withoutTopology,
			reply(func(_ *csi.NodeGetInfoRequest, r *csi.NodeGetInfoResponse) {
				r.AccessibleTopology = &csi.Topology{Segments: map[string]string{mem.TopologyKey: "zone-1"}}
			}))),
		mutant(Other, "snapshot-topology-unadvertised", "CS-18", "a snapshot has a topology without SNAPSHOT_ACCESSIBILITY_CONSTRAINTS", both(
			dropService(csi.PluginCapability_Service_SNAPSHOT_ACCESSIBILITY_CONSTRAINTS),
			snapshotsAs(func(s *csi.Snapshot) {
				s.AccessibleTopology = []*csi.Topology{{Segments: map[string]string{mem.TopologyKey: "zone-1"}}}
			}))),
		mutant(Other, "snapshot-topology-ignored", "CS-17 CS-12", "where a snapshot is to be reachable does not matter", request(func(q *csi.CreateSnapshotRequest) { q.AccessibilityRequirements = nil })),
	}
}

func rekey(m map[string]string, to func(string) string) map[string]string {
	out := make(map[string]string)
	for k, v := range m {
		out[to(k)] = v
	}
	return out
}

// attach are faults of attaching volumes to nodes.
func attach() []Mutant { return append(attached(), detachedAndValidated()...) }

func attached() []Mutant {
	type q = *csi.ControllerPublishVolumeRequest
	key := func(q q) string { return q.GetVolumeId() + " " + q.GetNodeId() }
	return []Mutant{
		mutant(Other, "attach-unserved", "CP-01 CC-02", "PUBLISH_UNPUBLISH_VOLUME is advertised, ControllerPublishVolume is not there", unimplemented[q]()),
		mutant(Other, "detach-unserved", "CU-01 CC-02", "PUBLISH_UNPUBLISH_VOLUME is advertised, ControllerUnpublishVolume is not there", unimplemented[*csi.ControllerUnpublishVolumeRequest]()),
		mutant(Other, "attach-again-fails", "CP-03", "attached already: ALREADY_EXISTS", attachAgainFails),
		mutant(Other, "attach-any-readonly", "CP-12", "attached with another readonly: OK", conflictIgnored(key, codes.AlreadyExists, func(q, first q) { q.Readonly = first.GetReadonly() })),
		mutant(Other, "attach-unusable-capability", "CP-07", "a block volume is attached where there are only directories", request(func(q q) {
			if q.GetVolumeCapability().GetBlock() != nil {
				q.VolumeCapability = mountCapability()
			}
		})),
		mutant(Other, "attach-readonly-unadvertised", "CP-09", "readonly is ignored without PUBLISH_READONLY", both(
			dropControllerCapability(csi.ControllerServiceCapability_RPC_PUBLISH_READONLY), request(func(q q) { q.Readonly = false }))),
		mutant(Other, "attach-any-node", "CP-11", "any node_id will do", request(func(q q) {
			if q.GetNodeId() != "" {
				q.NodeId = nodeID
			}
		})),
		mutant(Other, "attach-context-changes", "CP-18", "publish_context is another at each call", func(r *Rig) {
			var n memory[bool]
			reply(func(_ q, resp *csi.ControllerPublishVolumeResponse) {
				n.put(strings.Repeat("x", n.len()), true)
				resp.PublishContext = map[string]string{"devicePath": "/dev/vd" + strings.Repeat("b", n.len())}
			})(r)
		}),
	}
}

func detachedAndValidated() []Mutant {
	return []Mutant{
		mutant(Other, "attach-limit-ignored", "CP-16 NI-04", "max_volumes_per_node is 3, and there is no limit", reply(
			func(_ *csi.NodeGetInfoRequest, resp *csi.NodeGetInfoResponse) { resp.MaxVolumesPerNode = 3 })),
		mutant(Other, "detach-does-nothing", "CU-01 CU-04 DV-01", "OK, and the volume is still attached: it cannot be deleted", func(r *Rig) {
			around(r, func(ctx context.Context, q *csi.ControllerUnpublishVolumeRequest, next func(context.Context, *csi.ControllerUnpublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
				if q.GetNodeId() == "" {
					return next(ctx, q)
				}
				return &csi.ControllerUnpublishVolumeResponse{}, nil
			})
		}),
		mutant(Other, "detach-all-needs-node", "CU-05", "no node_id: INVALID_ARGUMENT, not every node", refuse(
			func(q *csi.ControllerUnpublishVolumeRequest) bool { return q.GetNodeId() == "" }, codes.InvalidArgument, "node_id is missing")),
		mutant(Other, "detach-all-does-nothing", "CU-05", "no node_id: OK, and nothing is detached", func(r *Rig) {
			around(r, func(ctx context.Context, q *csi.ControllerUnpublishVolumeRequest, next func(context.Context, *csi.ControllerUnpublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
				if q.GetNodeId() != "" || q.GetVolumeId() == "" {
					return next(ctx, q)
				}
				return &csi.ControllerUnpublishVolumeResponse{}, nil
			})
		}),
		mutant(Other, "single-node-writer-refused", "CC-03 NP-17", "SINGLE_NODE_WRITER is refused: there are newer modes", writerRefused),
		mutant(Other, "validate-unserved", "VC-01", "ValidateVolumeCapabilities is not there", unimplemented[*csi.ValidateVolumeCapabilitiesRequest]()),
		mutant(Other, "validate-confirms-all", "VC-02", "whatever is asked for is confirmed", reply(
			func(q *csi.ValidateVolumeCapabilitiesRequest, resp *csi.ValidateVolumeCapabilitiesResponse) {
				resp.Confirmed = &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: q.GetVolumeCapabilities()}
			})),
		mutant(Other, "validate-confirms-nothing", "VC-07 GEN-17", "confirmed has no capabilities", reply(
			func(_ *csi.ValidateVolumeCapabilitiesRequest, resp *csi.ValidateVolumeCapabilitiesResponse) {
				if resp.GetConfirmed() != nil {
					resp.Confirmed = &csi.ValidateVolumeCapabilitiesResponse_Confirmed{}
				}
			})),
		mutant(Other, "validate-first-only", "VC-02", "of several capabilities the first alone is looked at", func(r *Rig) {
			around(r, func(ctx context.Context, q *csi.ValidateVolumeCapabilitiesRequest, next func(context.Context, *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error)) (*csi.ValidateVolumeCapabilitiesResponse, error) {
				if len(q.GetVolumeCapabilities()) < 2 {
					return next(ctx, q)
				}
				first := proto.Clone(q).(*csi.ValidateVolumeCapabilitiesRequest)
				first.VolumeCapabilities = first.GetVolumeCapabilities()[:1]
				resp, err := next(ctx, first)
				if err == nil && resp.GetConfirmed() != nil {
					resp.Confirmed.VolumeCapabilities = q.GetVolumeCapabilities()
				}
				return resp, err
			})
		}),
	}
}

// attachAgainFails finds fault with what is attached already.
func attachAgainFails(r *Rig) {
	var attached memory[bool]
	around(r, func(ctx context.Context, q *csi.ControllerPublishVolumeRequest, next func(context.Context, *csi.ControllerPublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		if _, ok := attached.get(q.GetVolumeId()); ok {
			return nil, status.Errorf(codes.AlreadyExists, "volume %s is attached", q.GetVolumeId())
		}
		resp, err := next(ctx, q)
		if err == nil {
			attached.put(q.GetVolumeId(), true)
		}
		return resp, err
	})
	reply(func(q *csi.ControllerUnpublishVolumeRequest, _ *csi.ControllerUnpublishVolumeResponse) {
		attached.drop(q.GetVolumeId())
	})(r)
}

// writerRefused has SINGLE_NODE_MULTI_WRITER and forgets what it stood for.
func writerRefused(r *Rig) {
	old := func(list ...*csi.VolumeCapability) bool {
		for _, c := range list {
			if c.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER {
				return true
			}
		}
		return false
	}
	refuse(func(q *csi.CreateVolumeRequest) bool { return old(q.GetVolumeCapabilities()...) }, codes.InvalidArgument, "SINGLE_NODE_WRITER is not supported")(r)
	refuse(func(q *csi.NodePublishVolumeRequest) bool { return old(q.GetVolumeCapability()) }, codes.FailedPrecondition, "SINGLE_NODE_WRITER is not supported")(r)
}
