package csidriver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/backends"
)

// blocks is what a stream gave.
type blocks struct {
	messages [][]*csi.BlockMetadata
	kind     csi.BlockMetadataType
	volume   int64
	err      error // nil: it ended well
}

type metadataMessage interface {
	GetBlockMetadata() []*csi.BlockMetadata
	GetBlockMetadataType() csi.BlockMetadataType
	GetVolumeCapacityBytes() int64
}

// receive reads a stream to its end; type and size must not change.
func receive[M metadataMessage](t *testing.T, recv func() (M, error)) (b blocks) {
	t.Helper()
	for {
		m, err := recv()
		if errors.Is(err, io.EOF) {
			return b
		}
		if err != nil {
			b.err = err
			return b
		}
		if len(b.messages) > 0 && (b.kind != m.GetBlockMetadataType() || b.volume != m.GetVolumeCapacityBytes()) {
			t.Errorf("type or size changed: %v", m)
		}
		b.messages, b.kind, b.volume = append(b.messages, m.GetBlockMetadata()), m.GetBlockMetadataType(), m.GetVolumeCapacityBytes()
	}
}

func allocated(t *testing.T, r *rig, req *csi.GetMetadataAllocatedRequest) blocks {
	t.Helper()
	s, err := r.GetMetadataAllocated(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return receive(t, s.Recv)
}

func delta(t *testing.T, r *rig, req *csi.GetMetadataDeltaRequest) blocks {
	t.Helper()
	s, err := r.GetMetadataDelta(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return receive(t, s.Recv)
}

// text is the blocks as "offset+size", messages divided by bars.
func (b blocks) text() string {
	messages := make([]string, len(b.messages))
	for i, m := range b.messages {
		parts := make([]string, len(m))
		for j, x := range m {
			parts[j] = fmt.Sprintf("%d+%d", x.GetByteOffset(), x.GetSizeBytes())
		}
		messages[i] = strings.Join(parts, " ")
	}
	return strings.Join(messages, " | ")
}

// startMetadata has snapshots one and two of v, in this order, and three of w;
// found is what the backend finds.
func startMetadata(t *testing.T, found *backends.BlockMap, change func(*setup, *data)) (*rig, *data) {
	t.Helper()
	r, d := startData(t, func(s *setup, d *data) {
		if found != nil {
			d.changed = func(context.Context, backends.ChangedBlocksRequest) (backends.BlockMap, error) { return *found, nil }
		}
		if change != nil {
			change(s, d)
		}
	})
	addVolumes(t, r, "v", "w")
	for _, q := range []*csi.CreateSnapshotRequest{snapshotReq("one", "id-v"), snapshotReq("two", "id-v"), snapshotReq("three", "id-w")} {
		_, err := r.CreateSnapshot(t.Context(), q)
		wantCode(t, err, codes.OK)
	}
	return r, d
}

// these gives a sequence of blocks, and failure at its end.
func these(failure error, list ...backends.Block) func(yield func(backends.Block, error) bool) {
	return func(yield func(backends.Block, error) bool) {
		for _, b := range list {
			if !yield(b, nil) {
				return
			}
		}
		if failure != nil {
			yield(backends.Block{}, failure)
		}
	}
}

func TestMetadataChunks(t *testing.T) {
	variable := &backends.BlockMap{VolumeSize: 100, Blocks: these(nil, backends.Block{Offset: 0, Size: 5}, backends.Block{Offset: 5, Size: 1}, backends.Block{Offset: 90, Size: 10})}
	fixed := &backends.BlockMap{VolumeSize: 100, Fixed: true, Blocks: these(nil, backends.Block{Offset: 0, Size: 40}, backends.Block{Offset: 40, Size: 40}, backends.Block{Offset: 80, Size: 40})}
	for _, tc := range []struct {
		found  *backends.BlockMap
		offset int64
		most   int32
		want   string
	}{
		{variable, 0, 0, "0+5 5+1 90+10"},
		{variable, 0, 1, "0+5 | 5+1 | 90+10"},
		{variable, 0, 2, "0+5 5+1 | 90+10"},
		{variable, 0, 3, "0+5 5+1 90+10"},
		{variable, 0, math.MaxInt32, "0+5 5+1 90+10"},
		{variable, 4, 0, "0+5 5+1 90+10"},
		{variable, 5, 0, "5+1 90+10"},
		{variable, 6, 1, "90+10"},
		{variable, 99, 0, "90+10"},
		{variable, 100, 0, ""},
		{fixed, 0, 2, "0+40 40+40 | 80+40"},
		{fixed, 41, 2, "40+40 80+40"},
		{&backends.BlockMap{VolumeSize: 100, Blocks: these(nil)}, 0, 0, ""},
	} {
		r, _ := startMetadata(t, tc.found, nil)
		kind := csi.BlockMetadataType_VARIABLE_LENGTH
		if tc.found.Fixed {
			kind = csi.BlockMetadataType_FIXED_LENGTH
		}
		for _, got := range []blocks{
			allocated(t, r, &csi.GetMetadataAllocatedRequest{SnapshotId: "sid-one", StartingOffset: tc.offset, MaxResults: tc.most}),
			delta(t, r, &csi.GetMetadataDeltaRequest{BaseSnapshotId: "sid-one", TargetSnapshotId: "sid-two", StartingOffset: tc.offset, MaxResults: tc.most}),
		} {
			if got.err != nil || got.text() != tc.want || got.kind != kind || got.volume != 100 {
				t.Errorf("from %d by %d: %q of %d bytes, %v; want %q, %v", tc.offset, tc.most, got.text(), got.volume, got.err, tc.want, got.kind)
			}
		}
	}
}

// TestMetadataMany: without max_results messages stay small, and a stream goes on
// where another was cut.
func TestMetadataMany(t *testing.T) {
	const n = 3*maxBlocks + 5
	r, _ := startMetadata(t, &backends.BlockMap{VolumeSize: n * 8, Fixed: true, Blocks: func(yield func(backends.Block, error) bool) {
		for i := int64(0); i < n && yield(backends.Block{Offset: 8 * i, Size: 4}, nil); i++ {
		}
	}}, nil)
	for _, most := range []int32{0, math.MaxInt32} {
		whole := allocated(t, r, &csi.GetMetadataAllocatedRequest{SnapshotId: "sid-one", MaxResults: most})
		if all := slices.Concat(whole.messages...); len(all) != n || len(whole.messages) != 4 {
			t.Errorf("%d blocks in %d messages", len(all), len(whole.messages))
		}
	}
	rest := allocated(t, r, &csi.GetMetadataAllocatedRequest{SnapshotId: "sid-one", StartingOffset: 8*maxBlocks - 4})
	if all := slices.Concat(rest.messages...); len(all) != n-maxBlocks || all[0].GetByteOffset() != 8*maxBlocks {
		t.Errorf("%d blocks, the first at %v", len(all), all[0])
	}
}

func TestMetadataBadAnswers(t *testing.T) {
	block := func(offset, size int64) backends.Block { return backends.Block{Offset: offset, Size: size} }
	for say, found := range map[string]*backends.BlockMap{
		"of a volume of 0 bytes":    {Blocks: these(nil)},
		"no sequence of blocks":     {VolumeSize: 100},
		"a block of 0 bytes":        {VolumeSize: 100, Blocks: these(nil, block(0, 0))},
		"a block of -1 bytes":       {VolumeSize: 100, Blocks: these(nil, block(0, -1))},
		"bytes at -1":               {VolumeSize: 100, Blocks: these(nil, block(-1, 1))},
		"bytes at 5":                {VolumeSize: 100, Blocks: these(nil, block(5, math.MaxInt64))},
		"a block at 0 after one":    {VolumeSize: 100, Blocks: these(nil, block(10, 5), block(0, 5))},
		"a block at 14 after one":   {VolumeSize: 100, Blocks: these(nil, block(10, 5), block(14, 5))},
		"a block at 10 after one":   {VolumeSize: 100, Blocks: these(nil, block(10, 5), block(10, 5))},
		"at 100 of a volume":        {VolumeSize: 100, Blocks: these(nil, block(100, 5))},
		"of 6 bytes after one of 5": {VolumeSize: 100, Fixed: true, Blocks: these(nil, block(10, 5), block(20, 6))},
	} {
		for _, most := range []int32{0, 1} { // the second block may come in a message of its own
			r, _ := startMetadata(t, found, nil)
			got := allocated(t, r, &csi.GetMetadataAllocatedRequest{SnapshotId: "sid-one", MaxResults: most})
			wantCode(t, got.err, codes.Internal, say)
		}
	}
}

// TestMetadataFails: what came before a failure is sent, and the stream does not
// end well.
func TestMetadataFails(t *testing.T) {
	for failure, want := range map[error]codes.Code{
		errors.New("I/O error"):              codes.Internal,
		backends.ErrUnavailable:              codes.Unavailable,
		backends.ErrPrecondition:             codes.FailedPrecondition,
		backends.SnapshotNotFound("sid-two"): codes.NotFound,
		backends.SnapshotNotFound("another"): codes.Internal,
	} {
		r, d := startMetadata(t, &backends.BlockMap{VolumeSize: 100, Blocks: these(failure, backends.Block{Offset: 0, Size: 1}, backends.Block{Offset: 1, Size: 1}, backends.Block{Offset: 3, Size: 1})}, nil)
		q := &csi.GetMetadataDeltaRequest{BaseSnapshotId: "sid-one", TargetSnapshotId: "sid-two", MaxResults: 2}
		got := delta(t, r, q)
		wantCode(t, got.err, want)
		if got.text() != "0+1 1+1 | 3+1" {
			t.Errorf("%v: sent %q", failure, got.text())
		}
		d.changed = func(context.Context, backends.ChangedBlocksRequest) (backends.BlockMap, error) {
			return backends.BlockMap{}, failure
		}
		got = delta(t, r, q)
		wantCode(t, got.err, want)
	}
}

func TestMetadataRefuses(t *testing.T) {
	r, d := startMetadata(t, nil, nil)
	for say, tc := range map[string]struct {
		code codes.Code
		req  *csi.GetMetadataAllocatedRequest
	}{
		"snapshot_id is required":     {codes.InvalidArgument, &csi.GetMetadataAllocatedRequest{}},
		"max_results is negative":     {codes.InvalidArgument, &csi.GetMetadataAllocatedRequest{SnapshotId: "sid-one", MaxResults: -1}},
		"starting_offset is negative": {codes.OutOfRange, &csi.GetMetadataAllocatedRequest{SnapshotId: "sid-one", StartingOffset: -1}},
		"starting_offset 16385 is be": {codes.OutOfRange, &csi.GetMetadataAllocatedRequest{SnapshotId: "sid-one", StartingOffset: 16<<10 + 1}},
		`"nothing"`:                   {codes.NotFound, &csi.GetMetadataAllocatedRequest{SnapshotId: "nothing"}},
	} {
		wantCode(t, allocated(t, r, tc.req).err, tc.code, say)
	}
	between := func(base, target string) *csi.GetMetadataDeltaRequest {
		return &csi.GetMetadataDeltaRequest{BaseSnapshotId: base, TargetSnapshotId: target}
	}
	negative := between("sid-one", "sid-two")
	negative.StartingOffset = -1
	for say, tc := range map[string]struct {
		code codes.Code
		req  *csi.GetMetadataDeltaRequest
	}{
		"base_snapshot_id is required":   {codes.InvalidArgument, between("", "sid-two")},
		"target_snapshot_id is required": {codes.InvalidArgument, between("sid-one", "")},
		"starting_offset is negative":    {codes.OutOfRange, negative},
		`"no-base"`:                      {codes.NotFound, between("no-base", "sid-two")},
		`"no-target"`:                    {codes.NotFound, between("sid-one", "no-target")},
		`of volume "id-v"`:               {codes.InvalidArgument, between("sid-one", "sid-three")},
		"is younger than":                {codes.InvalidArgument, between("sid-two", "sid-one")},
	} {
		wantCode(t, delta(t, r, tc.req).err, tc.code, say)
	}
	d.changed = func(context.Context, backends.ChangedBlocksRequest) (backends.BlockMap, error) {
		panic("in a stream")
	}
	wantCode(t, delta(t, r, between("sid-one", "sid-two")).err, codes.Internal, "panic")
	d.changed = nil
	wantCode(t, delta(t, r, between("sid-one", "sid-two")).err, codes.OK)
}

// TestMetadataInterceptors: the author's see streams inside of the gate, and
// statuses.
func TestMetadataInterceptors(t *testing.T) {
	var seen atomic.Int64
	r, _ := startMetadata(t, nil, func(s *setup, _ *data) {
		s.opts.StreamInterceptors = []grpc.StreamServerInterceptor{func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			seen.Add(1)
			err := h(srv, ss)
			wantCode(t, err, codes.NotFound)
			return err
		}}
	})
	wantCode(t, allocated(t, r, &csi.GetMetadataAllocatedRequest{SnapshotId: "nothing"}).err, codes.NotFound)
	if seen.Load() != 1 {
		t.Errorf("seen %d times", seen.Load())
	}
	r = startRig(t, nil)
	wantCode(t, allocated(t, r, &csi.GetMetadataAllocatedRequest{}).err, codes.Unimplemented, "GetMetadataAllocated")
}

// TestMetadataStarting: streams wait for recovery too.
func TestMetadataStarting(t *testing.T) {
	gone := make(chan struct{})
	defer close(gone)
	r := newRig(t, func(s *setup) {
		s.cfg.Controller = newData(s.backend)
		s.backend.hook = hookOn("Recover", func(context.Context) error { <-gone; return nil })
	})
	wantCode(t, allocated(t, r, &csi.GetMetadataAllocatedRequest{SnapshotId: "s"}).err, codes.Unavailable, "starting")
}

// TestMetadataClientLeaves: the backend's context ends with the stream, and a
// sequence that it cut short is no whole one.
func TestMetadataClientLeaves(t *testing.T) {
	ended := make(chan error, 1)
	r, _ := startMetadata(t, nil, func(_ *setup, d *data) {
		d.changed = func(ctx context.Context, _ backends.ChangedBlocksRequest) (backends.BlockMap, error) {
			return backends.BlockMap{VolumeSize: 100, Blocks: func(yield func(backends.Block, error) bool) {
				yield(backends.Block{Offset: 0, Size: 1}, nil)
				<-ctx.Done()
				ended <- ctx.Err()
			}}, nil
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	s, err := r.GetMetadataAllocated(ctx, &csi.GetMetadataAllocatedRequest{SnapshotId: "sid-one", MaxResults: 1})
	wantCode(t, err, codes.OK)
	_, err = s.Recv()
	wantCode(t, err, codes.OK)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestBlockWriter without a network: what fails is told.
func TestBlockWriter(t *testing.T) {
	found := backends.BlockMap{VolumeSize: 100, Blocks: these(nil, backends.Block{Offset: 0, Size: 1}, backends.Block{Offset: 1, Size: 1})}
	broken := errors.New("broken pipe")
	w, err := newBlockWriter(found, 0, 1, func(*blockWriter) error { return broken })
	if err != nil {
		t.Fatal(err)
	}
	if err := w.writeAll(t.Context(), found.Blocks); !errors.Is(err, broken) {
		t.Error(err)
	}
	w, _ = newBlockWriter(found, 0, 5, func(*blockWriter) error { return broken })
	if err := w.writeAll(t.Context(), these(errors.New("I/O error"), backends.Block{Offset: 0, Size: 1})); !errors.Is(err, broken) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	sent := 0
	w, _ = newBlockWriter(found, 0, 5, func(*blockWriter) error { sent++; return nil })
	err = w.writeAll(ctx, func(yield func(backends.Block, error) bool) {
		yield(backends.Block{Offset: 0, Size: 1}, nil)
		cancel() // and the sequence ends, as if that were all
	})
	if !errors.Is(err, context.Canceled) || sent != 0 {
		t.Errorf("%v, %d messages", err, sent)
	}
}
