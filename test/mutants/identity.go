package mutants

import (
	"strings"
	"sync/atomic"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// identity are faults of what the driver says of itself.
func identity() []Mutant {
	name := func(edit func(string) string) func(*Rig) {
		return reply(func(_ *csi.GetPluginInfoRequest, r *csi.GetPluginInfoResponse) { r.Name = edit(r.GetName()) })
	}
	const expandVolume = csi.ControllerServiceCapability_RPC_EXPAND_VOLUME
	return []Mutant{
		mutant(Other, "plugin-name-empty", "ID-01 GEN-16", "the driver has no name", name(func(string) string { return "" })),
		mutant(Other, "plugin-name-underscore", "ID-02", "the name has an underscore", name(func(s string) string { return strings.Replace(s, ".", "_", 1) })),
		mutant(Other, "plugin-name-dash-end", "ID-02", "the name ends in a dash", name(func(s string) string { return s + "-" })),
		mutant(Other, "plugin-name-long", "ID-02", "the name has 70 characters", name(func(string) string { return strings.Repeat("a", 60) + ".test.dev1" })),
		mutant(Other, "version-empty", "ID-04 GEN-16", "the driver has no version",
			reply(func(_ *csi.GetPluginInfoRequest, r *csi.GetPluginInfoResponse) { r.VendorVersion = "" })),
		mutant(Other, "plugin-capabilities-unimplemented", "ID-05 GEN-01", "GetPluginCapabilities is missing", unimplemented[*csi.GetPluginCapabilitiesRequest]()),
		mutant(Other, "plugin-capabilities-flicker", "ID-06", "every other answer lacks VOLUME_ACCESSIBILITY_CONSTRAINTS", func(r *Rig) {
			var n atomic.Int64
			reply(func(_ *csi.GetPluginCapabilitiesRequest, resp *csi.GetPluginCapabilitiesResponse) {
				if n.Add(1)%2 == 0 {
					resp.Capabilities = without(resp.GetCapabilities(), func(c *csi.PluginCapability) bool {
						return c.GetService().GetType() == csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS
					})
				}
			})(r)
		}),
		mutant(Other, "group-service-unserved", "ID-08 GG-01 GV-01", "GROUP_CONTROLLER_SERVICE is advertised, its RPCs are not there", both(
			unimplemented[*csi.GroupControllerGetCapabilitiesRequest](), unimplemented[*csi.CreateVolumeGroupSnapshotRequest](),
			unimplemented[*csi.DeleteVolumeGroupSnapshotRequest](), unimplemented[*csi.GetVolumeGroupSnapshotRequest]())),
		mutant(Other, "group-service-hidden", "ID-08", "the group RPCs are served, GROUP_CONTROLLER_SERVICE is not advertised",
			dropService(csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE)),
		mutant(Other, "metadata-service-unserved", "ID-09 SM-01", "SNAPSHOT_METADATA_SERVICE is advertised, its RPCs are not there",
			func(r *Rig) { streams(r, unimplementedStream) }),
		mutant(Other, "online-without-expand", "ID-10", "ONLINE, and neither half has EXPAND_VOLUME", both(
			dropControllerCapability(expandVolume), dropNodeCapability(csi.NodeServiceCapability_RPC_EXPAND_VOLUME),
			unimplemented[*csi.ControllerExpandVolumeRequest](), unimplemented[*csi.NodeExpandVolumeRequest](),
			expansion(csi.PluginCapability_VolumeExpansion_ONLINE))),
		mutant(Other, "offline-without-expand", "ID-12", "OFFLINE, and the controller has no EXPAND_VOLUME", both(
			dropControllerCapability(expandVolume), unimplemented[*csi.ControllerExpandVolumeRequest](),
			expansion(csi.PluginCapability_VolumeExpansion_OFFLINE))),
		mutant(Other, "online-refused", "ID-11", "ONLINE, and a volume that is in use does not grow", onlineRefused),
		mutant(Other, "offline-grows-online", "ID-13 CE-09", "OFFLINE, and a volume that is in use grows", expansion(csi.PluginCapability_VolumeExpansion_OFFLINE)),
		mutant(Other, "probe-unimplemented", "ID-14 GEN-01", "Probe is missing", unimplemented[*csi.ProbeRequest]()),
		mutant(Other, "probe-loses-ready", "ID-17", "after a hundred calls of anything the driver is not ready any more", func(r *Rig) {
			var n atomic.Int64
			r.every(countCalls(&n))
			reply(func(_ *csi.ProbeRequest, resp *csi.ProbeResponse) { resp.Ready = wrapperspb.Bool(n.Load() < 100) })(r)
		}),
		mutant(Other, "controller-capabilities-unimplemented", "CC-01 GEN-02", "ControllerGetCapabilities is missing", unimplemented[*csi.ControllerGetCapabilitiesRequest]()),
		mutant(Other, "node-capabilities-unimplemented", "NC-01 GEN-02", "NodeGetCapabilities is missing", unimplemented[*csi.NodeGetCapabilitiesRequest]()),
	}
}

// onlineRefused has no volume grow while it is attached.
func onlineRefused(r *Rig) {
	var attached memory[bool]
	reply(func(q *csi.ControllerPublishVolumeRequest, _ *csi.ControllerPublishVolumeResponse) {
		attached.put(q.GetVolumeId(), true)
	})(r)
	reply(func(q *csi.ControllerUnpublishVolumeRequest, _ *csi.ControllerUnpublishVolumeResponse) {
		attached.drop(q.GetVolumeId())
	})(r)
	refuse(func(q *csi.ControllerExpandVolumeRequest) bool { _, ok := attached.get(q.GetVolumeId()); return ok },
		codes.FailedPrecondition, "the volume is in use")(r)
	reply(func(q *csi.NodeStageVolumeRequest, _ *csi.NodeStageVolumeResponse) {
		attached.put(q.GetVolumeId(), true)
	})(r)
}

// limits are faults of messages, whatever they are about.
func limits() []Mutant {
	return []Mutant{
		mutant(Other, "error-details", "GEN-07", "a status has details", errorDetails),
		mutant(Other, "error-no-message", "GEN-06", "NOT_FOUND without a message", errorNoMessage),
		mutant(Other, "code-not-canonical", "GEN-05", "an error has the storage's own code, 404", codeNotCanonical),
		mutant(Other, "volume-id-long", "GEN-13", "a volume_id has 200 bytes", func(r *Rig) {
			tail := strings.Repeat("x", 170)
			rewriteIDs(r, volumeFields, func(s string) string { return strings.TrimSuffix(s, tail) }, func(s string) string { return s + tail })
		}),
		mutant(Other, "context-big", "GEN-14", "volume_context has 5 KiB", eachVolumeContext("path", strings.Repeat("/dir", 1280))),
		mutant(Other, "unknown-field-refused", "GEN-25", "a request with a field of a newer CSI: INVALID_ARGUMENT", unknownFieldRefused),
		mutant(Other, "unknown-field-confirmed", "GEN-25 VC-09", "what is unknown in a request is confirmed", unknownFieldConfirmed),
	}
}
