package mutants

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/loopfile"
	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/mounter"
)

// Options say where a driver runs.
type Options struct {
	Endpoint string
	Dir      string    // its state and its storage; it exists
	Out      io.Writer // its log; nil: none
}

// Driver is one that runs.
type Driver struct {
	rig     *Rig
	stop    context.CancelFunc // of the driver behind
	served  chan error         // of the driver behind, and of the front
	conn    *grpc.ClientConn
	servers []*grpc.Server
	close   func() error // of the storage
}

const nodeID = "node-1"

// newRig is the reference driver, before a mutant is installed.
func newRig(b Base, o Options) *Rig {
	r := &Rig{Dir: o.Dir, Out: o.Out}
	if r.Out == nil {
		r.Out = io.Discard
	}
	r.Store = mem.StoreOptions{Dir: filepath.Join(o.Dir, "volumes"), Zones: []string{"zone-1", "zone-2"}}
	r.Mem = mem.Options{Node: nodeID, Zone: "zone-1", MaxVolumes: 40, Without: []string{"StatsReporter"}} // what a directory holds is what its file system does
	r.Loop = loopfile.Options{
		Pool: filepath.Join(o.Dir, "pool"), Name: "mutants", Node: nodeID, Thin: true, Overcommit: 100, Init: true, AllowRootFS: true,
		Attach: true, EphemeralMax: 1 << 30,
	}
	r.Config = csidriver.Config{Name: b.String() + ".mutants.csikit.dev", Version: "1.0.0"}
	r.Options = csidriver.Options{NodeID: nodeID, StateDir: filepath.Join(o.Dir, "state"), Logger: r.log(), Drain: 2 * time.Second}
	withBlocks(r)
	r.Listen = func(endpoint string) (net.Listener, error) { return csidriver.Listen(endpoint, 0) }
	return r
}

// Start serves the driver, with the mutant's fault, until Stop.
func Start(ctx context.Context, m Mutant, o Options) (_ *Driver, err error) {
	r := newRig(m.Base, o)
	m.Install(r)
	d := &Driver{rig: r, served: make(chan error, 3), close: func() error { return nil }}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("mutants: %s: %w", m.Name, err), d.close())
		}
	}()
	if err := d.storage(m.Base); err != nil {
		return nil, err
	}
	if r.Traits != nil {
		r.Traits(&r.Config.Traits)
	}
	if err := d.withEngine(); err != nil {
		return nil, err
	}
	behind, err := csidriver.New(r.Config, &r.Options)
	if err != nil {
		return nil, err
	}
	lis, err := r.Listen(o.Endpoint)
	if err != nil {
		return nil, err
	}
	if !r.Split {
		return d, d.serve(ctx, behind, map[int]net.Listener{controllerHalf | nodeHalf: lis})
	}
	node, err := r.Listen(NodeEndpoint(o.Endpoint))
	if err != nil {
		return nil, errors.Join(err, lis.Close())
	}
	return d, d.serve(ctx, behind, map[int]net.Listener{controllerHalf: lis, nodeHalf: node})
}

// NodeEndpoint is where the node half of a driver answers that is split.
func NodeEndpoint(endpoint string) string {
	return endpoint[:strings.LastIndexByte(endpoint, '/')+1] + "node.sock"
}

// storage makes the backend.
func (d *Driver) storage(b Base) error {
	r := d.rig
	if b == Loop {
		if err := os.MkdirAll(r.Loop.Pool, 0o750); err != nil {
			return err
		}
		l, err := loopfile.New(r.Loop)
		if err != nil {
			return err
		}
		d.close = l.Close
		r.Config.Traits, r.Config.Controller, r.Config.Node = l.Traits(), l, &loopNode{l, r}
		r.Config.Traits.FSTypes = []string{"xfs", "ext4", "btrfs"} // a mounted ext4 grows only with CAP_SYS_RESOURCE
		return nil
	}
	if err := os.MkdirAll(r.Store.Dir, 0o750); err != nil {
		return err
	}
	r.Mem.Store = mem.NewStore(&r.Store)
	b2, err := mem.New(&r.Mem)
	if err != nil {
		return err
	}
	for _, f := range r.Faults {
		b2.Inject(f)
	}
	r.backend = b2
	r.Config.Traits, r.Config.Controller, r.Config.Node = b2.Traits(), b2, &memNode{b2, r}
	return nil
}

