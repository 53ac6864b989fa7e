package suite

import (
	"os"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/sanity/internal/check"
)

// deletedData: the next tenant may have the name, the place, and nothing else.
func deletedData(t *T) {
	v, target := use(t)
	mustStore(t, "NP-07", target, "first")
	v.Unpublish(target)
	v.FromNode()
	v.Delete()
	req := v.Request
	next := &check.Volume{Volume: check.OK[*csi.CreateVolumeResponse](t, "CV-01", req).GetVolume(), T: t, Request: req, Cap: v.Cap}
	if holds(t, next.ToNode().PublishAt(), "first") == nil {
		t.Failf("DV-01 CV-40", "a new volume, by the name of a deleted one, has the data of that one")
	}
}

// twoTargets: a pod goes, and the other one of the node stays.
func twoTargets(t *T) {
	v := volumeOf(t, snmw).ToNode()
	first := v.PublishAt()
	req := v.PublishRequest()
	if _, err := t.Try(req); err != nil {
		t.NotApplicable("a second target is refused: %s", check.Describe(err))
	}
	second := req.GetTargetPath()
	mustStore(t, "NP-13 NP-07", first, "first")
	v.Unpublish(first)
	mustHold(t, "NB-02 NP-13", "at the other target, after NodeUnpublishVolume of one", second, "first")
	if t.Failed() {
		return
	}
	mustStore(t, "NB-02 NP-13", second, "second")
	third := v.PublishAt()
	v.Unpublish(second)
	mustHold(t, "NB-02 NP-13", "at a third target", third, "second")
	v.Unpublish(third)
	v.FromNode()
}

// otherFlags: a second call with flags that the mount has not may be refused. When it
// is OK the mount must have them.
func otherFlags(t *T) {
	const flag = "noexec"
	v := t.NewVolume().ToNode()
	p := v.PublishRequest()
	check.OK[*csi.NodePublishVolumeResponse](t, "NP-07", p)
	if slices.Contains(optionsAt(t, p.GetTargetPath()), flag) {
		t.NotApplicable("each mount is %s", flag)
	}
	with := proto.Clone(v.Cap).(*csi.VolumeCapability)
	with.GetMount().MountFlags = []string{flag}
	again := proto.Clone(p).(*csi.NodePublishVolumeRequest)
	again.VolumeCapability = with
	if _, err := t.Try(again); err == nil && !slices.Contains(optionsAt(t, p.GetTargetPath()), flag) {
		t.Failf("NP-10", "NodePublishVolume at a target in use, with the mount flag %s: got OK, and the mount has it not; want ALREADY_EXISTS", flag)
	}
	v.Unpublish(p.GetTargetPath())
	if !t.Has("node:STAGE_UNSTAGE_VOLUME") {
		return
	}
	stage := proto.Clone(v.StageRequest()).(*csi.NodeStageVolumeRequest)
	stage.VolumeCapability = with
	if _, err := t.Try(stage); err != nil {
		return
	}
	p = v.PublishRequest()
	p.VolumeCapability = with
	if _, err := t.Try(p); err == nil && !slices.Contains(optionsAt(t, p.GetTargetPath()), flag) {
		t.Failf("NS-08 NS-06", "NodeStageVolume where the volume is staged, with the mount flag %s, is OK, and what is published then has it not; want ALREADY_EXISTS", flag)
	}
}

// quotedFlag is how kubelet gives the label of a pod. A driver that splits it at the
// comma mounts with half a label, or with none.
func quotedFlag(t *T) {
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	v := volumeWith(t, func(m *csi.VolumeCapability_MountVolume) { m.MountFlags = []string{`context="` + label + `"`} })
	v.Attach()
	var refused error
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		_, refused = t.Try(v.StageRequest())
	}
	p := v.PublishRequest()
	if refused == nil {
		_, refused = t.Try(p)
	}
	_, serr := os.Stat("/sys/fs/selinux/enforce")
	switch {
	case refused != nil && serr != nil:
		t.NotApplicable("there is no SELinux here, and the driver says so: %s", check.Describe(refused))
	case refused != nil:
		t.Warnf("NS-06", "there is SELinux here, and a volume cannot be mounted with a label: %s", check.Describe(refused))
	case !strings.Contains(strings.Join(optionsAt(t, p.GetTargetPath()), ","), "c1,c2"):
		t.Failf("NS-06", "mount_flags have context=%q, which is mounted with OK, and the mount has %q", label, optionsAt(t, p.GetTargetPath()))
	}
}
