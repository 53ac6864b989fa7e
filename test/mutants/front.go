package mutants

import (
	"context"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// front is the gRPC server that COs see. It hands calls on to the driver behind.
type front struct {
	rig    *Rig
	driver *grpc.ClientConn
}

// Halves of a driver that is split.
const (
	controllerHalf = 1 << iota
	nodeHalf
)

// server has all services of CSI: the driver behind says which it has.
func (f *front) server(halves int) *grpc.Server {
	s := grpc.NewServer(grpc.UnaryInterceptor(f.unary), grpc.StreamInterceptor(f.streams), grpc.MaxRecvMsgSize(16<<20))
	csi.RegisterIdentityServer(s, &csi.UnimplementedIdentityServer{})
	if halves&controllerHalf != 0 {
		csi.RegisterControllerServer(s, &csi.UnimplementedControllerServer{})
		csi.RegisterGroupControllerServer(s, &csi.UnimplementedGroupControllerServer{})
		csi.RegisterSnapshotMetadataServer(s, &csi.UnimplementedSnapshotMetadataServer{})
	}
	if halves&nodeHalf != 0 {
		csi.RegisterNodeServer(s, &csi.UnimplementedNodeServer{})
	}
	return s
}

func (f *front) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
	method := path.Base(info.FullMethod)
	var call next = func(ctx context.Context, q proto.Message) (proto.Message, error) {
		reply := newReply(method)
		err := f.driver.Invoke(ctx, info.FullMethod, q, reply, grpc.MaxCallRecvMsgSize(64<<20))
		return reply, err
	}
	for _, i := range f.rig.unary {
		if i.method != "" && i.method != method {
			continue
		}
		inner := call
		call = func(ctx context.Context, q proto.Message) (proto.Message, error) { return i.fn(ctx, method, q, inner) }
	}
	resp, err := call(ctx, req.(proto.Message))
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// newReply is an empty answer of a method of CSI.
func newReply(method string) proto.Message {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName("csi.v1." + method + "Response"))
	if err != nil {
		return new(csi.ProbeResponse) // there is no such method
	}
	return mt.New().Interface()
}

func (f *front) streams(_ any, ss grpc.ServerStream, info *grpc.StreamServerInfo, _ grpc.StreamHandler) error {
	method := path.Base(info.FullMethod)
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName("csi.v1." + method + "Request"))
	if err != nil {
		return err
	}
	req := mt.New().Interface()
	if err := ss.RecvMsg(req); err != nil {
		return err
	}
	var call nextStream = func(ctx context.Context, q proto.Message, send func(proto.Message) error) error {
		return f.forward(ctx, info.FullMethod, q, send)
	}
	for _, i := range f.rig.stream {
		if i.method != method {
			continue
		}
		inner := call
		call = func(ctx context.Context, q proto.Message, send func(proto.Message) error) error {
			return i.fn(ctx, q, send, inner)
		}
	}
	return call(ss.Context(), req, func(m proto.Message) error { return ss.SendMsg(m) })
}

// forward has the driver behind answer a stream.
func (f *front) forward(ctx context.Context, full string, q proto.Message, send func(proto.Message) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cs, err := f.driver.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, full)
	if err != nil {
		return err
	}
	if err := errors.Join(cs.SendMsg(q), cs.CloseSend()); err != nil {
		return err
	}
	method := strings.TrimSuffix(path.Base(full), "Request")
	for {
		m := newReply(method)
		err := cs.RecvMsg(m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := send(m); err != nil {
			return err
		}
	}
}