// withEngine puts the hooks around the node engine.
func (d *Driver) withEngine() error {
	r := d.rig
	if r.Config.Serve == csidriver.ServeController {
		return nil
	}
	e, err := mounter.New(r.Config.Node, &mounter.Options{
		StateDir: r.Options.StateDir, AllowVolatileState: true, Logger: r.Options.Logger,
		FSTypes: r.Config.Traits.FSTypes, NoDevices: !r.Config.Traits.Devices,
	})
	if err != nil {
		return err
	}
	r.Options.Engine = &engine{e, r.Engine}
	return nil
}

// serve starts the driver behind and the servers in front of it, by what they answer.
func (d *Driver) serve(ctx context.Context, behind *csidriver.Driver, listeners map[int]net.Listener) error {
	inner := bufconn.Listen(1 << 20)
	ctx, d.stop = context.WithCancel(context.WithoutCancel(ctx))
	conn, err := grpc.NewClient("passthrough:///behind", grpc.WithAuthority("localhost"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return inner.DialContext(ctx) }))
	if err != nil {
		d.stop()
		for _, lis := range listeners {
			err = errors.Join(err, lis.Close())
		}
		return err
	}
	d.conn, d.rig.conn = conn, conn
	for _, fn := range d.rig.Started {
		fn(d.rig)
	}
	go func() { d.served <- behind.Serve(ctx, inner) }()
	for halves, lis := range listeners {
		s := (&front{rig: d.rig, driver: conn}).server(halves)
		d.servers = append(d.servers, s)
		go func() { d.served <- s.Serve(lis) }()
	}
	return nil
}

// Done gets what the driver ended with, when it ends by itself.
func (d *Driver) Done() <-chan error { return d.served }

// Stop ends the driver as SIGTERM does.
func (d *Driver) Stop() error {
	for _, fn := range d.rig.Stopping {
		fn(d.rig)
	}
	for _, s := range d.servers {
		done := make(chan struct{})
		go func() { s.GracefulStop(); close(done) }()
		select {
		case <-done:
		case <-time.After(2 * time.Second):
			s.Stop() // a call hangs, as some mutants have it
		}
	}
	d.stop()
	err := <-d.served
	for range d.servers {
		err = errors.Join(err, <-d.served)
	}
	d.rig.endChildren()
	return errors.Join(err, d.conn.Close(), d.close())
}

// memNode and loopNode are the node halves with the rig's hooks around them.
type memNode struct {
	*mem.Backend
	r *Rig
}

func (n *memNode) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	return n.r.open(ctx, req, n.Backend.OpenVolume)
}

func (n *memNode) CloseVolume(ctx context.Context, req backends.CloseVolumeRequest) error {
	return n.r.closeVolume(ctx, req, n.Backend.CloseVolume)
}

type loopNode struct {
	*loopfile.Backend
	r *Rig
}

func (n *loopNode) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	return n.r.open(ctx, req, n.Backend.OpenVolume)
}

func (n *loopNode) CloseVolume(ctx context.Context, req backends.CloseVolumeRequest) error {
	return n.r.closeVolume(ctx, req, n.Backend.CloseVolume)
}

func (r *Rig) open(ctx context.Context, req backends.OpenVolumeRequest, next openFunc) (*backends.Source, error) {
	if r.Open == nil {
		return next(ctx, req)
	}
	return r.Open(ctx, req, next)
}

func (r *Rig) closeVolume(ctx context.Context, req backends.CloseVolumeRequest, next closeFunc) error {
	if r.Close == nil {
		return next(ctx, req)
	}
	return r.Close(ctx, req, next)
}

// volumeDir is where package mem has the files of a volume or a snapshot.
func (r *Rig) volumeDir(id string) string { return filepath.Join(r.Store.Dir, filepath.Base(id)) }

// image is where package loopfile has the bytes of a volume.
func (r *Rig) image(id string) string {
	_, dir, _ := strings.Cut(id, ".")
	return filepath.Join(r.Loop.Pool, "v", filepath.Base(dir), "img")
}
