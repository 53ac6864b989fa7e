package mutants

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/loopfile"
	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/csidriver"
)

// Rig is a driver before it starts: where mutants are installed.
type Rig struct {
	Dir string    // the driver's own directory
	Out io.Writer // its log

	// Store, Mem and Loop are options of the storage, whichever it is.
	Store mem.StoreOptions
	Mem   mem.Options
	Loop  loopfile.Options

	Config  csidriver.Config // complete but for the halves, which come later
	Options csidriver.Options
	Traits  func(*backends.Traits)

	// Faults happen in package mem.
	Faults []mem.Fault
	// Open and Close are around the node half of the backend; Engine is around the
	// node engine.
	Open   func(ctx context.Context, req backends.OpenVolumeRequest, next openFunc) (*backends.Source, error)
	Close  func(ctx context.Context, req backends.CloseVolumeRequest, next closeFunc) error
	Engine engineHooks

	// Split has the node half answer at a socket of its own, node.sock beside the
	// endpoint's.
	Split bool
	// Listen makes the listener of the endpoint.
	Listen func(endpoint string) (net.Listener, error)
	// Started is called when the driver is about to serve, Stopping when it is about
	// to end.
	Started, Stopping []func(r *Rig)

	backend *mem.Backend      // once it is made; nil with another storage
	conn    *grpc.ClientConn  // to the driver behind
	hidden  memory[time.Time] // volumes, and until when
	kept    kept
	unary   []interceptor
	stream  []streamInterceptor
}

type (
	openFunc  func(context.Context, backends.OpenVolumeRequest) (*backends.Source, error)
	closeFunc func(context.Context, backends.CloseVolumeRequest) error
)

// log is the driver's own.
func (r *Rig) log() *slog.Logger { return slog.New(slog.NewTextHandler(r.Out, nil)) }

// next hands a call on to the driver, or to the mutation behind.
type next func(ctx context.Context, req proto.Message) (proto.Message, error)

// interceptor stands in front of the driver, for one method or (with "") all.
type interceptor struct {
	method string // short, CreateVolume
	fn     func(ctx context.Context, method string, req proto.Message, next next) (proto.Message, error)
}

// nextStream hands a stream on; send is called for each message of it.
type nextStream func(ctx context.Context, req proto.Message, send func(proto.Message) error) error

type streamInterceptor struct {
	method string
	fn     func(ctx context.Context, req proto.Message, send func(proto.Message) error, next nextStream) error
}

// every intercepts all methods.
func (r *Rig) every(fn func(ctx context.Context, method string, req proto.Message, next next) (proto.Message, error)) {
	r.unary = append(r.unary, interceptor{"", fn})
}

// methodOf is the method that has this type of request.
func methodOf[Q proto.Message]() string {
	var q Q
	return strings.TrimSuffix(string(q.ProtoReflect().Descriptor().Name()), "Request")
}

// around intercepts the method that has this type of request.
func around[Q, R proto.Message](r *Rig, fn func(ctx context.Context, q Q, next func(context.Context, Q) (R, error)) (R, error)) {
	r.unary = append(r.unary, interceptor{methodOf[Q](), func(ctx context.Context, _ string, req proto.Message, next next) (proto.Message, error) {
		resp, err := fn(ctx, req.(Q), func(ctx context.Context, q Q) (R, error) {
			var zero R
			m, err := next(ctx, q)
			if err != nil {
				return zero, err
			}
			return m.(R), nil
		})
		if err != nil {
			return nil, err
		}
		return resp, nil
	}})
}

// reply edits what is answered with OK.
func reply[Q, R proto.Message](edit func(q Q, r R)) func(*Rig) {
	return func(rig *Rig) {
		around(rig, func(ctx context.Context, q Q, next func(context.Context, Q) (R, error)) (R, error) {
			resp, err := next(ctx, q)
			if err == nil {
				edit(q, resp)
			}
			return resp, err
		})
	}
}

// request edits what the driver is asked.
func request[Q proto.Message](edit func(q Q)) func(*Rig) {
	return func(rig *Rig) {
		around(rig, func(ctx context.Context, q Q, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
			q = proto.Clone(q).(Q)
			edit(q)
			return next(ctx, q)
		})
	}
}

// code answers an error of the driver with another code. OK swallows it.
func code[Q proto.Message](from, to codes.Code) func(*Rig) {
	return codeWhen(func(Q) bool { return true }, from, to)
}

// codeWhen is code for some requests.
func codeWhen[Q proto.Message](when func(Q) bool, from, to codes.Code) func(*Rig) {
	return func(rig *Rig) {
		around(rig, func(ctx context.Context, q Q, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
			resp, err := next(ctx, q)
			if status.Code(err) != from || !when(q) {
				return resp, err
			}
			if to == codes.OK {
				return newReply(methodOf[Q]()), nil
			}
			return nil, status.Error(to, status.Convert(err).Message())
		})
	}
}

// refuse answers some requests with an error.
func refuse[Q proto.Message](when func(Q) bool, with codes.Code, msg string) func(*Rig) {
	return func(rig *Rig) {
		around(rig, func(ctx context.Context, q Q, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
			if when(q) {
				return nil, status.Error(with, msg)
			}
			return next(ctx, q)
		})
	}
}

// unimplemented answers as a method that nobody wrote.
func unimplemented[Q proto.Message]() func(*Rig) {
	return refuse(func(Q) bool { return true }, codes.Unimplemented, "method "+methodOf[Q]()+" not implemented")
}

// both installs several.
func both(list ...func(*Rig)) func(*Rig) {
	return func(r *Rig) {
		for _, install := range list {
			install(r)
		}
	}
}
