package mutants

import (
	"context"
	"sync/atomic"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

func errorDetails(r *Rig) {
	r.every(func(ctx context.Context, _ string, req proto.Message, next next) (proto.Message, error) {
		resp, err := next(ctx, req)
		if err == nil {
			return resp, nil
		}
		if s, err := status.Convert(err).WithDetails(durationpb.New(1)); err == nil {
			return nil, s.Err()
		}
		return nil, err
	})
}

func errorNoMessage(r *Rig) {
	r.every(func(ctx context.Context, _ string, req proto.Message, next next) (proto.Message, error) {
		resp, err := next(ctx, req)
		if status.Code(err) == codes.NotFound {
			return nil, status.Error(codes.NotFound, "")
		}
		return resp, err
	})
}

func codeNotCanonical(r *Rig) {
	r.every(func(ctx context.Context, _ string, req proto.Message, next next) (proto.Message, error) {
		resp, err := next(ctx, req)
		if status.Code(err) == codes.NotFound {
			return nil, status.Error(codes.Code(404), status.Convert(err).Message())
		}
		return resp, err
	})
}

func unknownFieldRefused(r *Rig) {
	r.every(func(ctx context.Context, _ string, req proto.Message, next next) (proto.Message, error) {
		if len(req.ProtoReflect().GetUnknown()) > 0 {
			return nil, status.Error(codes.InvalidArgument, "unknown fields in the request")
		}
		return next(ctx, req)
	})
}

// unknownFieldConfirmed answers the request's own messages.
func unknownFieldConfirmed(r *Rig) {
	reply(func(q *csi.ValidateVolumeCapabilitiesRequest, resp *csi.ValidateVolumeCapabilitiesResponse) {
		if c := resp.GetConfirmed(); c != nil {
			c.VolumeCapabilities = q.GetVolumeCapabilities()
			c.ProtoReflect().SetUnknown(q.ProtoReflect().GetUnknown())
		}
	})(r)
}

func unimplementedStream(context.Context, proto.Message, func(proto.Message) error, nextStream) error {
	return status.Error(codes.Unimplemented, "method not implemented")
}

func countCalls(n *atomic.Int64) func(context.Context, string, proto.Message, next) (proto.Message, error) {
	return func(ctx context.Context, _ string, req proto.Message, next next) (proto.Message, error) {
		n.Add(1)
		return next(ctx, req)
	}
}
