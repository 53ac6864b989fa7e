package pbconv

import (
	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
)

// Attach converts a ControllerPublishVolumeRequest.
func Attach(in *csi.ControllerPublishVolumeRequest) *backends.AttachVolumeRequest {
	ctx, owner := Split(in.GetVolumeContext())
	return &backends.AttachVolumeRequest{
		ID:         in.GetVolumeId(),
		NodeID:     in.GetNodeId(),
		Capability: Capability(in.GetVolumeCapability()),
		ReadOnly:   in.GetReadonly(),
		Context:    ctx,
		Owner:      owner,
		Secrets:    Secrets(in.GetSecrets(), nil),
	}
}
