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

// streamInterceptors is interceptors for streams.
func (d *Driver) streamInterceptors() []grpc.StreamServerInterceptor {
	list := []grpc.StreamServerInterceptor{d.gateStream}
	list = append(list, d.opts.StreamInterceptors...)
	return append(list, convertStreamErrors)
}

func (d *Driver) gate(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := d.admit(info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (d *Driver) gateStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := d.admit(info.FullMethod); err != nil {
		return err
	}
	return handler(srv, stream)
}

// admit answers UNIMPLEMENTED to what is not served here, and UNAVAILABLE to what
// must wait until recovery is done. Services beside CSI's are none of its
// business.
func (d *Driver) admit(method string) error {
	switch {
	case !strings.HasPrefix(method, "/csi.v1."):
		return nil
	case !d.served[method]:
		return fmt.Errorf("%s: %w", shortName(method), errUnserved)
	case !early[method] && !d.ready.Load():
		return errStarting
	}
	return nil
}

func convertErrors(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	if err != nil {
		return nil, toRPC(ctx, info.FullMethod, err)
	}
	return resp, nil
}

func convertStreamErrors(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return toRPC(stream.Context(), info.FullMethod, handler(srv, stream))
}
