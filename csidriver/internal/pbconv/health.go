package pbconv

import (
	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
)

var healthTypes = map[backends.HealthStatus]csi.VolumeHealthErrorType{
	backends.HealthDegraded:     csi.VolumeHealthErrorType_DEGRADED,
	backends.HealthInaccessible: csi.VolumeHealthErrorType_INACCESSIBLE,
	backends.HealthDataLoss:     csi.VolumeHealthErrorType_DATA_LOSS,
}

// VolumeHealth converts what is wrong with a volume; a healthy one has an empty
// list.
func VolumeHealth(id string, list []backends.Health) *csi.VolumeHealth {
	out := &csi.VolumeHealth{VolumeId: id}
	for _, h := range list {
		out.HealthStatuses = append(out.HealthStatuses, &csi.VolumeHealth_VolumeHealthEntry{
			Status: healthTypes[h.Status], Reason: h.Reason, Message: h.Message,
		})
	}
	return out
}

var storageTypes = map[backends.StorageStatus]csi.StorageHealthErrorType{
	backends.StorageDegraded:    csi.StorageHealthErrorType_STORAGE_DEGRADED,
	backends.StorageUnreachable: csi.StorageHealthErrorType_STORAGE_UNREACHABLE,
}

// StorageHealth converts what is wrong with the storage behind volumes.
func StorageHealth(list []backends.StorageHealth) []*csi.NodeGetStorageHealthResponse_StorageBackendHealth {
	var out []*csi.NodeGetStorageHealthResponse_StorageBackendHealth
	for _, h := range list {
		out = append(out, &csi.NodeGetStorageHealthResponse_StorageBackendHealth{
			Status: storageTypes[h.Status], Reason: h.Reason, Message: h.Message, VolumeCapability: concerned(h.Capability),
		})
	}
	return out
}

// concerned converts a capability for an answer, without its mount flags: CSI
// says that they may hold secrets.
func concerned(c *backends.Capability) *csi.VolumeCapability {
	if c == nil {
		return nil
	}
	out := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: modeOf(c.Mode)}}
	if c.Block {
		out.AccessType = &csi.VolumeCapability_Block{Block: new(csi.VolumeCapability_BlockVolume)}
	} else {
		out.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: c.FSType, VolumeMountGroup: c.Group}}
	}
	return out
}

func modeOf(m backends.AccessMode) csi.VolumeCapability_AccessMode_Mode {
	for theirs, ours := range modes {
		if ours == m {
			return theirs
		}
	}
	return csi.VolumeCapability_AccessMode_UNKNOWN
}
