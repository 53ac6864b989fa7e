package suite

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// podChecks: what of H-29 kubelet does with volumes of pods that come, stay and go.
func podChecks() []Check {
	const node = "CREATE_DELETE_VOLUME node"
	const grow, staged = node + " node:EXPAND_VOLUME", node + " node:STAGE_UNSTAGE_VOLUME"
	return []Check{
		{ID: "H-29/kubelet/held", Title: "NodeUnpublishVolume comes while somebody has a file of the volume open: whatever it says, nothing is lost, and the volume comes off afterwards", Clauses: "NB-01 NB-02 NB-04 NP-07", Needs: node + " host", Run: held},
		{ID: "H-29/kubelet/copied-mount", Title: "A container has a copy of the mount while the volume is unpublished and unstaged: its next pod has the data, and it comes off afterwards", Clauses: "NU-01 NU-02 NS-01 NS-06", Needs: staged + " host", Run: copiedMount},
		{ID: "H-29/kubelet/refused-again", Title: "NodePublishVolume that is refused at a target in use leaves the pod what it has", Clauses: "NP-01 NP-07", Needs: node + " host", Run: refusedAgain},
		{ID: "H-29/kubelet/removed-staging", Title: "The staging path was removed before NodeUnstageVolume", Clauses: "NU-03", Needs: staged, Run: removedStaging},
		{ID: "H-29/nomad/old-path", Title: "NodeUnstageVolume at a path where a volume is not staged leaves it where it is", Clauses: "NU-02 NU-03", Needs: staged, Run: oldPath},
		{ID: "H-29/kubelet/other-fs", Title: "A volume that is staged with another fs_type, or none, keeps its data", Clauses: "NS-06 NP-07", Needs: node + " host mount", Run: otherFS},
		{ID: "H-29/kubelet/ephemeral-readonly", Title: "An inline volume that is published readonly cannot be written", Clauses: "NP-08", Needs: "node mount host", Run: ephemeralReadOnly},
		{ID: "H-29/kubelet/other-group", Title: "The next pod has another fsGroup, which kubelet leaves to the driver: it gets at what is there", Clauses: "NS-12 NS-06 NU-02", Needs: node + " node:VOLUME_MOUNT_GROUP host mount", Run: otherGroup},
		{ID: "H-29/kubelet/expand-capability", Title: "NodeExpandVolume comes without the volume_mount_group and the label that NodeStageVolume had", Clauses: "NE-01 NE-05", Needs: grow + " mount", Run: expandCapability},
		{ID: "H-29/kubelet/expand-elsewhere", Title: "NodeExpandVolume of a raw volume comes with the target of a pod that is gone", Clauses: "NE-01 NE-10", Needs: grow + " node:STAGE_UNSTAGE_VOLUME block", Run: expandElsewhere},
	}
}

// unfinished are codes that do not say that a call has ended.
var unfinished = []codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Aborted, codes.ResourceExhausted}

// held: what a container's child still has open, or somebody on the node. Drivers
// refuse, wait, or take the mount out of the tree; one that takes what fails to be
// unmounted for a directory of its own deletes what the pod has written.
func held(t *T) {
	v := t.NewVolume().ToNode()
	p := v.PublishRequest()
	target := p.GetTargetPath()
	check.OK[*csi.NodePublishVolumeResponse](t, "NP-07", p)
	mustStore(t, "NP-07", target, "first")
	f, err := os.Open(place(t, target, "csikit-data"))
	if err != nil {
		t.Fatalf("NP-07", "%v", err)
	}
	_, err = t.Send(t.Context(), v.UnpublishRequest(target))
	if cerr := f.Close(); cerr != nil {
		t.NotRun("%v", cerr)
	}
	if err != nil && !slices.Contains(unfinished, codeOf(err)) { // of the others it may be at work yet
		check.OK[*csi.NodePublishVolumeResponse](t, "NP-01", p)
		mustHold(t, "NP-01 NP-07", "NodeUnpublishVolume failed, for a file was open, and NodePublishVolume again is OK", target, "first")
	}
	if _, err := t.Try(v.UnpublishRequest(target)); err != nil {
		t.Fatalf("NB-01", "NodeUnpublishVolume, when nobody has a file of the volume open any more: got %s, want OK", check.Describe(err))
	}
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		t.Failf("NB-02 NB-04", "NodeUnpublishVolume is OK, after one that failed, and the target is still there")
	}
	target = v.PublishAt()
	mustHold(t, "NB-02 NP-07", "the next pod, after a file of the volume was open when it was unpublished", target, "first")
	v.Unpublish(target)
	v.FromNode()
}

