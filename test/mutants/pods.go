package mutants

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

type (
	publishRequest   = *csi.NodePublishVolumeRequest
	unpublishRequest = *csi.NodeUnpublishVolumeRequest
	publishNext      = func(context.Context, publishRequest) (proto.Message, error)
	unpublishNext    = func(context.Context, unpublishRequest) (proto.Message, error)
)

// pods are faults that kubelet meets with pods that come, stay and go.
func pods() []Mutant {
	return []Mutant{
		mutant(Data, "busy-unpublish-removes", "NB-01 NB-02 NB-04 NP-07", "a target that cannot be unmounted is emptied", func(r *Rig) {
			unpublishFailed(r, func(q unpublishRequest) { r.note(emptyDir(q.GetTargetPath())) })
		}),
		mutant(Leak, "busy-unpublish-forgets", "NB-02 NB-04", "a target that could not be unmounted is OK at the second call, and mounted", busyForgets),
		mutant(Data, "refused-publish-unmounts", "NP-01 NP-07", "publish at a target in use is refused, and what failed is cleaned up", func(r *Rig) {
			around(r, func(ctx context.Context, q publishRequest, next publishNext) (proto.Message, error) {
				resp, err := next(ctx, q)
				if err != nil && final(err) && q.GetTargetPath() != "" {
					_, uerr := mnt.Unwind(q.GetTargetPath())
					if !errors.Is(uerr, os.ErrNotExist) {
						r.note(uerr)
					}
				}
				return resp, err
			})
		}),
		mutant(Other, "unstage-needs-path", "NU-03", "unstage where the staging path is gone: INTERNAL", refuse(func(q *csi.NodeUnstageVolumeRequest) bool {
			_, err := os.Lstat(q.GetStagingTargetPath())
			return strings.HasPrefix(q.GetStagingTargetPath(), "/") && errors.Is(err, os.ErrNotExist)
		}, codes.Internal, "no such file or directory")),
		mutant(Concurrency, "unstage-any-path", "NU-02 NU-03", "unstage at another path than where the volume is staged unstages it", unstageAnyPath),
		mutant(Data, "inline-readonly-ignored", "NP-08", "an inline volume that is published readonly can be written", requestWhen(
			func(q publishRequest) bool { return inlineID(q.GetVolumeId()) }, func(q publishRequest) { q.Readonly = false })),
		unsure(onLoop(mutant(Other, "busy-unstage-locks", "NU-01 NS-01", "what could not be unstaged is not staged again before it is: FAILED_PRECONDITION", busyLocks))),
		onLoop(mutant(Data, "stage-other-type-formats", "NS-06 NP-07", "a volume that is staged with another fs_type gets that file system", otherTypeFormats)),
		unsure(onLoop(mutant(Other, "node-expand-same-capability", "NE-01 NE-05", "with less than the capability that was staged: INVALID_ARGUMENT", sameCapability))),
		unsure(onBlock(mutant(Other, "node-expand-known-targets", "NE-01 NE-10", "at a target that was unpublished: NOT_FOUND", knownTargets))),
	}
}

// unpublishFailed does something when NodeUnpublishVolume has failed.
func unpublishFailed(r *Rig, do func(unpublishRequest)) {
	around(r, func(ctx context.Context, q unpublishRequest, next unpublishNext) (proto.Message, error) {
		resp, err := next(ctx, q)
		if is, merr := mnt.IsMountPoint(q.GetTargetPath()); err != nil && merr == nil && is {
			do(q)
		}
		return resp, err
	})
}

// busyForgets takes the target out of its list before it unmounts.
func busyForgets(r *Rig) {
	var forgotten memory[bool]
	around(r, func(ctx context.Context, q unpublishRequest, next unpublishNext) (proto.Message, error) {
		if _, ok := forgotten.get(q.GetTargetPath()); ok {
			return &csi.NodeUnpublishVolumeResponse{}, nil
		}
		return next(ctx, q)
	})
	unpublishFailed(r, func(q unpublishRequest) { forgotten.put(q.GetTargetPath(), true) })
}

