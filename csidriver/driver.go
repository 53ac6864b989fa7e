package csidriver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/kubeletpb"
	"github.com/csikit/csikit/idempotency"
	"github.com/csikit/csikit/mounter"
)

// Services says which services a process answers. Identity is always there.
type Services uint8

// The services of CSI that a driver may split between processes.
const (
	ServeController Services = 1 << iota
	ServeNode
)

// Config is the driver. It is the same in every process of it but for Serve:
// what Identity answers follows from the traits and the method sets of both
// halves, never from a connection, so a half that this process does not serve
// may be an unconnected value.
type Config struct {
	Name       string // "csi.example.com": domain form, at most 63 characters
	Version    string // "": that of the main module, or "devel"
	Traits     backends.Traits
	Controller backends.Controller // nil: the driver has none, anywhere
	Node       backends.Node       // nil: the driver has none, anywhere
	Serve      Services            // what this process answers; 0: all that there is
}

// Options are the options of [New]; nil is all defaults.
type Options struct {
	NodeID   string // of this node, at most 256 bytes; needed to serve Node
	StateDir string // of the node engine, on the host's own disk; needed to serve Node
	// SharedDirs are directories, such as kubelet's, whose mounts must reach the
	// host: a container without bidirectional mount propagation does not get ready
	// (pods would see empty directories).
	SharedDirs []string
	// FUSEServers runs the servers of FUSE volumes (backends.FUSE) outside of this
	// container: a fusehost.Client, mostly. nil: there are no such volumes.
	FUSEServers mounter.ServerHost
	// Engine replaces the node engine, package mounter's, for tests.
	Engine Engine

	// KubeletRegistry is kubelet's plugins_registry directory as this process sees
	// it. The driver then registers there by itself, again after kubelet or somebody
	// else has removed its socket, and needs no node-driver-registrar. "": it does
	// not register. For who serves Node, at a Unix socket.
	KubeletRegistry string
	// KubeletEndpoint is the path of the driver's socket as kubelet sees it, where
	// that differs from what this process serves, as in most containers. "": it does
	// not differ.
	KubeletEndpoint string
	// HealthAddress, host:port, answers GET /healthz and GET /readyz in clear text.
	// /healthz is 503 when only a restart can help: Probe fails, or the driver's
	// socket is gone; a driver that recovers what an earlier process left, waits for
	// its storage, or drains, is 200 there. /readyz is 200 when all calls are served,
	// Probe says ready and, with KubeletRegistry, kubelet has registered the driver.
	// "": it does not listen.
	HealthAddress string

	Logger      *slog.Logger  // nil: slog.Default()
	LogRequests bool          // log redacted requests, at Debug
	Wait        time.Duration // longest wait for a conflicting operation; 0: 10 s
	Stall       time.Duration // an operation without progress for so long is cancelled; 0: 2 min
	Drain       time.Duration // how long running work may take to end at shutdown; 0: 30 s
	NoAlpha     bool          // neither serve nor advertise alpha RPCs and modes
	// Locker keeps the replicas of a controller from changing the same volume at
	// once, as package idempotency/etcdlock does. A backend finds fencing tokens by
	// idempotency.Fence, for the keys "name:" with the name of what is created, "id:"
	// with a volume's ID and "snapshot:" with a snapshot's; for the source of a copy
	// by idempotency.SharedFence. One that is no idempotency.SharedLocker does not
	// keep a replica from deleting what another one copies, attaches to a further
	// node or reads: the backend has to. nil: operations exclude each other in this
	// process alone.
	Locker idempotency.Locker

	TLS                credentials.TransportCredentials // for a tcp:// endpoint: credentials.NewTLS(config)
	SocketMode         fs.FileMode                      // of a Unix socket; 0: 0600
	UnaryInterceptors  []grpc.UnaryServerInterceptor
	StreamInterceptors []grpc.StreamServerInterceptor
	// TracerProvider and MeterProvider get spans and metrics; see the package
	// comment. nil: neither, at no cost.
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider
	// Register adds services beside CSI's.
	Register func(*grpc.Server)
}

// Driver is a CSI driver. It serves once.
type Driver struct {
	cfg        Config
	opts       Options
	logger     *slog.Logger
	features   *features
	served     map[string]bool
	validator  validator
	operations *idempotency.Table
	server     *Server
	engine     Engine   // nil unless this process serves Node
	tools      []string // that must be installed
	health     *health
	telemetry  *operationTelemetry // nil: off
	lease      time.Duration       // readerLease, but in tests

	verdict   atomic.Pointer[kubeletpb.RegistrationStatus] // kubelet's last one; nil: none yet
	installed atomic.Bool                                  // all of tools were found
	started   atomic.Bool
	ready     atomic.Bool
}

