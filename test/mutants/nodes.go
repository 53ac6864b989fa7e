package mutants

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// nodes are faults of staging and publishing.
func nodes() []Mutant {
	return append(staging(), publishing()...)
}

func staging() []Mutant {
	type stage = *csi.NodeStageVolumeRequest
	type grow = *csi.NodeExpandVolumeRequest
	long := func(path string) bool { return len(path) > 128 }
	return []Mutant{
		mutant(Other, "stage-unserved", "NS-01 NC-02", "STAGE_UNSTAGE_VOLUME is advertised, NodeStageVolume is not there", unimplemented[stage]()),
		mutant(Other, "unstage-unserved", "NU-01 NC-02", "STAGE_UNSTAGE_VOLUME is advertised, NodeUnstageVolume is not there", unimplemented[*csi.NodeUnstageVolumeRequest]()),
		mutant(Other, "stage-again-fails", "NS-02", "staged already: INTERNAL", againUntil(
			stage.GetStagingTargetPath, (*csi.NodeUnstageVolumeRequest).GetStagingTargetPath, codes.Internal)),
		onLoop(mutant(Other, "stage-any-capability", "NS-08", "staged with another capability: OK", conflictIgnored(
			stage.GetStagingTargetPath, codes.AlreadyExists, func(q, first stage) { q.VolumeCapability = first.GetVolumeCapability() }))),
		mutant(Other, "stage-unsupported", "NS-09 NS-06", "a block volume is staged where there are only directories", request(func(q stage) {
			if q.GetVolumeCapability().GetBlock() != nil {
				q.VolumeCapability = mountCapability()
			}
		})),
		mutant(Other, "stage-long-path", "NS-11 GEN-13", "a path of more than 128 bytes: INVALID_ARGUMENT", refuse(
			func(q stage) bool { return long(q.GetStagingTargetPath()) }, codes.InvalidArgument, "the path is too long")),
		mutant(Other, "stage-any-volume", "NS-07", "staging an unknown volume: OK", func(r *Rig) {
			around(r, func(ctx context.Context, q stage, next func(context.Context, stage) (proto.Message, error)) (proto.Message, error) {
				resp, err := next(ctx, q)
				if status.Code(err) == codes.NotFound {
					return &csi.NodeStageVolumeResponse{}, nil
				}
				return resp, err
			})
		}),
		onLoop(mutant(Other, "node-expand-unserved", "NE-01 NC-02", "EXPAND_VOLUME is advertised, NodeExpandVolume is not there", unimplemented[grow]())),
		onLoop(mutant(Other, "node-expand-does-nothing", "NE-01 NE-08 CE-06", "OK, and the file system has the size that it had", func(r *Rig) {
			r.Engine.Expand = func(_ context.Context, req mounter.ExpandRequest, _ func(context.Context, mounter.ExpandRequest) (int64, error)) (int64, error) {
				return req.Range.Required, nil
			}
		})),
		onLoop(mutant(Other, "node-expand-needs-range", "NE-09 NE-01", "without a capacity_range: INVALID_ARGUMENT", refuse(
			func(q grow) bool {
				return q.GetCapacityRange() == nil && q.GetVolumeId() != "" && q.GetVolumePath() != ""
			}, codes.InvalidArgument, "capacity_range is missing"))),
		onLoop(mutant(Other, "node-expand-again-fails", "NE-02 NE-01", "large enough already: OUT_OF_RANGE", again(func(q grow) string {
			if q.GetVolumePath() == "" {
				return ""
			}
			return q.GetVolumeId()
		}, codes.OutOfRange))),
		onLoop(mutant(Other, "node-expand-any-volume", "NE-06", "growing an unknown volume: OK", codeWhen(
			func(q grow) bool { return q.GetVolumeId() != "" && q.GetVolumePath() != "" }, codes.NotFound, codes.OK))),
	}
}

