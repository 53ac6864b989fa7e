package lvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit"
	"github.com/csikit/csikit/backends/internal/luks"
	"github.com/csikit/csikit/backends/lvm/internal/vgda"
	"github.com/csikit/csikit/idempotency"
)

// Backend serves the classes of one node. Both halves are on it; a process that
// serves one of them says so in Options.Half.
type Backend struct {
	o       Options
	log     *slog.Logger
	tool    *tool
	kernel  kernel
	classes map[string]*Class
	order   []*Class
	// turns lets one change of a VG after the other; lvm has a lock for a command,
	// and a look at what is free and the taking of it are two.
	turns   *idempotency.Queue
	reports reports
	now     func() time.Time
	lookAt  func(path string) (*vgda.Copy, error) // of a disk
	// throttle keeps I/O limits; nil: no Options.Cgroup.
	throttle iolimit.Throttle
	marks    string // where frozen volumes are marked: lockDir
	// step is told where an operation is. Tests stop it there.
	step func(string)

	ctx     context.Context // of what goes on behind RPCs
	stop    context.CancelFunc
	jobs    sync.WaitGroup
	watches sync.WaitGroup // what looks again and again; it begins jobs

	mu     sync.Mutex
	disks  map[string]*known        // of VGs
	made   map[string]bool          // by UUID of the LV
	seen   map[string]string        // UUID of each VG as it was first seen
	wiping map[string]chan struct{} // by ID, closed at its end
	asks   map[string][]*ask        // by VG, of who waits for its turn
	uses   uses
	// noteEvery is how many bytes are copied between two notes of how far.
	noteEvery int64
}

// New makes a Backend. A VG that is not there is no error here: its disks may come
// later, and until then every call for it answers ErrUnavailable.
func New(o Options) (*Backend, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	b := &Backend{
		o: o, log: o.Logger, tool: newTool(&o), kernel: newKernel(&o), classes: map[string]*Class{}, turns: idempotency.NewQueue(nil),
		now: time.Now, lookAt: vgda.Look, step: func(string) {}, disks: map[string]*known{}, made: map[string]bool{}, seen: map[string]string{}, wiping: map[string]chan struct{}{}, asks: map[string][]*ask{},
		noteEvery: 4 << 30, marks: lockDir,
		uses: uses{open: map[string]bool{}, resting: map[string]chan struct{}{}},
	}
	for i := range o.Classes {
		c := &o.Classes[i]
		b.classes[c.Name] = c
		b.order = append(b.order, c)
	}
	if o.Cgroup != "" {
		b.throttle = iolimit.Cgroup(o.Cgroup)
	}
	b.tool.failed = b.afterFailure
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b, nil
}

// Close ends what goes on in the background. Volumes that are open stay so.
func (b *Backend) Close() error {
	b.stop()
	b.watches.Wait()
	b.jobs.Wait()
	return nil
}

// Traits of this driver.
func (b *Backend) Traits() backends.Traits { return Traits(b.o) }

// serves refuses what belongs to the half that another process serves.
func (b *Backend) serves(h Half) error {
	if b.o.Half&h != h {
		return fmt.Errorf("%w: this process does not serve that half of the driver", backends.ErrUnavailable)
	}
	return nil
}

// turn waits for the caller's turn at the VG of a class.
func (b *Backend) turn(ctx context.Context, c *Class) (leave func(), err error) {
	return b.turns.Enter(ctx, c.VG)
}

// lookInTurn waits for the caller's turn, and looks at the VG then.
func (b *Backend) lookInTurn(ctx context.Context, c *Class, look looker) (g *group, leave func(), err error) {
	if leave, err = b.turn(ctx, c); err != nil {
		return nil, nil, err
	}
	if g, err = look(ctx, c); err != nil {
		leave()
		return nil, nil, err
	}
	return g, leave, nil
}

// groups are the classes with one of each VG.
func (b *Backend) groups() []*Class {
	var list []*Class
	for _, c := range b.order {
		if !slices.ContainsFunc(list, func(o *Class) bool { return o.VG == c.VG }) {
			list = append(list, c)
		}
	}
	return list
}

// Probe says whether lvm answers and all volume groups are complete.
func (b *Backend) Probe(ctx context.Context) error {
	for _, c := range b.groups() {
		if _, err := b.look(ctx, c); err != nil {
			return fmt.Errorf("%w: %w", backends.ErrNotReady, err)
		}
	}
	return nil
}

