package co

import (
	"context"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/csikit/csikit/backends"
)

// rpc is a row of the table: an RPC, and the place where it fails.
type rpc struct {
	full    string // /csi.v1.Node/NodeStageVolume
	name    string // as the table calls it
	at      string // a method of the backend, or "engine"; "": what may fail stands nowhere
	ability string // without which it is not implemented; "": always there
	prepare func(f *fixture)
	call    func(ctx context.Context, f *fixture) error
	empty   func(ctx context.Context, f *fixture) error // with an empty request; nil: that is a good one
	rival   func(ctx context.Context, f *fixture) error // conflicts with call; nil: nothing does
	stuck   string                                      // where rival fails; "": at
	undo    func(ctx context.Context, f *fixture) error // negates call; nil: nothing does
	gone    func(f *fixture) error                      // that the very object is not found; nil: it has none
	looks   bool                                        // at is a lookup on the way to make something
	undone  func(f *fixture) bool                       // nothing is left of it; nil: nobody looks
	answer  any                                         // what no backend may answer; nil: it answers nothing
}

// secret is in the request, or is none if it has no field for one: then nobody but
// the backend could know that it is one.
func (r *rpc) secret() string {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(r.full, "/"), "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err == nil && d.(protoreflect.MethodDescriptor).Input().Fields().ByName("secrets") != nil {
		return canary
	}
	return "the password"
}

// done throws the response away.
func done[T any](_ T, err error) error { return err }

func volumeGone(f *fixture) error   { return backends.VolumeNotFound(f.vol) }
func snapshotGone(f *fixture) error { return backends.SnapshotNotFound(f.snap) }
func groupGone(f *fixture) error    { return backends.GroupNotFound(f.group) }

func deleteVolume(ctx context.Context, f *fixture) error {
	return done(f.c.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: f.vol, Secrets: secrets()}))
}

func expandVolume(ctx context.Context, f *fixture) error {
	return done(f.c.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
		VolumeId: f.vol, CapacityRange: &csi.CapacityRange{RequiredBytes: 128 * mi}, Secrets: secrets(),
	}))
}

func modifyVolume(ctx context.Context, f *fixture) error {
	return done(f.c.ControllerModifyVolume(ctx, &csi.ControllerModifyVolumeRequest{
		VolumeId: f.vol, MutableParameters: map[string]string{"tier": "fast"}, Secrets: secrets(),
	}))
}

func deleteSnapshot(ctx context.Context, f *fixture) error {
	return done(f.c.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: f.snap, Secrets: secrets()}))
}

func deleteGroup(ctx context.Context, f *fixture) error {
	return done(f.c.DeleteVolumeGroupSnapshot(ctx, &csi.DeleteVolumeGroupSnapshotRequest{
		GroupSnapshotId: f.group, SnapshotIds: f.members, Secrets: secrets(),
	}))
}

func attachVolume(ctx context.Context, f *fixture) error {
	return done(f.c.ControllerPublishVolume(ctx, f.attachRequest()))
}

func detachVolume(ctx context.Context, f *fixture) error {
	return done(f.c.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: f.vol, NodeId: thisNode, Secrets: secrets()}))
}

func stageVolume(ctx context.Context, f *fixture) error {
	return done(f.c.NodeStageVolume(ctx, f.stageRequest()))
}

func unstageVolume(ctx context.Context, f *fixture) error {
	return done(f.c.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: f.vol, StagingTargetPath: f.staging()}))
}

func publishVolume(ctx context.Context, f *fixture) error {
	return done(f.c.NodePublishVolume(ctx, f.publishRequest()))
}

func unpublishVolume(ctx context.Context, f *fixture) error {
	return done(f.c.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: f.vol, TargetPath: f.target()}))
}

func publishPod(ctx context.Context, f *fixture) error {
	return done(f.c.NodePublishVolume(ctx, f.podRequest()))
}

func unpublishPod(ctx context.Context, f *fixture) error {
	return done(f.c.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "csi-pod", TargetPath: f.target()}))
}

