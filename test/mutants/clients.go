package mutants

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// clients are faults that a CO in use meets, who does more than the plain life of a
// volume: kubelet and the sidecars of Kubernetes.
func clients() []Mutant {
	return append(clientsOfNode(), clientsOfController()...)
}

type (
	expandRequest = *csi.NodeExpandVolumeRequest
	statsRequest  = *csi.NodeGetVolumeStatsRequest
)

func clientsOfNode() []Mutant {
	type q = *csi.NodePublishVolumeRequest
	type undo = *csi.NodeUnpublishVolumeRequest
	return []Mutant{
		mutant(Concurrency, "stats-hold-mount", "NB-01 NB-02", "who asks for statistics has the volume open, and unpublish is INTERNAL: target is busy", statsHold),
		mutant(Other, "unpublish-needs-parent", "NB-03", "unpublish where the pod's directory is gone: INTERNAL", refuse(func(q undo) bool {
			_, err := os.Lstat(filepath.Dir(q.GetTargetPath()))
			return strings.HasPrefix(q.GetTargetPath(), "/") && errors.Is(err, os.ErrNotExist)
		}, codes.Internal, "no such file or directory")),
		mutant(Leak, "unpublish-clears-parent", "NB-04", "unpublish removes the files beside the target", func(r *Rig) {
			reply(func(q undo, _ *csi.NodeUnpublishVolumeResponse) { r.note(filesOf(filepath.Dir(q.GetTargetPath()))) })(r)
		}),
		mutant(Leak, "unstage-clears-parent", "NU-02", "unstage removes the files beside the staging path", func(r *Rig) {
			reply(func(q *csi.NodeUnstageVolumeRequest, _ *csi.NodeUnstageVolumeResponse) {
				r.note(filesOf(filepath.Dir(q.GetStagingTargetPath())))
			})(r)
		}),
		unsure(mutant(Leak, "stage-whole-share", "NU-02", "all volumes of a share are staged as the share, and published as its directories", stageWholeShare)),
		mutant(Leak, "token-stacks", "NP-01", "publishing again with a new token mounts again", tokenStacks),
		onLoop(mutant(Concurrency, "publish-from-record", "NP-07 NP-01", "what a file of the driver's says is published is not looked at", publishFromRecord)),
		onLoop(mutant(Concurrency, "unstage-needs-mount", "NU-03", "unstage of what was staged and is not mounted any more: INTERNAL", unstageNeedsMount)),
		mutant(Other, "stage-needs-context", "CV-41", "stage without volume_context: INVALID_ARGUMENT", stageNeedsContext),
		unsure(mutant(Other, "stage-mode-as-created", "NP-17", "stage with another access mode than was created: FAILED_PRECONDITION", stageModeAsCreated)),
		onLoop(mutant(Other, "node-expand-needs-capability", "NE-01", "without volume_capability: INVALID_ARGUMENT", refuse(func(q expandRequest) bool {
			return q.GetVolumeCapability() == nil && q.GetVolumeId() != "" && q.GetVolumePath() != ""
		}, codes.InvalidArgument, "volume_capability is missing"))),
		onLoop(mutant(Other, "node-expand-needs-staging", "NE-01", "without staging_target_path: INVALID_ARGUMENT", refuse(func(q expandRequest) bool {
			return q.GetStagingTargetPath() == "" && q.GetVolumeId() != "" && q.GetVolumePath() != ""
		}, codes.InvalidArgument, "staging_target_path is missing"))),
		onLoop(mutant(Other, "node-expand-published-alone", "NE-01 CE-06", "at the staging path: INVALID_ARGUMENT", refuse(func(q expandRequest) bool {
			return q.GetVolumePath() != "" && q.GetVolumePath() == q.GetStagingTargetPath()
		}, codes.InvalidArgument, "the volume is not published"))),
		onBlock(mutant(Other, "block-keeps-size", "NE-01 CE-06 CE-05", "a raw volume that grows while it is published keeps its size until it is staged again", func(r *Rig) {
			r.Engine.Expand = func(_ context.Context, req mounter.ExpandRequest, _ func(context.Context, mounter.ExpandRequest) (int64, error)) (int64, error) {
				return req.Range.Required, nil
			}
		})),
		unsure(onBlock(mutant(Other, "block-stats-known-paths", "NG-06", "statistics of a raw volume at another path of its device: NOT_FOUND", blockStatsKnown))),
		unsure(onBlock(mutant(Other, "block-publish-staging-path", "NP-06", "nothing is staged, and a staging_target_path is INVALID_ARGUMENT", both(noStaging, refuse(func(q q) bool {
			return q.GetStagingTargetPath() != "" && q.GetVolumeId() != "" && q.GetTargetPath() != ""
		}, codes.InvalidArgument, "volumes are not staged"))))),
		mutant(Leak, "inline-unpublish-unknown", "NB-01 NB-03", "an inline volume's id is not of this driver: unpublish is NOT_FOUND", refuse(func(q undo) bool {
			return inlineID(q.GetVolumeId())
		}, codes.NotFound, "no such volume")),
		mutant(Data, "inline-shared", "CV-40 NP-07", "all inline volumes are one directory", inlineShared),
	}
}