// busyLocks has a volume that it cannot let go of in a state of its own.
func busyLocks(r *Rig) {
	var closing memory[bool]
	around(r, func(ctx context.Context, q *csi.NodeUnstageVolumeRequest, next func(context.Context, *csi.NodeUnstageVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		resp, err := next(ctx, q)
		if err != nil && q.GetVolumeId() != "" {
			closing.put(q.GetVolumeId(), true)
		} else if err == nil {
			closing.drop(q.GetVolumeId())
		}
		return resp, err
	})
	refuse(func(q *csi.NodeStageVolumeRequest) bool {
		_, ok := closing.get(q.GetVolumeId())
		return ok
	}, codes.FailedPrecondition, "the volume is being unstaged")(r)
}

// unstageAnyPath knows volumes, and not where they are.
func unstageAnyPath(r *Rig) {
	var staged memory[string]
	r.Engine.Stage = func(ctx context.Context, req mounter.StageRequest, next func(context.Context, mounter.StageRequest) error) error {
		err := next(ctx, req)
		if err == nil {
			staged.put(req.ID, req.Path)
		}
		return err
	}
	r.Engine.Unstage = func(ctx context.Context, req mounter.UnstageRequest, next func(context.Context, mounter.UnstageRequest) error) error {
		if path, ok := staged.get(req.ID); ok {
			req.Path = path
		}
		staged.drop(req.ID)
		return next(ctx, req)
	}
}

// otherTypeFormats is the driver that trusts the CO more than the disk.
func otherTypeFormats(r *Rig) {
	var made memory[string]
	r.Open = func(ctx context.Context, req backends.OpenVolumeRequest, next openFunc) (*backends.Source, error) {
		src, err := next(ctx, req)
		if err != nil || req.Capability.Block {
			return src, err
		}
		want := req.Capability.FSType
		if want == "" {
			want = "xfs"
		}
		was, again := made.get(req.ID)
		made.put(req.ID, want)
		if !again || was == want {
			return src, nil
		}
		argv := []string{"mkfs.xfs", "-q", "-f", src.Device.Path}
		if want == "ext4" {
			argv = []string{"mkfs.ext4", "-q", "-F", src.Device.Path}
		}
		return src, exec.CommandContext(ctx, argv[0], argv[1:]...).Run()
	}
}

func sameCapability(r *Rig) {
	var staged memory[*csi.VolumeCapability]
	reply(func(q *csi.NodeStageVolumeRequest, _ *csi.NodeStageVolumeResponse) {
		staged.put(q.GetVolumeId(), q.GetVolumeCapability())
	})(r)
	refuse(func(q expandRequest) bool {
		c, ok := staged.get(q.GetVolumeId())
		return ok && q.GetVolumeCapability() != nil && !proto.Equal(c, q.GetVolumeCapability())
	}, codes.InvalidArgument, "the volume is staged with another capability")(r)
}

func knownTargets(r *Rig) {
	var gone memory[bool]
	reply(func(q publishRequest, _ *csi.NodePublishVolumeResponse) { gone.drop(q.GetTargetPath()) })(r)
	reply(func(q unpublishRequest, _ *csi.NodeUnpublishVolumeResponse) { gone.put(q.GetTargetPath(), true) })(r)
	refuse(func(q expandRequest) bool {
		_, ok := gone.get(q.GetVolumePath())
		return ok
	}, codes.NotFound, "the volume is not published there")(r)
}

// classes are faults that the sidecars of Kubernetes meet with the parameters of
// classes, and when they ask again for something else.
func classes() []Mutant {
	type capacity = *csi.GetCapacityRequest
	type group = *csi.CreateVolumeGroupSnapshotRequest
	return []Mutant{
		unsure(mutant(Other, "capacity-refuses-class", "GC-03 GC-01", "with the names of a class's secrets among the parameters: INVALID_ARGUMENT", refuse(func(q capacity) bool {
			for k := range q.GetParameters() {
				if strings.HasPrefix(k, "csi.storage.k8s.io/") {
					return true
				}
			}
			return false
		}, codes.InvalidArgument, "unknown parameter"))),
		unsure(mutant(Other, "capacity-refuses-no-segments", "GC-08", "without topology, and with an accessible_topology of no segments: INVALID_ARGUMENT", both(withoutTopology, refuse(func(q capacity) bool {
			return q.GetAccessibleTopology() != nil && len(q.GetAccessibleTopology().GetSegments()) == 0
		}, codes.InvalidArgument, "there is no topology")))),
		mutant(Other, "create-exhausted-keeps-place", "CV-33 CV-28", "a name that was RESOURCE_EXHAUSTED in one place is ALREADY_EXISTS in another", exhaustedKeepsPlace),
		unsure(mutant(Other, "stage-mode-as-attached", "CV-14 CP-07", "stage with another mode than was attached: FAILED_PRECONDITION", modeAsAttached)),
		mutant(Leak, "undo-needs-attachment", "NB-01 NU-01", "unpublish of a volume that was detached meanwhile: FAILED_PRECONDITION", undoNeedsAttachment),
		unsure(mutant(Other, "expand-mode-as-created", "CE-01 CE-07", "a volume of SINGLE_NODE_WRITER grows as nothing else: INVALID_ARGUMENT", expandModeAsCreated)),
		unsure(mutant(Other, "snapshot-refuses-metadata", "CS-01 CS-02", "with names of Kubernetes' objects among the parameters: INVALID_ARGUMENT", refuse(func(q *csi.CreateSnapshotRequest) bool {
			return q.GetParameters()["csi.storage.k8s.io/volumesnapshot/name"] != ""
		}, codes.InvalidArgument, "unknown parameter"))),
		unsure(mutant(Other, "snapshot-compares-metadata", "CS-02", "again with other names of Kubernetes' objects: ALREADY_EXISTS", snapshotComparesMetadata)),
		mutant(Other, "expand-failure-stays", "CE-01", "a volume that could not grow once does not grow again: INTERNAL", failureStays((*csi.ControllerExpandVolumeRequest).GetVolumeId,
			func(err error) bool { return status.Code(err) == codes.OutOfRange }, codes.Internal)),
		mutant(Other, "modify-failure-stays", "MV-01 MV-02", "a volume whose modification was refused once is not modified again: INTERNAL", failureStays((*csi.ControllerModifyVolumeRequest).GetVolumeId,
			func(err error) bool { return status.Code(err) == codes.InvalidArgument }, codes.Internal)),
		unsure(mutant(Other, "group-needs-sources", "GV-03", "a group is asked for again, and a volume of it is gone: NOT_FOUND", func(r *Rig) {
			around(r, func(ctx context.Context, q group, next func(context.Context, group) (proto.Message, error)) (proto.Message, error) {
				for _, id := range q.GetSourceVolumeIds() {
					if q.GetName() != "" && id != "" && !r.exists(ctx, id) {
						return nil, status.Errorf(codes.NotFound, "volume %s does not exist", id)
					}
				}
				return next(ctx, q)
			})
		})),
		unsure(mutant(Other, "group-refuses-policy", "GV-01", "with deletionPolicy among the parameters: INVALID_ARGUMENT", refuse(func(q group) bool {
			return q.GetParameters()["deletionPolicy"] != ""
		}, codes.InvalidArgument, "unknown parameter deletionPolicy"))),
	}
}

// exhaustedKeepsPlace writes down the request before it looks for room.
func exhaustedKeepsPlace(r *Rig) {
	var first memory[*csi.CreateVolumeRequest]
	around(r, func(ctx context.Context, q *csi.CreateVolumeRequest, next createNext) (*csi.CreateVolumeResponse, error) {
		was, ok := first.get(q.GetName())
		if ok && !proto.Equal(was.GetAccessibilityRequirements(), q.GetAccessibilityRequirements()) {
			return nil, status.Errorf(codes.AlreadyExists, "volume %q is asked for in another place", q.GetName())
		}
		resp, err := next(ctx, q)
		if status.Code(err) == codes.ResourceExhausted {
			first.put(q.GetName(), q)
		}
		return resp, err
	})
}

func expandModeAsCreated(r *Rig) {
	var made memory[[]*csi.VolumeCapability]
	reply(func(q *csi.CreateVolumeRequest, resp *csi.CreateVolumeResponse) {
		made.put(resp.GetVolume().GetVolumeId(), q.GetVolumeCapabilities())
	})(r)
	refuse(func(q *csi.ControllerExpandVolumeRequest) bool {
		list, ok := made.get(q.GetVolumeId())
		return ok && q.GetVolumeCapability() != nil && len(list) == 1 && list[0].GetAccessMode().GetMode() != q.GetVolumeCapability().GetAccessMode().GetMode()
	}, codes.InvalidArgument, "the volume was made for another access mode")(r)
}

func snapshotComparesMetadata(r *Rig) {
	const key = "csi.storage.k8s.io/volumesnapshot/name"
	var names memory[string]
	around(r, func(ctx context.Context, q *csi.CreateSnapshotRequest, next func(context.Context, *csi.CreateSnapshotRequest) (proto.Message, error)) (proto.Message, error) {
		if was, ok := names.get(q.GetName()); ok && was != q.GetParameters()[key] {
			return nil, status.Errorf(codes.AlreadyExists, "snapshot %q has other parameters", q.GetName())
		}
		resp, err := next(ctx, q)
		if err == nil {
			names.put(q.GetName(), q.GetParameters()[key])
		}
		return resp, err
	})
}

func modeAsAttached(r *Rig) {
	var attached memory[*csi.VolumeCapability]
	reply(func(q *csi.ControllerPublishVolumeRequest, _ *csi.ControllerPublishVolumeResponse) {
		attached.put(q.GetVolumeId(), q.GetVolumeCapability())
	})(r)
	refuse(func(q *csi.NodeStageVolumeRequest) bool {
		c, ok := attached.get(q.GetVolumeId())
		return ok && c.GetAccessMode().GetMode() != q.GetVolumeCapability().GetAccessMode().GetMode()
	}, codes.FailedPrecondition, "the volume is attached with another access mode")(r)
}

func undoNeedsAttachment(r *Rig) {
	var detached memory[bool]
	reply(func(q *csi.ControllerPublishVolumeRequest, _ *csi.ControllerPublishVolumeResponse) {
		detached.drop(q.GetVolumeId())
	})(r)
	reply(func(q *csi.ControllerUnpublishVolumeRequest, _ *csi.ControllerUnpublishVolumeResponse) {
		detached.put(q.GetVolumeId(), true)
	})(r)
	refuse(func(q unpublishRequest) bool {
		_, ok := detached.get(q.GetVolumeId())
		is, err := mnt.IsMountPoint(q.GetTargetPath())
		return ok && is && err == nil
	}, codes.FailedPrecondition, "the volume is not attached")(r)
}

// failureStays keeps a volume's failed operation for ever.
func failureStays[Q proto.Message](id func(Q) string, failed func(error) bool, with codes.Code) func(*Rig) {
	return func(r *Rig) {
		var before memory[error]
		around(r, func(ctx context.Context, q Q, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
			if err, ok := before.get(id(q)); ok {
				return nil, status.Errorf(with, "the volume is in an error state: %v", err)
			}
			resp, err := next(ctx, q)
			if failed(err) {
				before.put(id(q), err)
			}
			return resp, err
		})
	}
}
