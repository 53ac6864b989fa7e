package mem

import (
	"reflect"

	"github.com/csikit/csikit/backends"
)

// abilities are the names that Options.Without knows.
func abilities() []string {
	var names []string
	for _, f := range []any{backends.ControllerFeatures{}, backends.NodeFeatures{}} {
		for field := range reflect.TypeOf(f).Fields() {
			names = append(names, field.Name)
		}
	}
	return names
}

// FilterController takes back what Options.Without names.
func (b *Backend) FilterController(f *backends.ControllerFeatures) { b.filter(f) }

// FilterNode takes back what Options.Without names.
func (b *Backend) FilterNode(f *backends.NodeFeatures) { b.filter(f) }

func (b *Backend) filter(features any) {
	for field, value := range reflect.ValueOf(features).Elem().Fields() {
		if b.without[field.Name] {
			value.SetZero()
		}
	}
}

var (
	_ backends.Controller           = (*Backend)(nil)
	_ backends.ControllerFilter     = (*Backend)(nil)
	_ backends.VolumeIDer           = (*Backend)(nil)
	_ backends.VolumeChecker        = (*Backend)(nil)
	_ backends.Attacher             = (*Backend)(nil)
	_ backends.Expander             = (*Backend)(nil)
	_ backends.Snapshotter          = (*Backend)(nil)
	_ backends.SnapshotIDer         = (*Backend)(nil)
	_ backends.Cloner               = (*Backend)(nil)
	_ backends.VolumeLister         = (*Backend)(nil)
	_ backends.PublishedNodesLister = (*Backend)(nil)
	_ backends.SnapshotLister       = (*Backend)(nil)
	_ backends.CapacityReporter     = (*Backend)(nil)
	_ backends.Modifier             = (*Backend)(nil)
	_ backends.GroupSnapshotter     = (*Backend)(nil)
	_ backends.GroupSnapshotIDer    = (*Backend)(nil)
	_ backends.ChangedBlockTracker  = (*Backend)(nil)
	_ backends.HealthChecker        = (*Backend)(nil)
	_ backends.HealthLister         = (*Backend)(nil)
	_ backends.Recoverer            = (*Backend)(nil)
	_ backends.Prober               = (*Backend)(nil)

	_ backends.Node                 = (*Backend)(nil)
	_ backends.NodeFilter           = (*Backend)(nil)
	_ backends.FormatRecorder       = (*Backend)(nil)
	_ backends.NodeExpander         = (*Backend)(nil)
	_ backends.TargetPreparer       = (*Backend)(nil)
	_ backends.EphemeralProvisioner = (*Backend)(nil)
	_ backends.NodeHealthChecker    = (*Backend)(nil)
	_ backends.StorageHealthChecker = (*Backend)(nil)
	_ backends.StatsReporter        = (*Backend)(nil)
	_ backends.TopologyReporter     = (*Backend)(nil)
	_ backends.AttachLimiter        = (*Backend)(nil)
	_ backends.NodeRecoverer        = (*Backend)(nil)
)
