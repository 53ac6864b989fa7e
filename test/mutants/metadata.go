package mutants

import (
	"context"
	"errors"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/mem"
)

// blockMessage is one message of a stream of metadata.
type blockMessage struct {
	number   int // of the stream, from 0
	kind     *csi.BlockMetadataType
	capacity *int64
	list     *[]*csi.BlockMetadata
}

func openMessage(m proto.Message) (blockMessage, bool) {
	switch m := m.(type) {
	case *csi.GetMetadataAllocatedResponse:
		return blockMessage{kind: &m.BlockMetadataType, capacity: &m.VolumeCapacityBytes, list: &m.BlockMetadata}, true
	case *csi.GetMetadataDeltaResponse:
		return blockMessage{kind: &m.BlockMetadataType, capacity: &m.VolumeCapacityBytes, list: &m.BlockMetadata}, true
	}
	return blockMessage{}, false
}

// blocksAs edits each message of metadata.
func blocksAs(edit func(m blockMessage)) func(*Rig) {
	return func(r *Rig) {
		streams(r, func(ctx context.Context, q proto.Message, send func(proto.Message) error, next nextStream) error {
			n := 0
			return next(ctx, q, func(m proto.Message) error {
				if b, ok := openMessage(m); ok {
					b.number = n
					edit(b)
				}
				n++
				return send(m)
			})
		})
	}
}

// metadataRequest edits what both streams are asked.
func metadataRequest(edit func(offset *int64, limit *int32)) func(*Rig) {
	return func(r *Rig) {
		streams(r, func(ctx context.Context, q proto.Message, send func(proto.Message) error, next nextStream) error {
			q = proto.Clone(q)
			switch q := q.(type) {
			case *csi.GetMetadataAllocatedRequest:
				edit(&q.StartingOffset, &q.MaxResults)
			case *csi.GetMetadataDeltaRequest:
				edit(&q.StartingOffset, &q.MaxResults)
			}
			return next(ctx, q, send)
		})
	}
}

// metadata are faults of the streams that say which blocks of a snapshot are in use.
func metadata() []Mutant {
	errEnough := errors.New("enough")
	return []Mutant{
		mutant(Other, "metadata-ends-early", "SM-02", "the stream ends normally after its first message", func(r *Rig) {
			streams(r, func(ctx context.Context, q proto.Message, send func(proto.Message) error, next nextStream) error {
				sent := false
				err := next(ctx, q, func(m proto.Message) error {
					if sent {
						return errEnough
					}
					sent = true
					return send(m)
				})
				if errors.Is(err, errEnough) {
					return nil
				}
				return err
			})
		}),
		mutant(Other, "metadata-ignores-offset", "SM-05", "starting_offset does not matter", metadataRequest(func(offset *int64, _ *int32) { *offset = min(*offset, 0) })),
		mutant(Other, "metadata-overlaps", "SM-06", "tuples overlap", blocksAs(func(m blockMessage) {
			if list := *m.list; len(list) > 0 {
				b := proto.Clone(list[len(list)-1]).(*csi.BlockMetadata)
				b.ByteOffset += b.GetSizeBytes() / 2
				*m.list = append(*m.list, b)
			}
		})),
		mutant(Other, "metadata-descends", "SM-06", "tuples of a message come from last to first", blocksAs(func(m blockMessage) { slices.Reverse(*m.list) })),
		mutant(Other, "metadata-fixed-varies", "SM-07", "FIXED_LENGTH, and sizes differ", blocksAs(func(m blockMessage) {
			*m.kind = csi.BlockMetadataType_FIXED_LENGTH
			if list := *m.list; len(list) > 0 {
				list[0].SizeBytes /= 2
			}
		})),
		mutant(Other, "metadata-size-zero", "SM-08", "a tuple has no bytes", blocksAs(func(m blockMessage) {
			for _, b := range *m.list {
				b.SizeBytes = 0
			}
		})),
		mutant(Other, "metadata-type-changes", "SM-09", "block_metadata_type is another in each message", blocksAs(func(m blockMessage) {
			*m.kind = csi.BlockMetadataType(1 + m.number%2)
		})),
		mutant(Other, "metadata-type-unknown", "SM-09 GEN-16", "block_metadata_type is not set", blocksAs(func(m blockMessage) { *m.kind = csi.BlockMetadataType_UNKNOWN })),
		mutant(Other, "metadata-capacity-changes", "SM-10", "volume_capacity_bytes grows from message to message", blocksAs(func(m blockMessage) { *m.capacity += int64(m.number) })),
		mutant(Other, "metadata-no-capacity", "SM-10 GEN-16", "volume_capacity_bytes is not set", blocksAs(func(m blockMessage) { *m.capacity = 0 })),
		mutant(Other, "metadata-ignores-max", "SM-11", "max_results does not matter", metadataRequest(func(_ *int64, limit *int32) { *limit = min(*limit, 0) })),
		mutant(Other, "metadata-offset-unchecked", "SM-14", "an offset beyond the volume: an empty stream", streamCode(codes.OutOfRange, codes.OK)),
	}
}

// withBlocks has each new volume of package mem hold some data of its own, so that
// snapshots have metadata to tell of.
func withBlocks(r *Rig) {
	r.Faults = append(r.Faults, mem.Fault{Method: "CreateVolume", At: mem.After, Do: func(_ context.Context, c mem.Call) error {
		req, ok := c.Request.(backends.CreateVolumeRequest)
		if !ok {
			return nil
		}
		id, err := r.backend.VolumeID(req)
		for _, at := range []int64{0, 1 << 16, 3 << 16, 3<<16 + 4096, 5 << 16} {
			if err == nil {
				err = r.backend.Store().WriteAt(id, []byte("data"), at)
			}
		}
		r.note(err)
		return nil
	}})
}