func clientsOfController() []Mutant {
	return []Mutant{
		mutant(Data, "refused-delete-empties", "DV-07", "a volume in use is FAILED_PRECONDITION to be deleted, and empty", func(r *Rig) {
			around(r, func(ctx context.Context, q *csi.DeleteVolumeRequest, next deleteNext) (*csi.DeleteVolumeResponse, error) {
				resp, err := next(ctx, q)
				if status.Code(err) == codes.FailedPrecondition {
					r.note(emptyDir(r.volumeDir(q.GetVolumeId())))
				}
				return resp, err
			})
		}),
		unsure(mutant(Other, "snapshot-needs-source", "CS-02", "a snapshot is asked for again, and its volume is gone: NOT_FOUND", func(r *Rig) {
			around(r, func(ctx context.Context, q *csi.CreateSnapshotRequest, next func(context.Context, *csi.CreateSnapshotRequest) (proto.Message, error)) (proto.Message, error) {
				if q.GetName() != "" && q.GetSourceVolumeId() != "" && !r.exists(ctx, q.GetSourceVolumeId()) {
					return nil, status.Errorf(codes.NotFound, "volume %s does not exist", q.GetSourceVolumeId())
				}
				return next(ctx, q)
			})
		})),
		unsure(onLoop(mutant(Concurrency, "restart-probe-fails", "ID-16", "for a moment after a restart Probe is FAILED_PRECONDITION, and ready is not false", failsAtStart[*csi.ProbeRequest](codes.FailedPrecondition)))),
		unsure(onLoop(mutant(Concurrency, "restart-info-fails", "ID-01", "for a moment after a restart GetPluginInfo is INTERNAL", failsAtStart[*csi.GetPluginInfoRequest](codes.Internal)))),
	}
}

// stageNeedsContext reads from volume_context where the volume is.
func stageNeedsContext(r *Rig) {
	around(r, func(ctx context.Context, q *csi.NodeStageVolumeRequest, next func(context.Context, *csi.NodeStageVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		resp, err := next(ctx, q)
		if err == nil && len(q.GetVolumeContext()) == 0 {
			_, err = csi.NewNodeClient(r.conn).NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: q.GetVolumeId(), StagingTargetPath: q.GetStagingTargetPath()})
			r.note(err)
			return nil, status.Error(codes.InvalidArgument, "volume_context has no path")
		}
		return resp, err
	})
}

