package csidriver

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/csikit/csikit/csidriver/internal/pbconv"
)

// answered are the fields of responses that the spec calls REQUIRED, but for
// those whose zero value is an answer. The list is the spec's.
var answered = fields(
	"GetPluginInfoResponse.name", "GetPluginInfoResponse.vendor_version",
	"CreateVolumeResponse.volume", "Volume.volume_id",
	"ListVolumesResponse.Entry.volume", "ControllerGetVolumeResponse.volume", "ControllerGetVolumeResponse.status",
	"ControllerGetVolumeHealthResponse.volume_health", "NodeGetVolumeHealthResponse.volume_health",
	"VolumeHealth.volume_id", "VolumeHealth.VolumeHealthStatus.status", "VolumeHealth.VolumeHealthStatus.reason",
	"NodeGetStorageHealthResponse.StorageBackendHealth.status", "NodeGetStorageHealthResponse.StorageBackendHealth.reason",
	"ControllerExpandVolumeResponse.capacity_bytes",
	"CreateSnapshotResponse.snapshot", "GetSnapshotResponse.snapshot", "ListSnapshotsResponse.Entry.snapshot",
	"Snapshot.snapshot_id", "Snapshot.source_volume_id", "Snapshot.creation_time",
	"CreateVolumeGroupSnapshotResponse.group_snapshot", "GetVolumeGroupSnapshotResponse.group_snapshot",
	"VolumeGroupSnapshot.group_snapshot_id", "VolumeGroupSnapshot.snapshots", "VolumeGroupSnapshot.creation_time",
	"GetMetadataAllocatedResponse.block_metadata_type", "GetMetadataAllocatedResponse.volume_capacity_bytes",
	"GetMetadataDeltaResponse.block_metadata_type", "GetMetadataDeltaResponse.volume_capacity_bytes", "BlockMetadata.size_bytes",
	"NodeGetVolumeStatsResponse.usage", "VolumeUsage.total", "VolumeUsage.unit", "NodeGetInfoResponse.node_id",
	"ValidateVolumeCapabilitiesResponse.Confirmed.volume_capabilities", "VolumeCapability.access_mode", "Topology.segments",
	"VolumeContentSource.SnapshotSource.snapshot_id", "VolumeContentSource.VolumeSource.volume_id",
)

// longAnswers may be longer than 128 bytes.
var longAnswers = fields("NodeGetInfoResponse.node_id", "ListVolumesResponse.VolumeStatus.published_node_ids",
	"ControllerGetVolumeResponse.VolumeStatus.published_node_ids")

// wrongIn says which rule for responses m breaks. What is confirmed repeats the
// request, whose limits are others (CO-08).
func wrongIn(m protoreflect.Message) (wrong error) {
	fds := m.Descriptor().Fields()
	for i := range fds.Len() {
		fd := fds.Get(i)
		if fd.Name() == "confirmed" {
			continue
		}
		if !m.Has(fd) {
			if answered[fd.FullName()] {
				return fmt.Errorf("%s is not set", fd.FullName())
			}
			continue
		}
		if wrong = wrongField(fd, m.Get(fd)); wrong != nil {
			return wrong
		}
	}
	return nil
}

func wrongField(fd protoreflect.FieldDescriptor, v protoreflect.Value) (wrong error) {
	switch {
	case fd.IsMap():
		total := 0
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			total += len(k.String()) + len(v.String())
			return true
		})
		if total > maxMap {
			return fmt.Errorf("%s has %d bytes", fd.FullName(), total)
		}
	case fd.IsList():
		for i := range v.List().Len() {
			if wrong = wrongValue(fd, v.List().Get(i)); wrong != nil {
				return wrong
			}
		}
	default:
		return wrongValue(fd, v)
	}
	return nil
}

func wrongValue(fd protoreflect.FieldDescriptor, v protoreflect.Value) error {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		if fd.Message().Name() == "Timestamp" {
			return nil
		}
		return wrongIn(v.Message())
	case protoreflect.StringKind:
		limit := maxString
		if longAnswers[fd.FullName()] {
			limit = maxNodeID
		}
		if len(v.String()) > limit || !utf8.ValidString(v.String()) {
			return fmt.Errorf("%s is %q", fd.FullName(), v.String())
		}
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		if v.Int() < 0 {
			return fmt.Errorf("%s is %d", fd.FullName(), v.Int())
		}
	}
	return nil
}

