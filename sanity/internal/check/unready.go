package check

import (
	"context"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Unready are the snapshots that were not ready to use when they were made. A CO
// makes nothing of such a one: it asks until it is.
type Unready struct {
	mu   sync.Mutex
	made map[string]proto.Message // by ID: the request to make again
}

// Note takes down what an answer says of snapshots.
func (u *Unready) Note(req, resp proto.Message) {
	var list []*csi.Snapshot
	switch r := resp.(type) {
	case *csi.CreateSnapshotResponse:
		list = append(list, r.GetSnapshot())
	case *csi.CreateVolumeGroupSnapshotResponse:
		list = r.GetGroupSnapshot().GetSnapshots()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range list {
		switch {
		case s.GetReadyToUse():
			delete(u.made, s.GetSnapshotId())
		case s.GetSnapshotId() != "":
			if u.made == nil {
				u.made = map[string]proto.Message{}
			}
			u.made[s.GetSnapshotId()] = req
		}
	}
	if d, ok := req.(*csi.DeleteSnapshotRequest); ok {
		delete(u.made, d.GetSnapshotId())
	}
}

func (u *Unready) of(id string) proto.Message {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.made[id]
}

// Wait lets a request that uses snapshots wait until they are ready. ask makes a
// call, and has Note see its answer. What ask says is no error of this request.
func (u *Unready) Wait(ctx context.Context, req proto.Message, ask func(context.Context, proto.Message)) error {
	for _, id := range sources(req) {
		for again := u.of(id); again != nil; again = u.of(id) {
			ask(ctx, again)
			if u.of(id) == nil {
				break
			}
			select {
			case <-ctx.Done():
				return status.Errorf(codes.Unavailable, "csikit: snapshot %s does not get ready to use", id)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// sources are the snapshots that a request uses.
func sources(req proto.Message) []string {
	switch r := req.(type) {
	case *csi.CreateVolumeRequest:
		if s := r.GetVolumeContentSource().GetSnapshot(); s != nil {
			return []string{s.GetSnapshotId()}
		}
	case *csi.GetMetadataAllocatedRequest:
		return []string{r.GetSnapshotId()}
	case *csi.GetMetadataDeltaRequest:
		return []string{r.GetBaseSnapshotId(), r.GetTargetSnapshotId()}
	}
	return nil
}
