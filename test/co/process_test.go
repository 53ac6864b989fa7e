package co

import (
	"context"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mountertest"
)

// machine is where the processes of a driver run: a storage, one node's kernel and
// its disk for records. It outlives them.
type machine struct {
	store  *mem.Store
	kernel *mountertest.Kernel
	state  string
	log    slog.Handler
}

const thisNode = "node-1"

func newMachine(t testing.TB) *machine {
	m := &machine{
		store:  mem.NewStore(&mem.StoreOptions{Devices: true}),
		kernel: mountertest.NewKernel(), state: recordDir(t), log: slog.DiscardHandler,
	}
	m.store.AddNode(thisNode, "", 0)
	return m
}

// recordDir is in memory where there is such a place: each record is fsynced, and on a
// disk that others use, too, these tests would wait for nothing else.
func recordDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "co") //nolint:usetesting // t.TempDir is not in memory
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// process is one process of the driver.
type process struct {
	backend *mem.Backend
	engine  *hooked
	connect func(context.Context) (net.Conn, error)
	stop    context.CancelFunc
	end     func() error // stops it, and says what it says
}

// setup is what a test changes before the process starts.
type setup struct {
	cfg     csidriver.Config
	opts    csidriver.Options
	backend *mem.Backend
	kernel  mounter.Kernel
}

// spawn starts a process of the driver.
func (m *machine) spawn(t testing.TB, o mem.Options, change func(*setup)) *process {
	t.Helper()
	o.Store = m.store
	b, err := mem.New(&o)
	if err != nil {
		t.Fatal(err)
	}
	s := &setup{backend: b, kernel: m.kernel}
	s.cfg = csidriver.Config{Name: "mem.csikit.dev", Version: "v1", Traits: b.Traits(), Controller: b, Node: b}
	s.opts = csidriver.Options{NodeID: thisNode, Logger: slog.New(m.log)}
	if change != nil {
		change(s)
	}
	lis := bufconn.Listen(1 << 16)
	p := &process{backend: b, connect: lis.DialContext}
	if s.cfg.Serve != csidriver.ServeController {
		real, err := mounter.New(b, &mounter.Options{
			StateDir: m.state, AllowVolatileState: true, Kernel: s.kernel, FSTypes: s.cfg.Traits.FSTypes, Logger: s.opts.Logger,
		})
		if err != nil {
			t.Fatal(err)
		}
		p.engine = &hooked{Engine: real}
		s.opts.Engine = p.engine
	}
	d, err := csidriver.New(s.cfg, &s.opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx, lis) }()
	p.end = sync.OnceValue(func() error { cancel(); return <-served })
	return p
}

// clients are those of one connection.
type clients struct {
	csi.IdentityClient
	csi.ControllerClient
	csi.NodeClient
	csi.GroupControllerClient
	csi.SnapshotMetadataClient
	conn *grpc.ClientConn
}

// dial connects to what dialer finds, now and after each loss of the connection.
func dial(t testing.TB, dialer func(context.Context) (net.Conn, error), more ...grpc.DialOption) *clients {
	t.Helper()
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dialer(ctx) }),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, MaxDelay: 30 * time.Second}}),
	}
	conn, err := grpc.NewClient("passthrough:///driver", append(opts, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return &clients{
		csi.NewIdentityClient(conn), csi.NewControllerClient(conn), csi.NewNodeClient(conn),
		csi.NewGroupControllerClient(conn), csi.NewSnapshotMetadataClient(conn), conn,
	}
}

// hooked is the real engine with faults at its door: what it answers when the
// kernel, and not the backend, fails.
type hooked struct {
	*mounter.Engine
	before, after func(ctx context.Context, method string) error // nil ok
}

func (h *hooked) at(ctx context.Context, method string, fn func() error) error {
	if h.before != nil {
		if err := h.before(ctx, method); err != nil {
			return err
		}
	}
	err := fn()
	if h.after != nil {
		if lost := h.after(ctx, method); lost != nil {
			return lost
		}
	}
	return err
}

func (h *hooked) Stage(ctx context.Context, r mounter.StageRequest) error {
	return h.at(ctx, "Stage", func() error { return h.Engine.Stage(ctx, r) })
}

func (h *hooked) Unstage(ctx context.Context, r mounter.UnstageRequest) error {
	return h.at(ctx, "Unstage", func() error { return h.Engine.Unstage(ctx, r) })
}

func (h *hooked) Publish(ctx context.Context, r mounter.PublishRequest) error {
	return h.at(ctx, "Publish", func() error { return h.Engine.Publish(ctx, r) })
}

func (h *hooked) Unpublish(ctx context.Context, r mounter.UnpublishRequest) error {
	return h.at(ctx, "Unpublish", func() error { return h.Engine.Unpublish(ctx, r) })
}

func (h *hooked) Expand(ctx context.Context, r mounter.ExpandRequest) (size int64, err error) {
	err = h.at(ctx, "Expand", func() (err error) { size, err = h.Engine.Expand(ctx, r); return err })
	return size, err
}

func (h *hooked) Stats(ctx context.Context, r mounter.StatsRequest) (s *mounter.Stats, err error) {
	err = h.at(ctx, "Stats", func() (err error) { s, err = h.Engine.Stats(ctx, r); return err })
	return s, err
}

var _ csidriver.Engine = (*hooked)(nil)
