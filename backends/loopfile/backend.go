package loopfile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit"
	"github.com/csikit/csikit/internal/faultpoint"
)

// Backend serves one pool. Both halves are on it; a process that serves one of
// them says so in Options.Half.
type Backend struct {
	o   Options
	log *slog.Logger
	// step is told where an operation is: a fault point. Tests stop the process there.
	step      func(string)
	noteEvery int64 // tests make it small

	mu     sync.Mutex
	pool   *pool // nil: never opened
	closed bool
	late   func(*pool) // recovery that found no pool: the next opening does it

	throttle iolimit.Throttle // nil: no Options.Cgroup

	alloc  chan struct{} // held while space is measured and taken
	purges purges
	jobs   jobs
	shared sharers
	opened opened
	reuse  reuse
}

// New opens a pool. A directory that is no pool, or cannot be read, is no error
// here: the disk may be mounted later, and until then every call answers
// ErrUnavailable. Another driver on the pool, a pool of a newer version and a
// file system that cannot hold one are errors.
func New(o Options) (*Backend, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Init {
		if _, err := InitPool(o.Pool, &PoolOptions{Name: o.Name, AllowRootFS: o.AllowRootFS}); err != nil {
			return nil, fmt.Errorf("loopfile: init %s: %w", o.Pool, err)
		}
	}
	b := &Backend{
		o: o, log: o.Logger, step: faultpoint.Reach, noteEvery: noteEvery,
		alloc: make(chan struct{}, 1),
	}
	if o.Cgroup != "" {
		b.throttle = iolimit.Cgroup(o.Cgroup)
	}
	_, done, err := b.enter(0)
	switch {
	case err == nil:
		done()
	case errors.Is(err, errRefused):
		return nil, fmt.Errorf("loopfile: %w", err)
	default:
		b.log.Warn("pool is not available", "err", err)
	}
	return b, nil
}

// Close gives the pool back: another driver may open it. Volumes that are open
// stay attached.
func (b *Backend) Close() error {
	b.mu.Lock()
	p := b.pool
	b.pool, b.closed = nil, true
	b.mu.Unlock()
	b.jobs.close()
	b.purges.wait()
	b.reuse.remove()
	if p != nil {
		p.users.Wait()
		p.close()
	}
	return nil
}

// Traits of this driver.
func (b *Backend) Traits() backends.Traits { return Traits(b.o) }

// enter gives the verified pool to one operation; done ends its use. An error is
// ErrUnavailable.
func (b *Backend) enter(h Half) (_ *pool, done func(), err error) {
	if b.o.Half&h != h {
		return nil, nil, fmt.Errorf("%w: this process does not serve that half of pool %s", backends.ErrUnavailable, b.o.Pool)
	}
	// The first look is taken outside the mutex: a disk that hangs holds up its
	// own callers, and not those who want to know why.
	if p := b.current(); p != nil {
		if p.verify() == nil {
			return p, p.users.Done, nil
		}
		p.users.Done()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, nil, fmt.Errorf("%w: pool %s was closed", backends.ErrUnavailable, b.o.Pool)
	}
	if err := b.reopen(); err != nil {
		return nil, nil, err
	}
	b.pool.users.Add(1)
	return b.pool, b.pool.users.Done, nil
}

// current is the pool as it was opened, in use by the caller; nil: there is none.
func (b *Backend) current() *pool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pool != nil {
		b.pool.users.Add(1)
	}
	return b.pool
}

// reopen makes b.pool what is at the path now: the same pool, perhaps mounted
// anew. b.mu is held.
func (b *Backend) reopen() error {
	var gone error
	if b.pool != nil {
		if gone = b.pool.verify(); gone == nil {
			return nil
		}
	}
	p, err := openPool(b.o.Pool, &b.o)
	if err != nil {
		return errors.Join(gone, err)
	}
	if old := b.pool; old != nil {
		if old.info.ID != p.info.ID || old.info.Name != p.info.Name {
			p.close()
			return gone
		}
		go func() {
			old.users.Wait()
			old.close()
		}()
	}
	b.pool = p
	if late := b.late; late != nil {
		b.late = nil
		late(p) // nobody uses this pool yet
	}
	return nil
}

// Probe says whether the pool can be used.
func (b *Backend) Probe(context.Context) error {
	p, done, err := b.enter(0)
	if err != nil {
		return fmt.Errorf("%w: %w", backends.ErrNotReady, err)
	}
	defer done()
	f, err := p.facts()
	if err != nil {
		return fmt.Errorf("%w: %s: %w", backends.ErrNotReady, p.dir, err)
	}
	if f.ReadOnly {
		return fmt.Errorf("%w: %s is on a file system that is mounted read-only", backends.ErrNotReady, p.dir)
	}
	return nil
}

// NodeTopology is the node of the pool.
func (b *Backend) NodeTopology(context.Context) (backends.Segments, error) {
	return b.segments(), nil
}

func (b *Backend) segments() backends.Segments { return backends.Segments{TopologyKey: b.o.Node} }

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

	_ backends.Snapshotter          = (*Backend)(nil)
	_ backends.SnapshotIDer         = (*Backend)(nil)
	_ backends.Cloner               = (*Backend)(nil)
	_ backends.SnapshotLister       = (*Backend)(nil)
	_ backends.GroupSnapshotter     = (*Backend)(nil)
	_ backends.GroupSnapshotIDer    = (*Backend)(nil)
	_ backends.EphemeralProvisioner = (*Backend)(nil)
	_ backends.PublishedNodesLister = (*Backend)(nil)
	_ backends.Attacher             = (*Backend)(nil)
	_ backends.ControllerFilter     = (*Backend)(nil)
	_ backends.NodeFilter           = (*Backend)(nil)
	_ backends.HealthChecker        = (*Backend)(nil)
	_ backends.HealthLister         = (*Backend)(nil)
	_ backends.NodeHealthChecker    = (*Backend)(nil)
	_ backends.Modifier             = (*Backend)(nil)
	_ backends.ChangedBlockTracker  = (*Backend)(nil)
)
