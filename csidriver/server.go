package csidriver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// EndpointEnv is where the CO says which endpoint to serve.
const EndpointEnv = "CSI_ENDPOINT"

// ServerOptions are the options of [NewServer]. The zero value is ready for a
// Unix socket.
type ServerOptions struct {
	// Logger gets a line for each RPC, at Info when the RPC may change something
	// and at Debug when not, and at Warn when the driver is at fault or its
	// storage away. nil: slog.Default().
	Logger *slog.Logger
	// LogRequests adds the redacted request, at Debug.
	LogRequests bool

	// TLS encrypts a tcp:// endpoint, which is refused without:
	// credentials.NewTLS(config). It is no option for a Unix socket: SocketMode
	// says who may connect there. Credentials and not a tls.Config, so that a
	// driver without TCP does not carry crypto/tls (1 MB).
	TLS credentials.TransportCredentials
	// InsecureTCP serves a tcp:// endpoint in clear text, secrets included, to
	// whoever can reach it. For tests.
	InsecureTCP bool
	// SocketMode is the permission bits of the socket that Run makes; 0: 0600.
	SocketMode fs.FileMode

	// Drain is how long running work may take to end when the context of Serve
	// ends; 0: 30 s.
	Drain time.Duration
	// Operations is called while draining and waits for work that outlives its
	// RPC, until ctx ends. It names what it had to cut.
	Operations func(ctx context.Context) []string

	// UnaryInterceptors and StreamInterceptors run inside those of csikit and see
	// the protobuf messages.
	UnaryInterceptors  []grpc.UnaryServerInterceptor
	StreamInterceptors []grpc.StreamServerInterceptor

	// TracerProvider and MeterProvider get a span and a duration of each RPC; the
	// trace goes on that the client's metadata names. nil: neither, at no cost.
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider

	// Errors makes gRPC statuses of the errors of handlers; method is the full
	// name, /csi.v1.Node/NodeStageVolume. nil, or where it answers nil: a status
	// stays what it is, a context's error becomes CANCELLED or DEADLINE_EXCEEDED,
	// and anything else UNAVAILABLE when the RPC may have changed something (the CO
	// must go on retrying) and INTERNAL when not.
	//
	// Whatever it answers is then made to fit CSI: a canonical code, a message, no
	// details, and no secret of the request in it.
	Errors func(ctx context.Context, method string, err error) error
	// OnPanic says what a panic of a handler answers. nil, or where it answers
	// nil: UNAVAILABLE when the RPC may have changed something, else INTERNAL. The
	// panic and its stack go to Logger.
	OnPanic func(method string) error
}

// Server is a gRPC server with csikit's endpoint, interceptors and life cycle.
// It serves any csi.*Server values, csikit's own or others.
type Server struct {
	opts    ServerOptions
	logger  *slog.Logger
	grpc    *grpc.Server
	methods map[string]*method
	ids     *requestIDs
	calls   calls
	redact  redactor

	telemetry *rpcTelemetry // nil: off
	patience  patience
}

// Limits of the transport.
const (
	streamWorkers = 4        // goroutines kept for calls: 15 % off a small RPC
	maxMessage    = 16 << 20 // gRPC answers a larger request RESOURCE_EXHAUSTED, which CreateVolume's caller takes as "no space"
	handshake     = 10 * time.Second
)

// NewServer makes a server. register gets the *grpc.Server and registers the
// services on it.
func NewServer(o *ServerOptions, register func(grpc.ServiceRegistrar)) *Server {
	s := &Server{ids: newRequestIDs(), patience: usualPatience()}
	if o != nil {
		s.opts = *o
	}
	if s.opts.Drain == 0 {
		s.opts.Drain = 30 * time.Second
	}
	if s.logger = s.opts.Logger; s.logger == nil {
		s.logger = slog.Default()
	}
	s.telemetry = newRPCTelemetry(newSource(s.opts.TracerProvider, s.opts.MeterProvider, s.logger))
	s.grpc = grpc.NewServer(s.transport()...)
	register(s.grpc)
	s.methods = methodsOf(s.grpc)
	return s
}

func (s *Server) transport() []grpc.ServerOption {
	unary, stream := s.interceptors()
	opts := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(unary...),
		grpc.ChainStreamInterceptor(stream...),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.ConnectionTimeout(handshake),
		// A client may ask every 10 s whether we live, also between calls; the
		// default would throw it out. We look for dead ones, which only TCP has.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 5 * time.Minute, Timeout: time.Minute}),
	}
	if s.opts.TLS != nil {
		opts = append(opts, grpc.Creds(s.opts.TLS))
	}
	return opts
}

// Run listens at the endpoint (see [Listen]; "": what CSI_ENDPOINT says) and
// serves there.
func (s *Server) Run(ctx context.Context, endpoint string) error {
	if endpoint == "" {
		endpoint = os.Getenv(EndpointEnv)
	}
	ep, err := parseEndpoint(endpoint)
	if err != nil {
		return err
	}
	if err := s.permit(ep.network); err != nil {
		return fmt.Errorf("endpoint %s: %w", endpoint, err)
	}
	lis, err := Listen(endpoint, s.opts.SocketMode)
	if err != nil {
		return err
	}
	return s.Serve(ctx, lis)
}

// permit says whether this server may be reached over a network.
func (s *Server) permit(network string) error {
	switch {
	case s.opts.TLS != nil && s.opts.TLS.Info().SecurityProtocol == "insecure":
		return errors.New("TLS holds credentials that encrypt nothing")
	case network == "tcp" && s.opts.TLS == nil && !s.opts.InsecureTCP:
		return errors.New("CSI carries secrets: a TCP endpoint needs TLS (loopback too), or InsecureTCP")
	case network == "unix" && s.opts.TLS != nil:
		return errors.New("TLS is for TCP endpoints: COs speak clear text over a Unix socket, and its mode says who may connect")
	}
	return nil
}

// Serve serves on lis, and closes it, until ctx ends; then it drains: no new
// connections, GOAWAY to the clients, and up to Options.Drain for calls and
// operations to end. It answers nil when all of them did, and a *[DrainError]
// that names those which it cut. It never waits longer than Drain and some
// seconds. A server serves once.
func (s *Server) Serve(ctx context.Context, lis net.Listener) error {
	if err := s.permit(lis.Addr().Network()); err != nil {
		return errors.Join(fmt.Errorf("listener %s: %w", lis.Addr(), err), lis.Close())
	}
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(lis) }()
	s.logger.LogAttrs(ctx, slog.LevelInfo, "serving", slog.String("endpoint", lis.Addr().String()))
	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("serve %s: %w", lis.Addr(), err), s.drain(ctx))
	case <-ctx.Done():
		return s.drain(ctx)
	}
}