// againUntil refuses what was done already and not undone.
func againUntil[Q, U proto.Message](key func(Q) string, undone func(U) string, with codes.Code) func(*Rig) {
	return func(r *Rig) {
		var done memory[bool]
		around(r, func(ctx context.Context, q Q, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
			if _, ok := done.get(key(q)); ok {
				return nil, status.Errorf(with, "%s is mounted already", key(q))
			}
			resp, err := next(ctx, q)
			if err == nil {
				done.put(key(q), true)
			}
			return resp, err
		})
		around(r, func(ctx context.Context, q U, next func(context.Context, U) (proto.Message, error)) (proto.Message, error) {
			resp, err := next(ctx, q)
			if err == nil {
				done.drop(undone(q))
			}
			return resp, err
		})
	}
}

func publishing() []Mutant {
	type q = *csi.NodePublishVolumeRequest
	type undo = *csi.NodeUnpublishVolumeRequest
	multi := func(q q) bool {
		switch q.GetVolumeCapability().GetAccessMode().GetMode() {
		case csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
			csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
			return true
		}
		return false
	}
	return []Mutant{
		mutant(Other, "unpublish-unserved", "NB-01", "NodeUnpublishVolume is not there", unimplemented[undo]()),
		mutant(Other, "publish-again-fails", "NP-01", "published already: INTERNAL", againUntil(q.GetTargetPath, undo.GetTargetPath, codes.Internal)),
		mutant(Other, "publish-needs-target", "NP-05 NP-07", "the CO has to make target_path: INTERNAL when it is not there", refuse(
			func(q q) bool { _, err := os.Stat(q.GetTargetPath()); return q.GetTargetPath() != "" && err != nil }, codes.Internal, "no such file or directory")),
		mutant(Other, "publish-not-mounted", "NP-07", "target_path is a directory, and nothing is mounted", publishNotMounted),
		onBlock(mutant(Other, "block-regular-file", "NP-06", "target_path of a block volume is a file, and no device", blockRegularFile)),
		mutant(Other, "publish-any-readonly", "NP-10", "published with another readonly: OK", conflictIgnored(q.GetTargetPath, codes.AlreadyExists, func(q, first q) { q.Readonly = first.GetReadonly() })),
		onLoop(mutant(Other, "publish-any-capability", "NP-10 NP-16", "published with another capability: OK", conflictIgnored(q.GetTargetPath, codes.AlreadyExists, func(q, first q) { q.VolumeCapability = first.GetVolumeCapability() }))),
		mutant(Other, "publish-any-volume", "NP-09", "publishing an unknown volume: OK", unknownVolume(codes.OK)),
		mutant(Other, "publish-unstaged", "NP-14", "without a staging_target_path: OK", codeWhen(
			func(q q) bool { return q.GetStagingTargetPath() == "" }, codes.FailedPrecondition, codes.OK)),
		mutant(Other, "publish-once", "NP-12 NP-13", "a volume of many writers is published once: FAILED_PRECONDITION elsewhere", publishOnce(multi)),
		mutant(Other, "publish-compares-secrets", "NP-18 NP-01", "published with other secrets: ALREADY_EXISTS", func(r *Rig) {
			var m memory[map[string]string]
			around(r, func(ctx context.Context, q q, next func(context.Context, q) (proto.Message, error)) (proto.Message, error) {
				if s, ok := m.get(q.GetTargetPath()); ok && !sameMap(s, q.GetSecrets()) {
					return nil, status.Error(codes.AlreadyExists, "published with other secrets")
				}
				resp, err := next(ctx, q)
				if err == nil {
					m.put(q.GetTargetPath(), q.GetSecrets())
				}
				return resp, err
			})
			reply(func(q undo, _ *csi.NodeUnpublishVolumeResponse) { m.drop(q.GetTargetPath()) })(r)
		}),
		mutant(Other, "publish-long-path", "NP-19 NS-11 GEN-13", "a path of more than 128 bytes: INVALID_ARGUMENT", refuse(
			func(q q) bool { return len(q.GetTargetPath()) > 128 }, codes.InvalidArgument, "the path is too long")),
		mutant(Other, "publish-relative-path", "NP-19", "a relative target_path: INTERNAL, after a look in the working directory", codeWhen(
			func(q q) bool { return relative(q.GetTargetPath()) }, codes.InvalidArgument, codes.Internal)),
		mutant(Other, "unpublish-again-fails", "NB-03", "unpublished already: INTERNAL, not mounted", unpublishAgain),
		mutant(Other, "unpublish-everywhere", "NB-02", "unpublishing a target unmounts the volume's other targets too", unpublishEverywhere),
		mutant(Other, "publish-any-unsupported", "NP-15", "a block volume is published where there are only directories", request(func(q q) {
			if q.GetVolumeCapability().GetBlock() != nil {
				q.VolumeCapability = mountCapability()
			}
		})),
	}
}