func expandOnNode(ctx context.Context, f *fixture) error {
	return done(f.c.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
		VolumeId: f.vol, VolumePath: f.target(), StagingTargetPath: f.staging(), Secrets: secrets(),
	}))
}

// fromSource is a CreateVolume that copies.
func fromSource(source func(f *fixture) *csi.VolumeContentSource) func(context.Context, *fixture) error {
	return func(ctx context.Context, f *fixture) error {
		req := createRequest("copy")
		req.VolumeContentSource = source(f)
		return done(f.c.CreateVolume(ctx, req))
	}
}

func ofSnapshot(f *fixture) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: f.snap},
	}}
}

func ofVolume(f *fixture) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: f.source},
	}}
}

// createOther has the name of another CreateVolume, and another size.
func createOther(name string) func(context.Context, *fixture) error {
	return func(ctx context.Context, f *fixture) error {
		req := createRequest(name)
		req.CapacityRange.RequiredBytes *= 2
		return done(f.c.CreateVolume(ctx, req))
	}
}

// rpcs are the rows of the table, in its order.
func rpcs() []*rpc {
	all := append(identityRPCs(), volumeRPCs()...)
	all = append(all, readingRPCs()...)
	all = append(all, snapshotRPCs()...)
	all = append(all, streamRPCs()...)
	return append(all, nodeRPCs()...)
}

func identityRPCs() []*rpc {
	return []*rpc{
		{full: csi.Identity_GetPluginInfo_FullMethodName, name: "GetPluginInfo", call: func(ctx context.Context, f *fixture) error {
			return done(f.c.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}))
		}},
		{full: csi.Identity_GetPluginCapabilities_FullMethodName, name: "GetPluginCapabilities", call: func(ctx context.Context, f *fixture) error {
			return done(f.c.GetPluginCapabilities(ctx, &csi.GetPluginCapabilitiesRequest{}))
		}},
		{full: csi.Identity_Probe_FullMethodName, name: "Probe", at: "Probe", prepare: unasked, call: func(ctx context.Context, f *fixture) error {
			return done(f.c.Probe(ctx, &csi.ProbeRequest{}))
		}},
	}
}

// unasked waits until the last answer of the backend's Probe does not count any more.
func unasked(*fixture) { time.Sleep(time.Minute) }