// entriesOf is a page, or a message of a stream: how many it has.
func entriesOf(resp proto.Message) int {
	switch r := resp.(type) {
	case *csi.ListVolumesResponse:
		return len(r.GetEntries())
	case *csi.ListSnapshotsResponse:
		return len(r.GetEntries())
	case *csi.ControllerListVolumeHealthResponse:
		return len(r.GetEntries())
	case interface{ GetBlockMetadata() []*csi.BlockMetadata }:
		return len(r.GetBlockMetadata())
	}
	return 0
}

// wrongAnswer says by what a response is none to its request.
func wrongAnswer(req, resp proto.Message) error {
	most := int32(0)
	switch q := req.(type) {
	case interface{ GetMaxEntries() int32 }:
		most = q.GetMaxEntries()
	case interface{ GetMaxResults() int32 }:
		most = q.GetMaxResults()
	}
	if n := entriesOf(resp); most > 0 && n > int(most) {
		return fmt.Errorf("%d entries, at most %d were asked for", n, most)
	}
	switch r := resp.(type) {
	case *csi.CreateVolumeResponse:
		q, v := req.(*csi.CreateVolumeRequest), r.GetVolume()
		if err := wrongSize(q.GetCapacityRange(), v.GetCapacityBytes()); err != nil {
			return err
		}
		// Not proto.Equal: what a newer CO adds to a source is not repeated.
		if pbconv.Source(q.GetVolumeContentSource()) != pbconv.Source(v.GetContentSource()) {
			return fmt.Errorf("made of %v", v.GetContentSource())
		}
	case *csi.ControllerExpandVolumeResponse:
		return wrongSize(req.(*csi.ControllerExpandVolumeRequest).GetCapacityRange(), r.GetCapacityBytes())
	case *csi.CreateSnapshotResponse:
		if q := req.(*csi.CreateSnapshotRequest); q.GetSourceVolumeId() != r.GetSnapshot().GetSourceVolumeId() {
			return fmt.Errorf("of volume %q", r.GetSnapshot().GetSourceVolumeId())
		}
	case *csi.ValidateVolumeCapabilitiesResponse:
		if (r.GetConfirmed() == nil) == (r.GetMessage() == "") {
			return fmt.Errorf("neither confirmed nor refused, or both: %v", r)
		}
	}
	return nil
}

func wrongSize(r *csi.CapacityRange, size int64) error {
	if size < r.GetRequiredBytes() || r.GetLimitBytes() > 0 && size > r.GetLimitBytes() {
		return fmt.Errorf("%d bytes", size)
	}
	return nil
}

// canary is what a plantedRequest has wherever a secret may be. It stands for
// itself inside of an option and of a token.
const canary = "canary-7f3a9c51"

// plantSecrets puts canaries into every secret of a request.
func plantSecrets(m proto.Message) {
	if q, ok := m.(interface{ GetSecrets() map[string]string }); ok {
		for k := range q.GetSecrets() {
			q.GetSecrets()[k] = canary
		}
	}
	if q, ok := m.(interface{ GetVolumeContext() map[string]string }); ok {
		if q.GetVolumeContext()[serviceAccountTokens] != "" {
			q.GetVolumeContext()[serviceAccountTokens] = `{"a":{"token":"` + canary + `"}}`
		}
	}
	if q, ok := m.(interface{ GetVolumeCapability() *csi.VolumeCapability }); ok {
		plantFlags(q.GetVolumeCapability())
	}
	if q, ok := m.(interface {
		GetVolumeCapabilities() []*csi.VolumeCapability
	}); ok {
		for _, c := range q.GetVolumeCapabilities() {
			plantFlags(c)
		}
	}
}

func plantFlags(c *csi.VolumeCapability) {
	flags := c.GetMount().GetMountFlags()
	for i := range flags {
		flags[i] = "password=" + canary
	}
}

// leaks tells whether a text has a canary.
func leaks(text []byte) bool { return bytes.Contains(text, []byte(canary)) }
