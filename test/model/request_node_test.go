package model

import (
	"github.com/container-storage-interface/spec/lib/go/csi"
)

func stagingOf(dir string, v object) string { return dir + "/staging-" + string(v) }

func (a *action) target(dir string) string { return dir + "/" + string(pick(targetNames, a.other)) }

func (a *action) stage(dir string) *request {
	v := pick(volumeNames, a.object)
	path := stagingOf(dir, v)
	return &request{
		kind: "NodeStageVolume", about: v, path: path, keys: []key{{"node:" + string(v), false}},
		in:     &csi.NodeStageVolumeRequest{VolumeId: ids[v], StagingTargetPath: path, VolumeCapability: capability(multi), Secrets: a.secrets()},
		answer: message[csi.NodeStageVolumeResponse],
	}
}

func (a *action) unstage(dir string) *request {
	v := pick(volumeNames, a.object)
	path := stagingOf(dir, v)
	return &request{
		kind: "NodeUnstageVolume", about: v, path: path, undoes: "NodeStageVolume", keys: []key{{"node:" + string(v), false}},
		in:     &csi.NodeUnstageVolumeRequest{VolumeId: ids[v], StagingTargetPath: path},
		answer: message[csi.NodeUnstageVolumeResponse],
	}
}

func (a *action) publish(dir string) *request {
	v, path := pick(volumeNames, a.object), a.target(dir)
	return &request{
		kind: "NodePublishVolume", about: v, path: path, keys: []key{{"path:" + path, false}, {"node:" + string(v), true}},
		in: &csi.NodePublishVolumeRequest{
			VolumeId: ids[v], StagingTargetPath: stagingOf(dir, v), TargetPath: path, VolumeCapability: capability(multi),
			Readonly: a.variant == 1, Secrets: a.secrets(),
		},
		answer: message[csi.NodePublishVolumeResponse],
	}
}

func (a *action) unpublish(dir string) *request {
	v, path := pick(volumeNames, a.object), a.target(dir)
	return &request{
		kind: "NodeUnpublishVolume", about: v, path: path, undoes: "NodePublishVolume",
		keys:   []key{{"path:" + path, false}, {"node:" + string(v), true}},
		in:     &csi.NodeUnpublishVolumeRequest{VolumeId: ids[v], TargetPath: path},
		answer: message[csi.NodeUnpublishVolumeResponse],
	}
}

func (a *action) nodeExpand(dir string) *request {
	v := pick(volumeNames, a.object)
	path := stagingOf(dir, v)
	return &request{
		kind: "NodeExpandVolume", about: v, path: path, keys: []key{{"node:" + string(v), false}},
		in:     &csi.NodeExpandVolumeRequest{VolumeId: ids[v], VolumePath: path},
		answer: message[csi.NodeExpandVolumeResponse],
	}
}

func (a *action) list(string) *request {
	return &request{kind: "ListVolumes", in: &csi.ListVolumesRequest{}, answer: message[csi.ListVolumesResponse], reads: true}
}

func (a *action) get(string) *request {
	v := pick(volumeNames, a.object)
	return &request{
		kind: "ControllerGetVolume", about: v, reads: true,
		in: &csi.ControllerGetVolumeRequest{VolumeId: ids[v]}, answer: message[csi.ControllerGetVolumeResponse],
	}
}

func (a *action) listSnapshots(string) *request {
	return &request{kind: "ListSnapshots", in: &csi.ListSnapshotsRequest{}, answer: message[csi.ListSnapshotsResponse], reads: true}
}

func (a *action) getSnapshot(string) *request {
	s := pick(snapshotNames, a.other)
	return &request{
		kind: "GetSnapshot", about: s, reads: true,
		in: &csi.GetSnapshotRequest{SnapshotId: ids[s]}, answer: message[csi.GetSnapshotResponse],
	}
}

func (a *action) getGroup(string) *request {
	g := pick(groupNames, a.other)
	return &request{
		kind: "GetVolumeGroupSnapshot", about: g, reads: true,
		in: &csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: ids[g]}, answer: message[csi.GetVolumeGroupSnapshotResponse],
	}
}

func (a *action) stats(dir string) *request {
	v := pick(volumeNames, a.object)
	return &request{
		kind: "NodeGetVolumeStats", about: v, path: a.target(dir), reads: true,
		in:     &csi.NodeGetVolumeStatsRequest{VolumeId: ids[v], VolumePath: a.target(dir)},
		answer: message[csi.NodeGetVolumeStatsResponse],
	}
}
