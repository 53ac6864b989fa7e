package mounter

import (
	"time"

	"github.com/csikit/csikit/backends"
)

// StageRequest asks for a volume at a staging path.
type StageRequest struct {
	ID             string
	Path           string // absolute
	Capability     backends.Capability
	Context        map[string]string // the volume's own, without the CO's keys
	PublishContext map[string]string
	Owner          backends.Owner
	Secrets        backends.Secrets
}

// UnstageRequest undoes a stage.
type UnstageRequest struct{ ID, Path string }

// PublishRequest asks for a staged volume at a target path, or for an ephemeral
// one that is made for it.
type PublishRequest struct {
	ID             string
	Ephemeral      bool   // a pod's own: Context is its volumeAttributes, StagingPath is not used
	StagingPath    string // absolute
	Path           string // absolute
	Capability     backends.Capability
	ReadOnly       bool
	Context        map[string]string
	PublishContext map[string]string
	Owner          backends.Owner
	Secrets        backends.Secrets
}

// UnpublishRequest undoes a publish.
type UnpublishRequest struct{ ID, Path string }

// ExpandRequest asks that the file system, or the block device, be as big as
// the volume.
type ExpandRequest struct {
	ID          string
	Path        string // where the volume is staged or published
	StagingPath string // "" when the CO gave none
	Range       backends.CapacityRange
	Capability  *backends.Capability // nil: not given
	Secrets     backends.Secrets
}

// StatsRequest names a volume and a path where it is staged or published.
type StatsRequest struct{ ID, Path, StagingPath string }

// HealthRequest names a volume on this node.
type HealthRequest struct{ ID string }

// Stats are the figures of a mounted file system, or of a block device.
type Stats struct {
	Block bool // only Total is known
	backends.VolumeStats
	// Age is how old the figures are: 0, unless the file system does not answer now
	// and they are the last known ones.
	Age time.Duration
}
