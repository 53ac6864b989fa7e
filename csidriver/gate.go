package csidriver

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
)

// interceptors puts csikit's own around those of the driver's author: the gate
// outside, so that they see what is served; the conversion of errors inside, so
// that they see statuses.
func (d *Driver) interceptors() []grpc.UnaryServerInterceptor {
	list := []grpc.UnaryServerInterceptor{d.gate}
	list = append(list, d.opts.UnaryInterceptors...)
	return append(list, convertErrors)
}

// gate answers UNIMPLEMENTED to what is not served here, and UNAVAILABLE to what
// must wait until recovery is done. Services beside CSI's are none of its
// business.
func (d *Driver) gate(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if !strings.HasPrefix(info.FullMethod, "/csi.v1.") {
		return handler(ctx, req)
	}
	if !d.served[info.FullMethod] {
		return nil, fmt.Errorf("%s: %w", shortName(info.FullMethod), errUnserved)
	}
	if !early[info.FullMethod] && !d.ready.Load() {
		return nil, errStarting
	}
	return handler(ctx, req)
}

func convertErrors(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	if err != nil {
		return nil, toRPC(ctx, info.FullMethod, err)
	}
	return resp, nil
}