// copiedMount: each container has copies of the mounts that were there when it was
// started, those of other pods among them unless its runtime takes care, and so has who
// logs in to the node with a namespace of his own. Unmounting does not end those: the
// file system is in use until they are gone, and so is its device.
func copiedMount(t *T) {
	v, target := use(t)
	mustStore(t, "NP-07", target, "first")
	end, err := copyMounts(t.Context())
	if err != nil {
		t.NotRun("a process with copies of the mounts: %v", err)
	}
	defer end()
	v.Unpublish(target)
	_, uerr := t.Send(t.Context(), v.UnstageRequest()) // a driver may say that the device is busy
	if next, err := bring(v); err != nil {
		t.Warnf("NS-01", "while a container has a copy of its mount the volume was unstaged (%s), and cannot be staged and published again: %s; kubelet marks it uncertain, and tries so for the next pod",
			check.Describe(uerr), check.Describe(err))
		end()
	} else {
		mustHold(t, "NS-06 NU-02", "the next pod, while a container has a copy of the mount of the one before", next, "first")
		mustStore(t, "NS-06", next, "second")
		end()
		mustHold(t, "NS-06 NU-02", "the next pod, when the copy is gone", next, "second")
		v.Unpublish(next)
	}
	if _, err := t.Try(v.UnstageRequest()); err != nil {
		t.Fatalf("NU-01", "NodeUnstageVolume, when no container has a copy of the mount any more: got %s, want OK", check.Describe(err))
	}
	v.Detach()
	if uerr == nil || !t.Failed() {
		target = v.ToNode().PublishAt()
		if holds(t, target, "second") != nil {
			mustHold(t, "NS-06 NU-02", "after a container had a copy of the mount", target, "first")
		}
		v.Unpublish(target)
		v.FromNode()
	}
}

// refusedAgain: kubelet publishes again where tokens are renewed, and after it was
// restarted. The pod goes on with what it has, whatever comes of that.
func refusedAgain(t *T) {
	v := t.NewVolume().ToNode()
	p := v.PublishRequest()
	target := p.GetTargetPath()
	check.OK[*csi.NodePublishVolumeResponse](t, "NP-07", p)
	mustStore(t, "NP-07", target, "first")
	readonly, odd := proto.Clone(p).(*csi.NodePublishVolumeRequest), proto.Clone(p).(*csi.NodePublishVolumeRequest)
	readonly.Readonly = true
	if m := odd.GetVolumeCapability().GetMount(); m != nil {
		m.MountFlags = []string{"csikit-no-such-option"}
	} else {
		odd.VolumeCapability = check.Capability(v.Cap.GetAccessMode().GetMode(), false)
	}
	refused := false
	for _, again := range []*csi.NodePublishVolumeRequest{readonly, odd} {
		_, err := t.Try(again)
		if err == nil {
			continue // another check's
		}
		refused = true
		mustHold(t, "NP-01 NP-07", "NodePublishVolume at a target in use was refused ("+check.CodeName(codeOf(err))+"), and its pod", target, "first")
	}
	if !refused {
		t.NotApplicable("the driver refuses nothing at a target in use")
	}
	if !t.Failed() {
		v.Unpublish(target)
		v.FromNode()
	}
}

