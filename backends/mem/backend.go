package mem

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/csikit/csikit/backends"
)

const domain = "mem.csikit.dev"

// TopologyKey is the topology segment that names the zone of a node.
const TopologyKey = "topology." + domain + "/zone"

// Options configure a Backend. The zero value is a controller with a store of
// its own.
type Options struct {
	Store *Store // nil: a new one
	// Node is the node on which this process runs, as the CO calls it; "": none.
	Node string
	Zone string // of Node; "": "zone-1"
	// MaxVolumes is how many volumes can be attached to Node; 0: any number.
	MaxVolumes int64
	// Without takes abilities away, by the names of the interfaces: "Cloner". What
	// cannot be without them goes too, and Traits follow.
	Without []string
}

// Backend is one process that uses a Store. Both halves are on it.
type Backend struct {
	o       Options
	store   *Store
	without map[string]bool
	faults  faults
}

// New opens a store.
func New(o *Options) (*Backend, error) {
	b := &Backend{without: make(map[string]bool)}
	if o != nil {
		b.o = *o
	}
	b.store = b.o.Store
	if b.store == nil {
		b.store = NewStore(nil)
	}
	for _, name := range b.o.Without {
		if !slices.Contains(abilities(), name) {
			return nil, fmt.Errorf("mem: Options.Without: %q is not one of %s", name, strings.Join(abilities(), ", "))
		}
		b.takeAway(name)
	}
	if !b.store.o.Devices {
		b.takeAway("NodeExpander")
		b.takeAway("FormatRecorder")
	}
	if b.o.Node != "" {
		b.store.AddNode(b.o.Node, b.o.Zone, b.o.MaxVolumes)
	}
	return b, nil
}

// Store is the storage that this process uses.
func (b *Backend) Store() *Store { return b.store }

// Traits of this driver.
func (b *Backend) Traits() backends.Traits {
	t := backends.Traits{
		Modes: []backends.AccessMode{
			backends.SingleNodeWriter, backends.SingleNodeReader,
			backends.SingleNodeSingleWriter, backends.SingleNodeMultiWriter,
			backends.MultiNodeReader, backends.MultiNodeSingleWriter, backends.MultiNodeMultiWriter,
		},
		Filesystem:  true,
		Lifecycle:   backends.Persistent,
		MountGroup:  true,
		SizeMin:     blockSize,
		SizeMax:     sizeMax,
		SizeDefault: 1 << 30,
		SizeStep:    blockSize,
		Parameters:  parameters(b.has("Modifier")),
		Kubernetes:  backends.Kubernetes{FSGroupPolicy: "File", StorageCapacity: b.has("CapacityReporter")},
	}
	if b.store.o.Devices {
		t.Block, t.Devices, t.FSTypes = true, true, []string{"ext4", "xfs"}
	}
	if b.has("EphemeralProvisioner") {
		t.Lifecycle |= backends.Ephemeral
	}
	if b.has("TopologyReporter") {
		t.TopologyKeys = []string{TopologyKey}
	}
	t.SnapshotTopology = b.has("TopologyReporter") && b.has("Snapshotter")
	t.AttachReadOnly = b.has("Attacher")
	return t
}

// sizeMax keeps sums of sizes far from overflowing.
const sizeMax = 1 << 50

// needs says what cannot be without what.
var needs = map[string][]string{
	"Attacher":         {"PublishedNodesLister"},
	"VolumeLister":     {"PublishedNodesLister"},
	"Snapshotter":      {"SnapshotIDer", "SnapshotLister", "GroupSnapshotter", "ChangedBlockTracker"},
	"GroupSnapshotter": {"GroupSnapshotIDer"},
	"HealthChecker":    {"HealthLister"},
}

func (b *Backend) takeAway(name string) {
	b.without[name] = true
	for _, n := range needs[name] {
		b.takeAway(n)
	}
}

func (b *Backend) has(ability string) bool { return !b.without[ability] }

// Probe answers that the storage is there.
func (b *Backend) Probe(ctx context.Context) error {
	return b.run(ctx, Call{Method: "Probe"}, func(context.Context) error { return nil })
}
