package mutants

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// restarts are faults that come with the next process of the driver.
func restarts() []Mutant {
	list := []Mutant{
		mutant(Concurrency, "restart-forgets-volumes", "LV-02 CV-02 DV-01 VC-06 CP-01", "volumes are known in memory alone", restartForgetsVolumes),
		mutant(Concurrency, "restart-forgets-snapshots", "LS-02 CS-02 DS-01 GS-01", "snapshots are known in memory alone", restartForgetsSnapshots),
		mutant(Concurrency, "restart-forgets-stage", "NU-02 NU-01 CU-01 GEN-18", "what is staged is known in memory alone: unstage has nothing to do", restartForgetsStage),
		mutant(Concurrency, "restart-forgets-publish", "NB-02 NB-04 NB-01 GEN-18", "what is published is known in memory alone: unpublish has nothing to do", restartForgetsPublish),
		mutant(Concurrency, "restart-publish-again-fails", "NP-01 GEN-18", "publishing again what an earlier process published: INTERNAL, already mounted", restartPublishFails),
		mutant(Concurrency, "restart-other-node-id", "NI-02", "a node_id is made up at each start", func(r *Rig) {
			id := fmt.Sprintf("node-%x", time.Now().UnixNano())
			reply(func(_ *csi.NodeGetInfoRequest, resp *csi.NodeGetInfoResponse) { resp.NodeId = id })(r)
			request(func(q *csi.ControllerPublishVolumeRequest) {
				if q.GetNodeId() == id {
					q.NodeId = nodeID
				}
			})(r)
			request(func(q *csi.ControllerUnpublishVolumeRequest) {
				if q.GetNodeId() == id {
					q.NodeId = nodeID
				}
			})(r)
		}),
		mutant(Concurrency, "restart-other-capabilities", "ID-06 CC-02", "from the second start on EXPAND_VOLUME is advertised no more", func(r *Rig) {
			if r.startedBefore() {
				dropControllerCapability(csi.ControllerServiceCapability_RPC_EXPAND_VOLUME)(r)
			}
		}),
		mutant(Concurrency, "restart-other-context", "CV-42", "volume_context says when the driver was started", func(r *Rig) {
			started := time.Now().String()
			eachVolumeContext("started", started)(r)
		}),
		mutant(Concurrency, "restart-socket-in-use", "PR-01", "a socket that a killed process left is in the way", func(r *Rig) {
			r.Listen = func(endpoint string) (net.Listener, error) {
				path := strings.TrimPrefix(strings.TrimPrefix(endpoint, "unix:"), "//")
				if _, err := os.Lstat(path); err == nil {
					return nil, fmt.Errorf("listen unix %s: bind: address already in use", path)
				}
				return csidriver.Listen(endpoint, 0)
			}
		}),
		mutant(Concurrency, "restart-never-ready", "ID-17", "after a restart the driver looks at its volumes for ever", func(r *Rig) {
			if r.startedBefore() {
				reply(func(_ *csi.ProbeRequest, resp *csi.ProbeResponse) { resp.Ready = wrapperspb.Bool(false) })(r)
			}
		}),
		mutant(Concurrency, "restart-ids-again", "CV-40", "volume IDs are counted from one in each process", restartIDsAgain),
	}
	for i := range list {
		list[i] = onLoop(list[i])
	}
	return list
}

// startedBefore tells whether an earlier process used this directory. It says so
// all the time of this process.
func (r *Rig) startedBefore() bool {
	mark := filepath.Join(r.Dir, "started")
	_, err := os.Lstat(mark)
	r.Started = append(r.Started, func(r *Rig) {
		if err := os.WriteFile(mark, nil, 0o600); err != nil {
			r.log().Error("cannot write", "file", mark, "err", err)
		}
	})
	return !errors.Is(err, os.ErrNotExist)
}

// restartForgetsVolumes hides each volume that this process has not made.
func restartForgetsVolumes(r *Rig) {
	var mine memory[bool]
	known := func(id string) bool { _, ok := mine.get(id); return ok }
	r.every(func(ctx context.Context, method string, req proto.Message, next next) (proto.Message, error) {
		id := stringField(req, "volume_id")
		switch {
		case id == "" || known(id) || strings.HasPrefix(method, "NodeUn") || method == "ControllerUnpublishVolume":
		case method == "DeleteVolume":
			return &csi.DeleteVolumeResponse{}, nil
		default:
			return nil, status.Errorf(codes.NotFound, "volume %s does not exist", id)
		}
		resp, err := next(ctx, req)
		switch m := resp.(type) {
		case *csi.CreateVolumeResponse:
			mine.put(m.GetVolume().GetVolumeId(), true)
		case *csi.ListVolumesResponse:
			m.Entries = without(m.GetEntries(), func(e *csi.ListVolumesResponse_Entry) bool { return !known(e.GetVolume().GetVolumeId()) })
		}
		return resp, err
	})
}

