package kubeletpb

import (
	"context"

	"google.golang.org/grpc"
)

// Names of the service and its methods.
const (
	ServiceName  = "pluginregistration.Registration"
	GetInfo      = "/" + ServiceName + "/GetInfo"
	NotifyStatus = "/" + ServiceName + "/NotifyRegistrationStatus"
)

// Server is a plug-in that kubelet asks.
type Server interface {
	GetInfo(context.Context, *InfoRequest) (*PluginInfo, error)
	NotifyRegistrationStatus(context.Context, *RegistrationStatus) (*RegistrationStatusResponse, error)
}

// Register registers s with a server that was made with [Codec], by
// grpc.ForceServerCodec.
func Register(r grpc.ServiceRegistrar, s Server) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: ServiceName,
		HandlerType: (*Server)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "GetInfo", Handler: handler(GetInfo, Server.GetInfo)},
			{MethodName: "NotifyRegistrationStatus", Handler: handler(NotifyStatus, Server.NotifyRegistrationStatus)},
		},
	}, s)
}

func handler[Req, Resp any](name string, call func(Server, context.Context, *Req) (*Resp, error)) grpc.MethodHandler {
	return func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		in := new(Req)
		if err := decode(in); err != nil {
			return nil, err
		}
		run := func(ctx context.Context, req any) (any, error) { return call(srv.(Server), ctx, req.(*Req)) }
		if intercept == nil {
			return run(ctx, in)
		}
		return intercept(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: name}, run)
	}
}