// statsHold is du(1) with the volume as its working directory.
func statsHold(r *Rig) {
	var busy counter
	around(r, func(ctx context.Context, q statsRequest, next func(context.Context, statsRequest) (proto.Message, error)) (proto.Message, error) {
		_, done := busy.enter(q.GetVolumePath())
		defer done()
		after(ctx, window)
		return next(ctx, q)
	})
	around(r, func(ctx context.Context, q *csi.NodeUnpublishVolumeRequest, next func(context.Context, *csi.NodeUnpublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		n, done := busy.enter(q.GetTargetPath())
		defer done()
		if n > 1 {
			return nil, status.Errorf(codes.Internal, "umount: %s: target is busy", q.GetTargetPath())
		}
		return next(ctx, q)
	})
}

// filesOf removes the files of a directory, and leaves what is a directory itself.
func filesOf(dir string) error {
	files, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, f := range files {
		if f.Type().IsRegular() {
			err = errors.Join(err, os.Remove(filepath.Join(dir, f.Name())))
		}
	}
	return err
}

func tokenStacks(r *Rig) {
	const key = "csi.storage.k8s.io/serviceAccount.tokens"
	var tokens memory[string]
	around(r, func(ctx context.Context, q *csi.NodePublishVolumeRequest, next func(context.Context, *csi.NodePublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		resp, err := next(ctx, q)
		if err != nil {
			return resp, err
		}
		if was, again := tokens.get(q.GetTargetPath()); again && was != q.GetVolumeContext()[key] {
			r.note(mnt.Bind(q.GetTargetPath(), q.GetTargetPath(), mnt.BindOptions{}))
		}
		tokens.put(q.GetTargetPath(), q.GetVolumeContext()[key])
		return resp, nil
	})
	reply(func(q *csi.NodeUnpublishVolumeRequest, _ *csi.NodeUnpublishVolumeResponse) {
		tokens.drop(q.GetTargetPath())
	})(r)
}

// stageWholeShare has the share at each staging path, and keeps what the volume itself
// is at a path of its own.
func stageWholeShare(r *Rig) {
	own := func(path string) string { return filepath.Join(r.Dir, recordName("volume", path)) }
	r.Engine.Stage = func(ctx context.Context, req mounter.StageRequest, next func(context.Context, mounter.StageRequest) error) error {
		path := req.Path
		req.Path = own(path)
		if err := errors.Join(os.MkdirAll(path, 0o750), os.MkdirAll(req.Path, 0o750)); err != nil {
			return err
		}
		if err := next(ctx, req); err != nil {
			return err
		}
		if is, err := mnt.IsMountPoint(path); is || err != nil {
			return err
		}
		return mnt.Bind(r.Store.Dir, path, mnt.BindOptions{})
	}
	r.Engine.Publish = func(ctx context.Context, req mounter.PublishRequest, next func(context.Context, mounter.PublishRequest) error) error {
		req.StagingPath = own(req.StagingPath)
		return next(ctx, req)
	}
	r.Engine.Unstage = func(ctx context.Context, req mounter.UnstageRequest, next func(context.Context, mounter.UnstageRequest) error) error {
		path := req.Path
		req.Path = own(path)
		if err := next(ctx, req); err != nil {
			return err
		}
		_ = os.Remove(req.Path) // it may never have been there
		_, err := mnt.Unwind(path)
		return err
	}
}

// recordName is that of a file about a path.
func recordName(kind, path string) string {
	sum := sha256.Sum256([]byte(path))
	return fmt.Sprintf("%s-%x", kind, sum[:8])
}

// publishFromRecord has a file for each target, which outlives a reboot.
func publishFromRecord(r *Rig) {
	record := func(path string) string { return filepath.Join(r.Dir, recordName("published", path)) }
	around(r, func(ctx context.Context, q *csi.NodePublishVolumeRequest, next func(context.Context, *csi.NodePublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		said, err := proto.MarshalOptions{Deterministic: true}.Marshal(q)
		if err != nil {
			return nil, err
		}
		if was, err := os.ReadFile(record(q.GetTargetPath())); err == nil && string(was) == string(said) {
			return &csi.NodePublishVolumeResponse{}, nil
		}
		resp, err := next(ctx, q)
		if err == nil {
			r.note(os.WriteFile(record(q.GetTargetPath()), said, 0o600))
		}
		return resp, err
	})
	around(r, func(ctx context.Context, q *csi.NodeUnpublishVolumeRequest, next func(context.Context, *csi.NodeUnpublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		resp, err := next(ctx, q)
		if err == nil {
			_ = os.Remove(record(q.GetTargetPath())) // there may be none
		}
		return resp, err
	})
}

// unstageNeedsMount keeps the staging paths in files, and fails where one is not
// mounted.
func unstageNeedsMount(r *Rig) {
	record := func(path string) string { return filepath.Join(r.Dir, recordName("staged", path)) }
	r.Engine.Stage = func(ctx context.Context, req mounter.StageRequest, next func(context.Context, mounter.StageRequest) error) error {
		err := next(ctx, req)
		if err == nil && !req.Capability.Block {
			r.note(os.WriteFile(record(req.Path), nil, 0o600))
		}
		return err
	}
	r.Engine.Unstage = func(ctx context.Context, req mounter.UnstageRequest, next func(context.Context, mounter.UnstageRequest) error) error {
		_, staged := os.Lstat(record(req.Path))
		if is, err := mnt.IsMountPoint(req.Path); staged == nil && err == nil && !is {
			return fmt.Errorf("%w: umount: %s: not mounted", backends.ErrFailed, req.Path)
		}
		err := next(ctx, req)
		if err == nil {
			_ = os.Remove(record(req.Path)) // there may be none
		}
		return err
	}
}

func stageModeAsCreated(r *Rig) {
	var made memory[[]*csi.VolumeCapability]
	reply(func(q *csi.CreateVolumeRequest, resp *csi.CreateVolumeResponse) {
		made.put(resp.GetVolume().GetVolumeId(), q.GetVolumeCapabilities())
	})(r)
	refuse(func(q *csi.NodeStageVolumeRequest) bool {
		list, ok := made.get(q.GetVolumeId())
		for _, c := range list {
			ok = ok && c.GetAccessMode().GetMode() != q.GetVolumeCapability().GetAccessMode().GetMode()
		}
		return ok
	}, codes.FailedPrecondition, "the volume was made for another access mode")(r)
}

func blockStatsKnown(r *Rig) {
	var at memory[string]
	reply(func(q *csi.NodePublishVolumeRequest, _ *csi.NodePublishVolumeResponse) {
		at.put(q.GetTargetPath(), q.GetVolumeId())
	})(r)
	reply(func(q *csi.NodeStageVolumeRequest, _ *csi.NodeStageVolumeResponse) {
		at.put(q.GetStagingTargetPath(), q.GetVolumeId())
	})(r)
	refuse(func(q statsRequest) bool {
		_, known := at.get(q.GetVolumePath())
		return !known && strings.HasPrefix(q.GetVolumePath(), "/") && q.GetVolumeId() != ""
	}, codes.NotFound, "the volume is not published there")(r)
}

// inlineID tells the ids that kubelet makes up.
func inlineID(id string) bool { return strings.HasPrefix(id, "csi-") && len(id) == len("csi-")+64 }

// inlineShared gives each inline volume the directory of the first.
func inlineShared(r *Rig) {
	const shared = "inline"
	r.Engine.Publish = func(ctx context.Context, req mounter.PublishRequest, next func(context.Context, mounter.PublishRequest) error) error {
		err := next(ctx, req)
		if err != nil || !inlineID(req.ID) {
			return err
		}
		if err := os.MkdirAll(r.volumeDir(shared), 0o755); err != nil {
			return err
		}
		if _, err := mnt.Unwind(req.Path); err != nil {
			return err
		}
		return mnt.Bind(r.volumeDir(shared), req.Path, mnt.BindOptions{})
	}
}

// failsAtStart has a call fail for a moment, when the driver was started before.
func failsAtStart[Q proto.Message](with codes.Code) func(*Rig) {
	return func(r *Rig) {
		if !r.startedBefore() {
			return
		}
		until := time.Now().Add(400 * time.Millisecond)
		refuse(func(Q) bool { return time.Now().Before(until) }, with, "still connecting to the storage")(r)
	}
}
