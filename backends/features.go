package backends

import "reflect"

// ControllerFeatures is what a controller half can do: one nil-able field for
// each optional interface.
type ControllerFeatures struct {
	VolumeIDer           VolumeIDer
	VolumeChecker        VolumeChecker
	Attacher             Attacher
	Expander             Expander
	Snapshotter          Snapshotter
	SnapshotIDer         SnapshotIDer
	Cloner               Cloner
	VolumeLister         VolumeLister
	PublishedNodesLister PublishedNodesLister
	SnapshotLister       SnapshotLister
	CapacityReporter     CapacityReporter
	Modifier             Modifier
	GroupSnapshotter     GroupSnapshotter
	GroupSnapshotIDer    GroupSnapshotIDer
	ChangedBlockTracker  ChangedBlockTracker
	HealthChecker        HealthChecker
	HealthLister         HealthLister
	Recoverer            Recoverer
	Prober               Prober
}

// NodeFeatures is what a node half can do.
type NodeFeatures struct {
	FormatRecorder       FormatRecorder
	NodeExpander         NodeExpander
	TargetPreparer       TargetPreparer
	EphemeralProvisioner EphemeralProvisioner
	NodeHealthChecker    NodeHealthChecker
	StorageHealthChecker StorageHealthChecker
	StatsReporter        StatsReporter
	TopologyReporter     TopologyReporter
	AttachLimiter        AttachLimiter
	NodeRecoverer        NodeRecoverer
	FUSEReopener         FUSEReopener
	RemoteMounter        RemoteMounter
	Prober               Prober
}

// ControllerFilter takes back, at start, what the type has and this
// configuration has not; a wrapper hands on what it wraps. The answer may depend
// on configuration alone, never on a connection: every process of the driver
// must give the same.
type ControllerFilter interface{ FilterController(*ControllerFeatures) }

// NodeFilter is ControllerFilter for the node half.
type NodeFilter interface{ FilterNode(*NodeFeatures) }

// DetectController finds the optional interfaces of c, once. A struct that
// embeds a Controller hides what the embedded value could do besides: such a
// wrapper needs a ControllerFilter.
func DetectController(c Controller) ControllerFeatures {
	var f ControllerFeatures
	detect(&f, c)
	if x, ok := c.(ControllerFilter); ok {
		x.FilterController(&f)
	}
	return f
}

// DetectNode is DetectController for the node half.
func DetectNode(n Node) NodeFeatures {
	var f NodeFeatures
	detect(&f, n)
	if x, ok := n.(NodeFilter); ok {
		x.FilterNode(&f)
	}
	return f
}

// detect fills each field of *f whose interface v implements. reflect is used
// once at start; it does not use Method or MethodByName, so the linker may still
// drop unused methods.
func detect(f, v any) {
	if v == nil {
		return
	}
	rv := reflect.ValueOf(v)
	for field, value := range reflect.ValueOf(f).Elem().Fields() {
		if rv.Type().Implements(field.Type) {
			value.Set(rv)
		}
	}
}