// removedStaging: kubelet removes the directory when a final error of NodeStageVolume
// told it that nothing is there, and may be asked to unstage all the same.
func removedStaging(t *T) {
	v := t.NewVolume()
	v.Attach()
	v.Stage()
	v.Unstage()
	if err := os.Remove(v.Staging); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.NotRun("%v", err)
	}
	if _, err := t.Try(v.UnstageRequest()); err != nil {
		t.Failf("NU-03", "NodeUnstageVolume where the staging path was removed: got %s, want OK", check.Describe(err))
	}
	v.Detach()
}

// oldPath: Nomad unstages at the path that an older Nomad would have taken when the one
// of its own is not there.
func oldPath(t *T) {
	v, target := use(t)
	if t.Config().Host {
		mustStore(t, "NP-07", target, "first")
	}
	v.Unpublish(target)
	undo := &csi.NodeUnstageVolumeRequest{VolumeId: v.VolumeId, StagingTargetPath: t.MakeDir(check.StagingDir)}
	if _, err := t.Try(undo); err != nil {
		t.Warnf("NU-03", "NodeUnstageVolume at a path where the volume is not staged, while it is at another: got %s, want OK", check.Describe(err))
	}
	p := v.PublishRequest()
	if _, err := t.Try(p); err != nil {
		t.Fatalf("NU-02", "NodePublishVolume, after NodeUnstageVolume at another path than where the volume is staged: got %s, want OK", check.Describe(err))
	}
	if t.Config().Host {
		mustHold(t, "NU-02", "NodeUnstageVolume at another path was OK, and the next pod", p.GetTargetPath(), "first")
	}
	v.Unpublish(p.GetTargetPath())
	v.FromNode()
}

// otherFS: who writes a PersistentVolume by hand says no fs_type, or a wrong one. A
// driver may refuse that, or mount what is there. That the type is not the one that was
// asked for is no reason to make a new file system.
func otherFS(t *T) {
	for _, types := range [][]string{{"ext4", "xfs"}, {"xfs", "ext4"}} {
		v, target := withFS(t, types[0])
		if v == nil {
			continue
		}
		mustStore(t, "NP-07", target, "first")
		made := v.Cap
		for _, other := range []string{"", types[1]} {
			v.Unpublish(target)
			v.FromNode()
			v.Cap = proto.Clone(made).(*csi.VolumeCapability)
			v.Cap.GetMount().FsType = other
			mounted, err := bring(v)
			if err == nil {
				mustHold(t, "NS-06 NP-07", "a volume with an "+types[0]+" was staged and published with fs_type "+check.Quote(other), mounted, "first")
				v.Unpublish(mounted)
			} else if other == "" {
				t.Warnf("NS-06", "a volume with an %s cannot be used without fs_type: %s; a PersistentVolume that is written by hand may have none", types[0], check.Describe(err))
			}
			v.FromNode()
			v.Cap = made
			target = v.ToNode().PublishAt()
			mustHold(t, "NS-06 NP-07", "after a call with fs_type "+check.Quote(other)+" the volume with an "+types[0], target, "first")
			if t.Failed() {
				return
			}
		}
		return
	}
	t.NotApplicable("the driver takes neither ext4 nor xfs")
}

// withFS publishes a new volume with a file system; nil if the driver will not.
func withFS(t *T, fsType string) (*check.Volume, string) {
	t.Mode()
	req := t.CreateRequest()
	req.GetVolumeCapabilities()[0].GetMount().FsType = fsType
	resp, err := check.Try[*csi.CreateVolumeResponse](t, req)
	if err != nil {
		return nil, ""
	}
	v := &check.Volume{Volume: resp.GetVolume(), T: t, Request: req, Cap: req.GetVolumeCapabilities()[0]}
	target, err := bring(v)
	if err != nil {
		return nil, "" // what was done is taken back at the end
	}
	return v, target
}

