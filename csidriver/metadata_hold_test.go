package csidriver

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

// startReader has snapshots one and two of v, and group g with a member of v.
// Streams stop after their first block until released, or cut.
func startReader(t *testing.T, wait time.Duration) (r *rig, begun, release chan struct{}) {
	begun, release = make(chan struct{}, 9), make(chan struct{})
	r, d := startMetadata(t, nil, func(s *setup, _ *data) { s.opts.Wait = wait })
	_, err := r.CreateVolumeGroupSnapshot(t.Context(), groupReq("g", "id-v"))
	wantCode(t, err, codes.OK)
	d.changed = func(ctx context.Context, _ backends.ChangedBlocksRequest) (backends.BlockMap, error) {
		return backends.BlockMap{VolumeSize: 100, Blocks: func(yield func(backends.Block, error) bool) {
			if !yield(backends.Block{Offset: 0, Size: 1}, nil) {
				return
			}
			begun <- struct{}{}
			select {
			case <-ctx.Done():
			case <-release:
				yield(backends.Block{Offset: 1, Size: 1}, nil)
			}
		}}, nil
	}
	return r, begun, release
}

func readSnapshots(t *testing.T, r *rig, base, target string) <-chan blocks {
	t.Helper()
	got := make(chan blocks, 1)
	if base == "" {
		s, err := r.GetMetadataAllocated(t.Context(), &csi.GetMetadataAllocatedRequest{SnapshotId: target})
		wantCode(t, err, codes.OK)
		go func() { got <- receive(t, s.Recv) }()
		return got
	}
	s, err := r.GetMetadataDelta(t.Context(), &csi.GetMetadataDeltaRequest{BaseSnapshotId: base, TargetSnapshotId: target})
	wantCode(t, err, codes.OK)
	go func() { got <- receive(t, s.Recv) }()
	return got
}

// deletions are of what startReader's streams read.
func (r *rig) deletions() map[string]func(context.Context) error {
	snapshot := func(id string) func(context.Context) error {
		return func(ctx context.Context) error { _, err := r.DeleteSnapshot(ctx, deleteSnapshot(id)); return err }
	}
	return map[string]func(context.Context) error{
		"sid-one": snapshot("sid-one"), "sid-two": snapshot("sid-two"),
		"sid-g/id-v": func(ctx context.Context) error {
			_, err := r.DeleteVolumeGroupSnapshot(ctx, deleteGroup("gid-g"))
			return err
		},
	}
}

// TestReadersHoldSnapshots: what a stream reads is not deleted, whichever end of
// it; nothing else waits for it, and other streams do not.
func TestReadersHoldSnapshots(t *testing.T) {
	r, begun, release := startReader(t, 1) // the least there is
	first, second := readSnapshots(t, r, "sid-one", "sid-two"), readSnapshots(t, r, "", "sid-two")
	third := readSnapshots(t, r, "", "sid-g/id-v")
	for range 3 {
		<-begun
	}
	for _, del := range r.deletions() {
		wantCode(t, del(t.Context()), codes.Aborted, "GetMetadata", "sends blocks")
	}
	_, err := r.CreateSnapshot(t.Context(), snapshotReq("two", "id-v"))
	wantCode(t, err, codes.OK)
	_, err = r.DeleteSnapshot(t.Context(), deleteSnapshot("sid-three"))
	wantCode(t, err, codes.OK)
	close(release)
	for _, s := range []<-chan blocks{first, second, third} {
		if got := <-s; got.err != nil || got.text() != "0+1 1+1" {
			t.Errorf("read %q, %v", got.text(), got.err)
		}
	}
	for id, del := range r.deletions() {
		for len(r.driver.operations.Running()) > 0 { // a stream ends before its operation
			runtime.Gosched()
		}
		wantCode(t, del(t.Context()), codes.OK)
		wantCode(t, (<-readSnapshots(t, r, "", id)).err, codes.NotFound)
	}
}

// TestReadersLease: a deletion cuts a stream that is older than its lease, which
// then does not end well.
func TestReadersLease(t *testing.T) {
	r, begun, _ := startReader(t, 0)
	r.driver.lease = 0
	for id, del := range r.deletions() {
		s := readSnapshots(t, r, "", id)
		<-begun
		wantCode(t, del(t.Context()), codes.OK)
		got := <-s
		wantCode(t, got.err, codes.Aborted, "the stream was cut")
	}
}

// TestReaderThatDoesNotRead: a client that takes nothing does not keep a snapshot
// from being deleted for longer than its lease.
func TestReaderThatDoesNotRead(t *testing.T) {
	r, d := startMetadata(t, nil, nil)
	r.driver.lease = 0
	full := make(chan struct{}, 1)
	d.changed = func(context.Context, backends.ChangedBlocksRequest) (backends.BlockMap, error) {
		return backends.BlockMap{VolumeSize: 1 << 40, Blocks: func(yield func(backends.Block, error) bool) {
			for at := int64(0); yield(backends.Block{Offset: at, Size: 1}, nil); at += 2 {
				if at == 4*maxBlocks { // two messages: more than the client's window
					full <- struct{}{}
				}
			}
		}}, nil
	}
	s, err := r.GetMetadataAllocated(t.Context(), &csi.GetMetadataAllocatedRequest{SnapshotId: "sid-one"})
	wantCode(t, err, codes.OK)
	<-full
	_, err = r.DeleteSnapshot(t.Context(), deleteSnapshot("sid-one"))
	wantCode(t, err, codes.OK)
	got := receive(t, s.Recv)
	wantCode(t, got.err, codes.Aborted, "the stream was cut")
	if size := proto.Size(&csi.GetMetadataAllocatedResponse{BlockMetadata: got.messages[0]}); size < 10<<10 {
		t.Errorf("messages of %d bytes do not fill a window", size)
	}
}
