package mutants

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// sizes are faults of how big volumes are.
func sizes() []Mutant { return append(createdSizes(), grownSizes()...) }

func createdSizes() []Mutant {
	type grow = *csi.ControllerExpandVolumeRequest
	return []Mutant{
		mutant(Other, "create-rounds-down", "CV-08", "sizes are rounded down to 16 MiB", request(func(q *csi.CreateVolumeRequest) {
			if r := q.GetCapacityRange(); r.GetRequiredBytes() > 16<<20 {
				r.RequiredBytes = (r.GetRequiredBytes() - 1) / (16 << 20) * (16 << 20)
			}
		})),
		mutant(Other, "create-above-limit", "CV-09 CV-12", "sizes are rounded up to 1 GiB, whatever limit_bytes is", requestWhen(
			func(q *csi.CreateVolumeRequest) bool {
				r := q.GetCapacityRange()
				return r.GetRequiredBytes() >= 0 && r.GetRequiredBytes() < 1<<40 && r.GetLimitBytes() >= r.GetRequiredBytes() && r.GetLimitBytes() > 0
			},
			func(q *csi.CreateVolumeRequest) {
				q.CapacityRange.RequiredBytes = (max(q.CapacityRange.GetRequiredBytes(), 1) + 1<<30 - 1) >> 30 << 30
				q.CapacityRange.LimitBytes = 0
			})),
		mutant(Other, "create-capacity-negative", "CV-44", "capacity_bytes is -1 where it is not known", volumesAs(func(v *csi.Volume) { v.CapacityBytes = -1 })),
		mutant(Other, "expand-too-small", "CE-05 CE-11", "capacity_bytes of a growth is what the volume had", reply(func(q grow, r *csi.ControllerExpandVolumeResponse) {
			r.CapacityBytes = q.GetCapacityRange().GetRequiredBytes() / 2
		})),
		mutant(Other, "expand-above-limit", "CE-11 CE-10", "a growth is rounded up to 1 GiB, whatever limit_bytes is", both(
			reply(func(_ grow, r *csi.ControllerExpandVolumeResponse) {
				r.CapacityBytes = (r.GetCapacityBytes()>>30 + 1) << 30
			}),
			request(func(q grow) {
				if r := q.GetCapacityRange(); r.GetLimitBytes() >= r.GetRequiredBytes() && r.GetRequiredBytes() > 0 {
					r.LimitBytes = 0
				}
			}))),
		mutant(Other, "expand-shrinks", "CE-11 CE-02", "growing to less than the volume has makes it smaller", expandShrinks),
		mutant(Other, "expand-does-nothing", "CE-01 CE-05 CE-11", "OK, and the volume has the size that it had", func(r *Rig) {
			around(r, func(ctx context.Context, q grow, next expandNext) (*csi.ControllerExpandVolumeResponse, error) {
				if q.GetCapacityRange().GetRequiredBytes() <= 0 || q.GetCapacityRange().GetRequiredBytes() > 1<<40 || !r.exists(ctx, q.GetVolumeId()) {
					return next(ctx, q)
				}
				return &csi.ControllerExpandVolumeResponse{CapacityBytes: q.GetCapacityRange().GetRequiredBytes()}, nil
			})
		}),
	}
}

func grownSizes() []Mutant {
	type grow = *csi.ControllerExpandVolumeRequest
	return []Mutant{
		onLoop(mutant(Other, "expand-no-node-expansion", "CE-06", "node_expansion_required is false, and the file system does not grow without", reply(
			func(_ grow, r *csi.ControllerExpandVolumeResponse) { r.NodeExpansionRequired = false }))),
		mutant(Other, "expand-unserved", "CE-01 CC-02", "EXPAND_VOLUME is advertised, ControllerExpandVolume is not there", unimplemented[grow]()),
		mutant(Other, "expand-again-fails", "CE-02 CE-10", "growing to what the volume has: OUT_OF_RANGE", func(r *Rig) {
			var done memory[int64]
			around(r, func(ctx context.Context, q grow, next expandNext) (*csi.ControllerExpandVolumeResponse, error) {
				if size, ok := done.get(q.GetVolumeId()); ok && q.GetCapacityRange().GetRequiredBytes() <= size {
					return nil, status.Error(codes.OutOfRange, "the volume has that size")
				}
				resp, err := next(ctx, q)
				if err == nil {
					done.put(q.GetVolumeId(), resp.GetCapacityBytes())
				}
				return resp, err
			})
		}),
		mutant(Other, "expand-any-capability", "CE-07", "a capability that is not supported does not matter", request(func(q grow) { q.VolumeCapability = nil })),
		mutant(Other, "expand-any-size", "CE-10 CE-11", "required_bytes above limit_bytes: OK", requestWhen(
			func(q grow) bool {
				r := q.GetCapacityRange()
				return r.GetLimitBytes() > 0 && r.GetRequiredBytes() > r.GetLimitBytes()
			},
			func(q grow) { q.CapacityRange.LimitBytes = 0 })),
	}
}

func expandShrinks(r *Rig) {
	var sizes memory[int64]
	around(r, func(ctx context.Context, q *csi.ControllerExpandVolumeRequest, next expandNext) (*csi.ControllerExpandVolumeResponse, error) {
		resp, err := next(ctx, q)
		if want := q.GetCapacityRange().GetRequiredBytes(); err == nil && want > 0 {
			resp.CapacityBytes = want
			sizes.put(q.GetVolumeId(), want)
		}
		return resp, err
	})
	volumesAs(func(v *csi.Volume) {
		if size, ok := sizes.get(v.GetVolumeId()); ok {
			v.CapacityBytes = size
		}
	})(r)
}