// bring takes a volume to a new target, as far as the driver lets it.
func bring(v *check.Volume) (target string, err error) {
	t := v.T
	if t.Has("PUBLISH_UNPUBLISH_VOLUME") {
		resp, err := check.Try[*csi.ControllerPublishVolumeResponse](t, v.AttachRequest())
		if err != nil {
			return "", err
		}
		v.Publish = resp.GetPublishContext()
	}
	return bringAttached(v)
}

// bringAttached is bring for a volume that is attached, where that is to be.
func bringAttached(v *check.Volume) (target string, err error) {
	if v.T.Has("node:STAGE_UNSTAGE_VOLUME") {
		if _, err := v.T.Try(v.StageRequest()); err != nil {
			return "", err
		}
	}
	p := v.PublishRequest()
	_, err = v.T.Try(p)
	return p.GetTargetPath(), err
}

// ephemeralReadOnly: a pod may ask for that of a volume of its own, too. Not with
// attributes: they may name storage that is there already, and nothing is written to that.
func ephemeralReadOnly(t *T) {
	req := inline(t, nil)
	req.Readonly = true
	if _, err := t.Try(req); err != nil {
		t.NotApplicable("the driver refuses inline volumes, or readonly ones: %s", check.Describe(err))
	}
	refusesWrites(t, "NP-08", req.GetTargetPath())
	undo := &csi.NodeUnpublishVolumeRequest{VolumeId: req.GetVolumeId(), TargetPath: req.GetTargetPath()}
	if _, err := t.Try(undo); err != nil {
		t.Failf("NB-01", "NodeUnpublishVolume of an inline volume that was published readonly: got %s, want OK", check.Describe(err))
	}
}

// expandCapability: kubelet stages with the pod's fsGroup and SELinux label, which it
// has not at hand when a volume grows. The flag stands for the label, which needs
// SELinux.
func expandCapability(t *T) {
	v := volumeWith(t, func(m *csi.VolumeCapability_MountVolume) {
		m.MountFlags = []string{"noatime"}
		if t.Has("node:VOLUME_MOUNT_GROUP") {
			m.VolumeMountGroup = "4321"
		}
	})
	target, err := bring(v)
	if err != nil {
		t.NotApplicable("the driver refuses mount_flags: %s", check.Describe(err))
	}
	grow := nodeExpandRequest(v, target, sizeOf(t, v))
	grow.VolumeCapability = t.Cap(v.Cap.GetAccessMode().GetMode())
	if _, err := t.Try(grow); err != nil && codeOf(err) != codes.FailedPrecondition {
		t.Warnf("NE-01 NE-05", "NodeExpandVolume with the capability of the volume, without what kubelet adds to it for a pod: %s; the volume of a pod with an fsGroup or an SELinux label does not grow", check.Describe(err))
	}
	v.Unpublish(target)
	v.FromNode()
}

// expandElsewhere: kubelet knows one path of a raw volume in use, the last one at which
// it was published, also when that pod is gone and another one is there. The spec says
// nothing of that: only a warning.
func expandElsewhere(t *T) {
	v := volumeOf(t, snmw).ToNode()
	stays := v.PublishAt()
	req := v.PublishRequest()
	if _, err := t.Try(req); err != nil {
		t.NotApplicable("a second target is refused: %s", check.Describe(err))
	}
	v.Unpublish(req.GetTargetPath())
	if _, err := t.Try(nodeExpandRequest(v, filepath.Clean(req.GetTargetPath()), sizeOf(t, v))); err != nil {
		t.Warnf("NE-01 NE-10", "NodeExpandVolume of a raw volume in use, at a target that was unpublished, with the staging path: %s; kubelet asks so when two pods had the volume and the later one is gone", check.Describe(err))
	}
	v.Unpublish(stays)
	v.FromNode()
}