func publishNotMounted(r *Rig) {
	r.Engine.Publish = func(ctx context.Context, req mounter.PublishRequest, next func(context.Context, mounter.PublishRequest) error) error {
		err := next(ctx, req)
		if err != nil {
			return err
		}
		_, err = mnt.Unwind(req.Path)
		return err
	}
}

// blockRegularFile leaves the file on which a device is mounted.
func blockRegularFile(r *Rig) {
	r.Engine.Publish = func(ctx context.Context, req mounter.PublishRequest, next func(context.Context, mounter.PublishRequest) error) error {
		err := next(ctx, req)
		if err == nil && req.Capability.Block {
			_, err = mnt.Unwind(req.Path)
		}
		return err
	}
}

func publishOnce(when func(*csi.NodePublishVolumeRequest) bool) func(*Rig) {
	return func(r *Rig) {
		var at memory[string]
		around(r, func(ctx context.Context, q *csi.NodePublishVolumeRequest, next func(context.Context, *csi.NodePublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
			if path, ok := at.get(q.GetVolumeId()); ok && path != q.GetTargetPath() && when(q) {
				return nil, status.Errorf(codes.FailedPrecondition, "volume %s is published at %s", q.GetVolumeId(), path)
			}
			resp, err := next(ctx, q)
			if err == nil {
				at.put(q.GetVolumeId(), q.GetTargetPath())
			}
			return resp, err
		})
		reply(func(q *csi.NodeUnpublishVolumeRequest, _ *csi.NodeUnpublishVolumeResponse) { at.drop(q.GetVolumeId()) })(r)
	}
}

func unpublishAgain(r *Rig) {
	refuse(func(q *csi.NodeUnpublishVolumeRequest) bool {
		if q.GetVolumeId() == "" || !strings.HasPrefix(q.GetTargetPath(), "/") {
			return false
		}
		is, err := mnt.IsMountPoint(q.GetTargetPath())
		return err == nil && !is || errors.Is(err, os.ErrNotExist)
	}, codes.Internal, "umount: not mounted")(r)
}

func unpublishEverywhere(r *Rig) {
	var targets memory[[]string]
	r.Engine.Publish = func(ctx context.Context, req mounter.PublishRequest, next func(context.Context, mounter.PublishRequest) error) error {
		if err := next(ctx, req); err != nil {
			return err
		}
		list, _ := targets.get(req.ID)
		targets.put(req.ID, append(list, filepath.Clean(req.Path)))
		return nil
	}
	r.Engine.Unpublish = func(ctx context.Context, req mounter.UnpublishRequest, next func(context.Context, mounter.UnpublishRequest) error) error {
		list, _ := targets.get(req.ID)
		targets.drop(req.ID)
		for _, path := range list {
			r.note(next(ctx, mounter.UnpublishRequest{ID: req.ID, Path: path}))
		}
		return next(ctx, req)
	}
}