// New makes a driver of a backend. What does not fit together is reported all at
// once, and nothing is started.
func New(cfg Config, o *Options) (*Driver, error) {
	if o == nil {
		o = new(Options)
	}
	complete(&cfg)
	d := &Driver{cfg: cfg, opts: *o, logger: o.Logger, features: newFeatures(&cfg, o), lease: readerLease}
	if d.logger == nil {
		d.logger = slog.Default()
	}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("csidriver: %w", err)
	}
	if o.NoAlpha {
		d.withoutAlphaModes()
	}
	d.telemetry = newOperationTelemetry(newSource(o.TracerProvider, o.MeterProvider, d.logger))
	if err := d.makeEngine(); err != nil {
		return nil, fmt.Errorf("csidriver: node engine: %w", err)
	}
	d.served = d.features.served(cfg.Serve)
	d.validator = newValidator()
	d.operations = idempotency.NewTable(&idempotency.Options{
		Wait: o.Wait, Stall: o.Stall, Locker: acrossReplicas(o.Locker), Observer: d.operationEvent,
	})
	d.health = newHealth(d)
	d.server = NewServer(d.serverOptions(), d.register)
	d.advise()
	return d, nil
}

// complete fills in what may be left out.
func complete(cfg *Config) {
	if cfg.Version == "" {
		cfg.Version = buildVersion()
	}
	if cfg.Serve != 0 {
		return
	}
	if cfg.Controller != nil {
		cfg.Serve |= ServeController
	}
	if cfg.Node != nil {
		cfg.Serve |= ServeNode
	}
}

// withoutAlphaModes replaces the two modes that the spec calls alpha by the one
// that they stand for.
func (d *Driver) withoutAlphaModes() {
	var modes []backends.AccessMode
	for _, m := range d.cfg.Traits.Modes {
		if m == backends.SingleNodeSingleWriter || m == backends.SingleNodeMultiWriter {
			m = backends.SingleNodeWriter
		}
		if !slices.Contains(modes, m) {
			modes = append(modes, m)
		}
	}
	d.cfg.Traits.Modes, d.features.traits.Modes = modes, modes
}

func (d *Driver) serverOptions() *ServerOptions {
	return &ServerOptions{
		Logger:             d.logger,
		LogRequests:        d.opts.LogRequests,
		TLS:                d.opts.TLS,
		SocketMode:         d.opts.SocketMode,
		Drain:              d.opts.Drain,
		UnaryInterceptors:  d.interceptors(),
		StreamInterceptors: d.streamInterceptors(),
		Errors:             passStatus,
		OnPanic:            panicked,
		TracerProvider:     d.opts.TracerProvider,
		MeterProvider:      d.opts.MeterProvider,
		Operations:         d.drainOperations,
	}
}

func (d *Driver) register(r grpc.ServiceRegistrar) {
	csi.RegisterIdentityServer(r, &identity{Driver: d})
	if d.cfg.Serve&ServeController != 0 {
		c := newController(d)
		csi.RegisterControllerServer(r, c)
		csi.RegisterGroupControllerServer(r, &groupController{controller: c})
		csi.RegisterSnapshotMetadataServer(r, &snapshotMetadata{controller: c})
	}
	if d.cfg.Serve&ServeNode != 0 {
		csi.RegisterNodeServer(r, newNode(d))
	}
	if s, ok := r.(*grpc.Server); ok && d.opts.Register != nil {
		d.opts.Register(s)
	}
}

// Run listens at the endpoint (see [Listen]; "": what CSI_ENDPOINT says) and is
// Serve there.
func (d *Driver) Run(ctx context.Context, endpoint string) error {
	if endpoint == "" {
		endpoint = os.Getenv(EndpointEnv)
	}
	lis, err := Listen(endpoint, d.opts.SocketMode)
	if err != nil {
		return err
	}
	return d.Serve(ctx, lis)
}

// Serve serves on lis, and closes it, until ctx ends. It listens early and is
// ready late: Identity, the capabilities and NodeGetInfo answer at once, with
// Probe's ready=false; everything else is UNAVAILABLE until both halves have
// recovered what an earlier process left half-done.
//
// At ctx's end it drains: it waits up to Options.Drain for calls and operations
// to end. The answer is nil when all have, and a *[DrainError] that names what
// was cut. A driver serves once.
func (d *Driver) Serve(ctx context.Context, lis net.Listener) error {
	if d.started.Swap(true) {
		return errors.Join(errors.New("csidriver: a Driver serves once"), lis.Close())
	}
	if err := d.server.permit(lis.Addr().Network()); err != nil {
		return errors.Join(fmt.Errorf("csidriver: listener %s: %w", lis.Addr(), err), lis.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	leave, err := d.beside(ctx, lis)
	if err != nil {
		return errors.Join(err, lis.Close())
	}
	defer leave()
	recovered := make(chan error, 1)
	go func() {
		err := d.recover(ctx)
		if ctx.Err() != nil {
			err = nil // cut short, because the driver stops
		}
		if err != nil {
			stop()
		}
		recovered <- err
	}()
	err = d.server.Serve(ctx, lis)
	stop()
	return errors.Join(endOfRecovery(recovered, d.server.patience.stop), err, d.closeEngine())
}

// beside starts what is no part of CSI: HTTP for health, and registration with
// kubelet, which ends when ctx does: before the driver stops to answer.
func (d *Driver) beside(ctx context.Context, lis net.Listener) (stop func(), err error) {
	stopHealth, err := d.startHealth(ctx, lis)
	if err != nil {
		return nil, err
	}
	stopRegistration, err := d.startRegistration(ctx, lis)
	if err != nil {
		stopHealth()
		return nil, err
	}
	return func() { stopRegistration(); stopHealth() }, nil
}

func (d *Driver) closeEngine() error {
	if d.engine == nil {
		return nil
	}
	return d.engine.Close()
}
