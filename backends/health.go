package backends

import "context"

// HealthStatus is CSI's VolumeHealthErrorType.
type HealthStatus uint8

// What can be wrong with a volume.
const (
	HealthDegraded     HealthStatus = iota + 1 // usable, but not as it should be
	HealthInaccessible                         // not accessible (on a node: from that node)
	HealthDataLoss                             // permanent data loss is known or strongly suspected
)

// Health is one adverse condition of a volume; a healthy one has none.
type Health struct {
	Status  HealthStatus
	Reason  string // CamelCase, for machines; one entry for each (Status, Reason)
	Message string // for people
}

// HealthChecker serves GET_VOLUME_HEALTH on the controller.
type HealthChecker interface {
	VolumeHealth(ctx context.Context, req VolumeRequest) ([]Health, error)
}

// HealthLister serves LIST_VOLUME_HEALTH. It needs a [HealthChecker]; healthy volumes
// are left out.
type HealthLister interface {
	ListVolumeHealth(ctx context.Context, req ListVolumeHealthRequest) (vols []VolumeHealth, next string, err error)
}

// ListVolumeHealthRequest asks for one page.
type ListVolumeHealthRequest struct {
	Page    Page
	Secrets Secrets
}

// VolumeHealth is what is wrong with one volume.
type VolumeHealth struct {
	ID     string
	Health []Health
}

// NodeHealthChecker serves GET_VOLUME_HEALTH on the node. csikit joins what the kernel
// shows of mounts, file systems and devices, and serves that alone without one. It must
// not touch a path that may hang.
type NodeHealthChecker interface {
	NodeVolumeHealth(ctx context.Context, req NodeHealthRequest) ([]Health, error)
}

// NodeHealthRequest names a volume on this node.
type NodeHealthRequest struct {
	ID      string
	Path    string // "" when the CO gave none
	State   []byte
	Secrets Secrets
}

// StorageStatus is CSI's StorageHealthErrorType.
type StorageStatus uint8

// What can be wrong with the storage behind volumes.
const (
	StorageDegraded    StorageStatus = iota + 1 // volumes may be slow
	StorageUnreachable                          // not reachable from this node at all
)

// StorageHealth is one adverse condition of the storage behind volumes.
type StorageHealth struct {
	Status     StorageStatus
	Reason     string
	Message    string
	Capability *Capability // which volumes it concerns; nil: all
}

// StorageHealthChecker serves GET_STORAGE_HEALTH.
type StorageHealthChecker interface {
	StorageHealth(ctx context.Context, req StorageHealthRequest) ([]StorageHealth, error)
}

// StorageHealthRequest asks how the storage is, seen from this node.
type StorageHealthRequest struct{ Secrets Secrets }