func volumeRPCs() []*rpc {
	const create = csi.Controller_CreateVolume_FullMethodName
	emptyCreate := func(ctx context.Context, f *fixture) error {
		return done(f.c.CreateVolume(ctx, &csi.CreateVolumeRequest{}))
	}
	makes := func(ctx context.Context, f *fixture) error { return done(f.c.CreateVolume(ctx, createRequest("new"))) }
	// The ID that the new volume is about to have, which Delete needs to name it.
	withNew := func(name string) func(*fixture) {
		return func(f *fixture) {
			id, err := f.backend.VolumeID(backends.CreateVolumeRequest{Name: name})
			f.must(err)
			f.vol = id
		}
	}
	return []*rpc{
		{full: create, name: "CreateVolume", at: "FindVolume", looks: true, call: makes, empty: emptyCreate, rival: createOther("new")},
		{full: create, name: "CreateVolume", at: "CheckVolume", looks: true, call: makes},
		{full: create, name: "CreateVolume", at: "CreateVolume", prepare: withNew("new"), call: makes, rival: createOther("new"),
			undo: deleteVolume, answer: &backends.Volume{Capacity: mi}},
		{full: create, name: "CreateVolume of a snapshot", at: "Snapshot", looks: true, prepare: withSnapshot, call: fromSource(ofSnapshot),
			gone: snapshotGone, answer: (*backends.Snapshot)(nil)},
		{full: create, name: "CreateVolume of a snapshot", at: "RestoreSnapshot", prepare: func(f *fixture) { withSnapshot(f); withNew("copy")(f) },
			call: fromSource(ofSnapshot), rival: createOther("copy"), stuck: "CreateVolume", undo: deleteVolume, answer: &backends.Volume{ID: "x"}},
		{full: create, name: "CreateVolume of a volume", at: "Volume", looks: true, prepare: withSource, call: fromSource(ofVolume),
			gone: func(f *fixture) error { return backends.VolumeNotFound(f.source) }, answer: &backends.Volume{}},
		{full: create, name: "CreateVolume of a volume", at: "CloneVolume", prepare: func(f *fixture) { withSource(f); withNew("copy")(f) },
			call: fromSource(ofVolume), rival: createOther("copy"), stuck: "CreateVolume", undo: deleteVolume, answer: &backends.Volume{ID: "x"}},
		{full: csi.Controller_DeleteVolume_FullMethodName, name: "DeleteVolume", at: "DeleteVolume", prepare: withVolume, call: deleteVolume,
			empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.DeleteVolume(ctx, &csi.DeleteVolumeRequest{}))
			}, rival: expandVolume, stuck: "ExpandVolume", gone: volumeGone},
		{full: csi.Controller_ControllerPublishVolume_FullMethodName, name: "ControllerPublishVolume", at: "Volume", looks: true, ability: "Attacher",
			prepare: withVolume, call: attachVolume, gone: volumeGone, answer: (*backends.Volume)(nil)},
		{full: csi.Controller_ControllerPublishVolume_FullMethodName, name: "ControllerPublishVolume", at: "AttachVolume", ability: "Attacher",
			prepare: withVolume, call: attachVolume, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{}))
			}, rival: expandVolume, stuck: "ExpandVolume", undo: detachVolume, gone: volumeGone, answer: map[string]string{"password": canary}},
		{full: csi.Controller_ControllerUnpublishVolume_FullMethodName, name: "ControllerUnpublishVolume", at: "DetachVolume", ability: "Attacher",
			prepare: withAttached, call: detachVolume, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{}))
			}, rival: expandVolume, stuck: "ExpandVolume"},
		{full: csi.Controller_ControllerExpandVolume_FullMethodName, name: "ControllerExpandVolume", at: "Volume", looks: true, ability: "Expander",
			prepare: withVolume, call: expandVolume, gone: volumeGone, answer: (*backends.Volume)(nil)},
		{full: csi.Controller_ControllerExpandVolume_FullMethodName, name: "ControllerExpandVolume", at: "ExpandVolume", ability: "Expander",
			prepare: withVolume, call: expandVolume, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{}))
			}, rival: deleteVolume, stuck: "DeleteVolume", gone: volumeGone, answer: int64(mi)},
		{full: csi.Controller_ControllerModifyVolume_FullMethodName, name: "ControllerModifyVolume", at: "Volume", looks: true, ability: "Modifier",
			prepare: withVolume, call: modifyVolume, gone: volumeGone},
		{full: csi.Controller_ControllerModifyVolume_FullMethodName, name: "ControllerModifyVolume", at: "ModifyVolume", ability: "Modifier",
			prepare: withVolume, call: modifyVolume, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.ControllerModifyVolume(ctx, &csi.ControllerModifyVolumeRequest{}))
			}, rival: expandVolume, stuck: "ExpandVolume", gone: volumeGone},
	}
}