// NodeTopology is the node of the volume groups.
func (b *Backend) NodeTopology(context.Context) (backends.Segments, error) {
	return b.segments(), nil
}

func (b *Backend) segments() backends.Segments { return backends.Segments{TopologyKey: b.o.Node} }

// FilterController takes back what only thin pools can, where no class is thin.
func (b *Backend) FilterController(f *backends.ControllerFeatures) {
	if !hasThin(b.o.Classes) {
		f.ChangedBlockTracker = nil
	}
}

// class of a request.
func (b *Backend) class(params map[string]string) (*Class, error) {
	for k := range params {
		if k != paramClass && k != luks.Param && !b.isMutable(k) {
			return nil, fmt.Errorf("%w: parameter %q is not known", backends.ErrInvalid, k)
		}
	}
	name, given := params[paramClass]
	if !given {
		return b.order[0], nil
	}
	if c := b.classes[name]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("%w: class %q is not known", backends.ErrInvalid, name)
}

// volume finds an LV by ID. In a VG that lacks disks what is found may be used, as
// far as lvm can; only that it is not there needs all of them.
func (b *Backend) volume(ctx context.Context, id, kind string) (*Class, *volume, error) {
	c, name, err := b.locate(id, kind)
	if err != nil {
		return nil, nil, err
	}
	g, missing, err := b.lookPartial(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	v, err := g.find(c.Name, name)
	switch {
	case err != nil:
		return nil, nil, err
	case v == nil && missing != nil:
		return nil, nil, missing
	case v == nil:
		return nil, nil, b.absent(ctx, g, kind, id)
	}
	return c, v, nil
}

// ready is volume for those who need a finished one.
func (b *Backend) ready(ctx context.Context, id, kind string) (*Class, *volume, error) {
	c, v, err := b.volume(ctx, id, kind)
	if err != nil {
		return nil, nil, err
	}
	if s := v.stateOf(); s != stateReady {
		return nil, nil, fmt.Errorf("%w: logical volume %s of %s is %s", backends.ErrUnavailable, v.path(), id, s)
	}
	return c, v, nil
}

// classify keeps kinds, and calls the rest unavailable: nobody knows what is left.
func classify(err error) error {
	for _, k := range []error{
		backends.ErrInvalid, backends.ErrNotFound, backends.ErrExists, backends.ErrOutOfRange, backends.ErrNoSpace,
		backends.ErrInUse, backends.ErrPrecondition, backends.ErrDataLoss, backends.ErrPending, backends.ErrUnavailable, backends.ErrUnsupported,
		context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, k) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
}

var (
	_ backends.Controller       = (*Backend)(nil)
	_ backends.Node             = (*Backend)(nil)
	_ backends.FormatRecorder   = (*Backend)(nil)
	_ backends.NodeExpander     = (*Backend)(nil)
	_ backends.NodeRecoverer    = (*Backend)(nil)
	_ backends.VolumeIDer       = (*Backend)(nil)
	_ backends.VolumeChecker    = (*Backend)(nil)
	_ backends.Expander         = (*Backend)(nil)
	_ backends.VolumeLister     = (*Backend)(nil)
	_ backends.CapacityReporter = (*Backend)(nil)
	_ backends.Recoverer        = (*Backend)(nil)
	_ backends.Prober           = (*Backend)(nil)
	_ backends.TopologyReporter = (*Backend)(nil)
	_ backends.HealthChecker    = (*Backend)(nil)
	_ backends.HealthLister     = (*Backend)(nil)
	_ backends.Snapshotter      = (*Backend)(nil)
	_ backends.SnapshotIDer     = (*Backend)(nil)
	_ backends.SnapshotLister   = (*Backend)(nil)
	_ backends.Cloner           = (*Backend)(nil)

	_ backends.ControllerFilter    = (*Backend)(nil)
	_ backends.ChangedBlockTracker = (*Backend)(nil)

	_ backends.GroupSnapshotter  = (*Backend)(nil)
	_ backends.GroupSnapshotIDer = (*Backend)(nil)

	_ backends.Modifier             = (*Backend)(nil)
	_ backends.NodeFilter           = (*Backend)(nil)
	_ backends.EphemeralProvisioner = (*Backend)(nil)
	_ backends.AttachLimiter        = (*Backend)(nil)
	_ backends.NodeHealthChecker    = (*Backend)(nil)
	_ backends.StorageHealthChecker = (*Backend)(nil)
)