// restartForgetsSnapshots hides each snapshot that this process has not made.
func restartForgetsSnapshots(r *Rig) {
	var mine memory[bool]
	known := func(id string) bool { _, ok := mine.get(id); return ok }
	r.every(func(ctx context.Context, method string, req proto.Message, next next) (proto.Message, error) {
		q, fromSource := req.(*csi.CreateVolumeRequest)
		id := stringField(req, "snapshot_id")
		if fromSource {
			id = q.GetVolumeContentSource().GetSnapshot().GetSnapshotId()
		}
		switch {
		case id == "" || known(id) || method == "ListSnapshots":
		case method == "DeleteSnapshot":
			return &csi.DeleteSnapshotResponse{}, nil
		default:
			return nil, status.Errorf(codes.NotFound, "snapshot %s does not exist", id)
		}
		resp, err := next(ctx, req)
		if err != nil {
			return nil, err
		}
		if list, ok := resp.(*csi.ListSnapshotsResponse); ok {
			list.Entries = without(list.GetEntries(), func(e *csi.ListSnapshotsResponse_Entry) bool { return !known(e.GetSnapshot().GetSnapshotId()) })
			return list, nil
		}
		eachSnapshot(resp, func(s *csi.Snapshot) { mine.put(s.GetSnapshotId(), true) })
		return resp, nil
	})
}

func restartForgetsStage(r *Rig) {
	var staged memory[bool]
	r.Engine.Stage = func(ctx context.Context, req mounter.StageRequest, next func(context.Context, mounter.StageRequest) error) error {
		staged.put(req.ID, true)
		return next(ctx, req)
	}
	r.Engine.Unstage = func(ctx context.Context, req mounter.UnstageRequest, next func(context.Context, mounter.UnstageRequest) error) error {
		if _, ok := staged.get(req.ID); !ok {
			return nil
		}
		return next(ctx, req)
	}
}

func restartForgetsPublish(r *Rig) {
	var published memory[bool]
	r.Engine.Publish = func(ctx context.Context, req mounter.PublishRequest, next func(context.Context, mounter.PublishRequest) error) error {
		published.put(req.Path, true)
		return next(ctx, req)
	}
	r.Engine.Unpublish = func(ctx context.Context, req mounter.UnpublishRequest, next func(context.Context, mounter.UnpublishRequest) error) error {
		if _, ok := published.get(req.Path); !ok {
			return nil
		}
		return next(ctx, req)
	}
}

func restartPublishFails(r *Rig) {
	var published memory[bool]
	around(r, func(ctx context.Context, q *csi.NodePublishVolumeRequest, next func(context.Context, *csi.NodePublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		_, mine := published.get(q.GetTargetPath())
		if is, err := mnt.IsMountPoint(q.GetTargetPath()); err == nil && is && !mine {
			return nil, status.Errorf(codes.Internal, "%s is mounted already", q.GetTargetPath())
		}
		resp, err := next(ctx, q)
		if err == nil {
			published.put(q.GetTargetPath(), true)
		}
		return resp, err
	})
}

// restartIDsAgain gives out vol-1, vol-2 and so on; what has the number is kept on
// disk, and overwritten.
func restartIDsAgain(r *Rig) {
	dir := filepath.Join(r.Dir, "ids")
	var names memory[string] // of this process
	number := 0
	real := func(id string) string {
		if b, err := os.ReadFile(filepath.Join(dir, filepath.Base(id))); err == nil && strings.HasPrefix(id, "vol-") {
			return string(b)
		}
		return id
	}
	given := func(id string) string {
		if !strings.HasPrefix(id, "mutants.") && !strings.Contains(id, ".") {
			return id
		}
		if alias, ok := names.get(id); ok {
			return alias
		}
		files, _ := os.ReadDir(dir) // none yet
		for _, f := range files {
			if real(f.Name()) == id {
				return f.Name()
			}
		}
		number++
		alias := fmt.Sprintf("vol-%d", number)
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, alias), []byte(id), 0o600)); err != nil {
			r.log().Error("cannot keep an ID", "err", err)
		}
		names.put(id, alias)
		return alias
	}
	rewriteIDs(r, volumeFields, real, given)
}