func readingRPCs() []*rpc {
	return []*rpc{
		{full: csi.Controller_ValidateVolumeCapabilities_FullMethodName, name: "ValidateVolumeCapabilities", at: "Volume", prepare: withVolume,
			call: func(ctx context.Context, f *fixture) error {
				return done(f.c.ValidateVolumeCapabilities(ctx, &csi.ValidateVolumeCapabilitiesRequest{
					VolumeId: f.vol, VolumeCapabilities: []*csi.VolumeCapability{mountCapability()}, Secrets: secrets(),
				}))
			}, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.ValidateVolumeCapabilities(ctx, &csi.ValidateVolumeCapabilitiesRequest{}))
			}, gone: volumeGone, answer: (*backends.Volume)(nil)},
		{full: csi.Controller_ListVolumes_FullMethodName, name: "ListVolumes", at: "ListVolumes", ability: "VolumeLister",
			call: func(ctx context.Context, f *fixture) error {
				return done(f.c.ListVolumes(ctx, &csi.ListVolumesRequest{}))
			}},
		{full: csi.Controller_GetCapacity_FullMethodName, name: "GetCapacity", at: "Capacity", ability: "CapacityReporter",
			call: func(ctx context.Context, f *fixture) error {
				return done(f.c.GetCapacity(ctx, &csi.GetCapacityRequest{}))
			}, answer: backends.Capacity{Available: -1}},
		{full: csi.Controller_ControllerGetVolume_FullMethodName, name: "ControllerGetVolume", at: "Volume", prepare: withVolume,
			call: func(ctx context.Context, f *fixture) error {
				return done(f.c.ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: f.vol}))
			}, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{}))
			}, gone: volumeGone, answer: (*backends.Volume)(nil)},
		{full: csi.Controller_ControllerGetVolumeHealth_FullMethodName, name: "ControllerGetVolumeHealth", at: "VolumeHealth", ability: "HealthChecker", prepare: withVolume,
			call: func(ctx context.Context, f *fixture) error {
				return done(f.c.ControllerGetVolumeHealth(ctx, &csi.ControllerGetVolumeHealthRequest{VolumeId: f.vol, Secrets: secrets()}))
			}, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.ControllerGetVolumeHealth(ctx, &csi.ControllerGetVolumeHealthRequest{}))
			}, gone: volumeGone, answer: []backends.Health{{Status: 99}}},
		{full: csi.Controller_ControllerListVolumeHealth_FullMethodName, name: "ControllerListVolumeHealth", at: "ListVolumeHealth", ability: "HealthLister",
			call: func(ctx context.Context, f *fixture) error {
				return done(f.c.ControllerListVolumeHealth(ctx, &csi.ControllerListVolumeHealthRequest{Secrets: secrets()}))
			}},
		{full: csi.Controller_ControllerGetCapabilities_FullMethodName, name: "ControllerGetCapabilities", call: func(ctx context.Context, f *fixture) error {
			return done(f.c.ControllerGetCapabilities(ctx, &csi.ControllerGetCapabilitiesRequest{}))
		}},
		{full: csi.Controller_ListSnapshots_FullMethodName, name: "ListSnapshots", at: "ListSnapshots", ability: "SnapshotLister",
			call: func(ctx context.Context, f *fixture) error {
				return done(f.c.ListSnapshots(ctx, &csi.ListSnapshotsRequest{Secrets: secrets()}))
			}},
		{full: csi.Controller_ListSnapshots_FullMethodName, name: "ListSnapshots by snapshot_id", at: "Snapshot", ability: "SnapshotLister", prepare: withSnapshot,
			call: func(ctx context.Context, f *fixture) error {
				return done(f.c.ListSnapshots(ctx, &csi.ListSnapshotsRequest{SnapshotId: f.snap, Secrets: secrets()}))
			}, gone: snapshotGone, answer: (*backends.Snapshot)(nil)},
		{full: csi.Controller_GetSnapshot_FullMethodName, name: "GetSnapshot", at: "Snapshot", ability: "Snapshotter", prepare: withSnapshot,
			call: func(ctx context.Context, f *fixture) error {
				return done(f.c.GetSnapshot(ctx, &csi.GetSnapshotRequest{SnapshotId: f.snap, Secrets: secrets()}))
			}, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.GetSnapshot(ctx, &csi.GetSnapshotRequest{}))
			}, gone: snapshotGone, answer: (*backends.Snapshot)(nil)},
		{full: csi.GroupController_GroupControllerGetCapabilities_FullMethodName, name: "GroupControllerGetCapabilities", ability: "GroupSnapshotter",
			call: func(ctx context.Context, f *fixture) error {
				return done(f.c.GroupControllerGetCapabilities(ctx, &csi.GroupControllerGetCapabilitiesRequest{}))
			}},
		{full: csi.GroupController_GetVolumeGroupSnapshot_FullMethodName, name: "GetVolumeGroupSnapshot", at: "GroupSnapshot", ability: "GroupSnapshotter", prepare: withGroup,
			call: func(ctx context.Context, f *fixture) error {
				return done(f.c.GetVolumeGroupSnapshot(ctx, &csi.GetVolumeGroupSnapshotRequest{
					GroupSnapshotId: f.group, SnapshotIds: f.members, Secrets: secrets(),
				}))
			}, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.GetVolumeGroupSnapshot(ctx, &csi.GetVolumeGroupSnapshotRequest{}))
			}, gone: groupGone, answer: (*backends.GroupSnapshot)(nil)},
	}
}

func snapshotRPCs() []*rpc {
	createSnapshot := func(ctx context.Context, f *fixture) error {
		return done(f.c.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: "new", SourceVolumeId: f.vol, Secrets: secrets()}))
	}
	ofAnother := func(ctx context.Context, f *fixture) error {
		return done(f.c.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: "new", SourceVolumeId: f.source, Secrets: secrets()}))
	}
	withNew := func(f *fixture) {
		withVolume(f)
		withSource(f)
		id, err := f.backend.SnapshotID(backends.CreateSnapshotRequest{Name: "new"})
		f.must(err)
		f.snap = id
	}
	withNewGroup := func(f *fixture) {
		withVolume(f)
		withSource(f)
		id, err := f.backend.GroupSnapshotID(backends.CreateGroupSnapshotRequest{Name: "g"})
		f.must(err)
		f.group = id
	}
	createGroup := func(ctx context.Context, f *fixture) error {
		return done(f.c.CreateVolumeGroupSnapshot(ctx, f.groupRequest()))
	}
	otherGroup := func(ctx context.Context, f *fixture) error {
		req := f.groupRequest()
		req.SourceVolumeIds = req.SourceVolumeIds[:1]
		return done(f.c.CreateVolumeGroupSnapshot(ctx, req))
	}
	return []*rpc{
		{full: csi.Controller_CreateSnapshot_FullMethodName, name: "CreateSnapshot", at: "FindSnapshot", looks: true, ability: "Snapshotter",
			prepare: withNew, call: createSnapshot},
		{full: csi.Controller_CreateSnapshot_FullMethodName, name: "CreateSnapshot", at: "CreateSnapshot", ability: "Snapshotter",
			prepare: withNew, call: createSnapshot, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{}))
			}, rival: ofAnother, undo: deleteSnapshot, gone: volumeGone, answer: &backends.Snapshot{ID: "x"}},
		{full: csi.Controller_DeleteSnapshot_FullMethodName, name: "DeleteSnapshot", at: "DeleteSnapshot", ability: "Snapshotter",
			prepare: withSnapshot, call: deleteSnapshot, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{}))
			}, rival: fromSource(ofSnapshot), stuck: "RestoreSnapshot", gone: snapshotGone},
		{full: csi.GroupController_CreateVolumeGroupSnapshot_FullMethodName, name: "CreateVolumeGroupSnapshot", at: "FindGroupSnapshot", looks: true,
			ability: "GroupSnapshotter", prepare: withNewGroup, call: createGroup},
		{full: csi.GroupController_CreateVolumeGroupSnapshot_FullMethodName, name: "CreateVolumeGroupSnapshot", at: "CreateGroupSnapshot", ability: "GroupSnapshotter",
			prepare: withNewGroup, call: createGroup, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.CreateVolumeGroupSnapshot(ctx, &csi.CreateVolumeGroupSnapshotRequest{}))
			}, rival: otherGroup, undo: deleteGroup, gone: volumeGone, answer: &backends.GroupSnapshot{ID: "x"}},
		{full: csi.GroupController_DeleteVolumeGroupSnapshot_FullMethodName, name: "DeleteVolumeGroupSnapshot", at: "DeleteGroupSnapshot", ability: "GroupSnapshotter",
			prepare: withGroup, call: deleteGroup, empty: func(ctx context.Context, f *fixture) error {
				return done(f.c.DeleteVolumeGroupSnapshot(ctx, &csi.DeleteVolumeGroupSnapshotRequest{}))
			}, gone: groupGone},
	}
}
