package suite

import (
	"maps"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/mounter/mnt"
	"github.com/csikit/csikit/sanity/internal/check"
)

// coChecks: H-29, calls as the COs in use make them. What only they want is a
// warning.
func coChecks() []Check {
	const node = "CREATE_DELETE_VOLUME node"
	return []Check{
		{ID: "H-29/kubelet/restart", Title: "Kubelet starts again, and stages and publishes what is staged and published", Clauses: "NS-02 NP-01", Needs: node, Run: func(t *T) {
			v := t.NewVolume().ToNode()
			p := v.PublishRequest()
			check.OK[*csi.NodePublishVolumeResponse](t, "NP-07", p)
			for range 2 {
				v.Stage()
				check.OK[*csi.NodePublishVolumeResponse](t, "NP-01", p)
			}
			v.Unpublish(p.GetTargetPath())
			v.FromNode()
			check.OK[*csi.NodeUnpublishVolumeResponse](t, "NB-03", v.UnpublishRequest(p.GetTargetPath()))
		}},
		{ID: "H-29/kubelet/never", Title: "Kubelet unpublishes and unstages what was never there", Clauses: "NB-03 NU-03", Needs: node, Run: func(t *T) {
			v := t.NewVolume()
			v.StageRequest()
			check.OK[*csi.NodeUnpublishVolumeResponse](t, "NB-03", v.UnpublishRequest(filepath.Join(t.MakeDir("pod"), "mount")))
			if t.Has("node:STAGE_UNSTAGE_VOLUME") {
				check.OK[*csi.NodeUnstageVolumeResponse](t, "NU-03", v.UnstageRequest())
			}
		}},
		{ID: "H-29/kubelet/republish", Title: "Kubelet publishes again with new tokens of a service account", Clauses: "NP-01 NP-18", Needs: node, Run: republish},
		{ID: "H-29/kubelet/pod-info", Title: "volume_context has keys that the driver never gave", Clauses: "NP-01 CV-41", Needs: node, Run: podInfo},
		{ID: "H-29/kubelet/empty-target", Title: "The target is there already, as an empty directory or file", Clauses: "NP-05 NP-07", Needs: node, Run: emptyTarget},
		{ID: "H-29/kubelet/removed-target", Title: "The target was removed before NodeUnpublishVolume", Clauses: "NB-03", Needs: node, Run: func(t *T) {
			v := t.NewVolume().ToNode()
			target := v.PublishAt()
			v.Unpublish(target)
			if err := os.RemoveAll(filepath.Dir(target)); err != nil { // nothing is mounted: the driver said so, and the directory is this check's
				t.NotRun("%v", err)
			}
			check.OK[*csi.NodeUnpublishVolumeResponse](t, "NB-03", v.UnpublishRequest(target))
		}},
		{ID: "H-29/kubelet/stats", Title: "NodeGetVolumeStats comes without a staging path", Clauses: "NG-01 NG-06", Needs: node + " node:GET_VOLUME_STATS", Run: func(t *T) {
			v := t.NewVolume().ToNode()
			r := check.OK[*csi.NodeGetVolumeStatsResponse](t, "NG-01 NG-06", &csi.NodeGetVolumeStatsRequest{VolumeId: v.VolumeId, VolumePath: v.PublishAt()})
			if len(r.GetUsage()) == 0 {
				t.Warnf("NG-05", "no usage: kubelet takes that for an error")
			}
		}},
		{ID: "H-29/provisioner/delete", Title: "DeleteVolume comes with volume_id and secrets alone, after everything", Clauses: "CV-41 DV-01", Needs: node, Run: func(t *T) {
			v := t.NewVolume().ToNode()
			v.Unpublish(v.PublishAt())
			v.FromNode()
			check.OK[*csi.DeleteVolumeResponse](t, "DV-01", &csi.DeleteVolumeRequest{VolumeId: v.VolumeId, Secrets: t.Config().Secrets})
		}},
		{ID: "H-29/nomad/staging-paths", Title: "Nomad stages a volume at several paths", Clauses: "NS-02", Needs: node + " node:STAGE_UNSTAGE_VOLUME", Run: func(t *T) {
			v := t.NewVolume()
			v.Attach()
			v.Stage()
			second := proto.Clone(v.StageRequest()).(*csi.NodeStageVolumeRequest)
			second.StagingTargetPath = t.MakeDir("staging-rw")
			if _, err := t.Try(second); err != nil {
				t.Warnf("NS-02", "NodeStageVolume at a second path: %s; Nomad has one path for each way to use a volume", check.Describe(err))
			}
		}},
		{ID: "H-29/swarm/no-parent", Title: "Swarm makes no parent of a target", Clauses: "NP-05", Needs: node, Run: func(t *T) {
			v := t.NewVolume().ToNode()
			p := v.PublishRequest()
			p.TargetPath = filepath.Join(filepath.Dir(p.GetTargetPath()), "a", "mount")
			if _, err := t.Try(p); err != nil {
				t.Warnf("NP-05", "NodePublishVolume at a target without a parent directory: %s; Swarm makes none", check.Describe(err))
			}
		}},
		{ID: "H-29/kubelet/uncertain", Title: "A final error of NodeStageVolume or NodePublishVolume leaves nothing", Clauses: "NS-06 NB-03", Needs: node, Run: finalError},
	}
}

func republish(t *T) {
	v := t.NewVolume().ToNode()
	p := v.PublishRequest()
	once := 0
	for _, token := range []string{"first", "second"} {
		r := proto.Clone(p).(*csi.NodePublishVolumeRequest)
		r.VolumeContext = map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": `{"":{"token":"` + token + `"}}`}
		maps.Copy(r.VolumeContext, v.VolumeContext)
		if _, err := t.Try(r); err != nil {
			if token == "first" {
				t.Fatalf("NP-07", "NodePublishVolume with the token of a service account: got %s, want OK", check.Describe(err))
			}
			t.Warnf("NP-01", "NodePublishVolume again, with a new token: %s; kubelet does that for drivers with requiresRepublish", check.Describe(err))
		}
		if token == "first" {
			once = mountsAt(p.GetTargetPath())
		}
	}
	if n := mountsAt(p.GetTargetPath()); t.Config().Host && n > once {
		t.Failf("NP-01", "after NodePublishVolume with a new token %d mounts lie on each other at the target, before %d; kubelet does that every few minutes", n, once)
	}
	v.Unpublish(p.GetTargetPath())
}

// mountsAt is how many mounts lie on each other at a path.
func mountsAt(path string) int {
	stack, err := mnt.At(path)
	if err != nil {
		return 0 // nobody can tell
	}
	return len(stack)
}

func podInfo(t *T) {
	v := t.NewVolume()
	with := maps.Clone(v.VolumeContext)
	if with == nil {
		with = map[string]string{}
	}
	maps.Copy(with, map[string]string{
		"storage.kubernetes.io/csiProvisionerIdentity": "1-1-x", "csi.storage.k8s.io/pod.name": "p", "csi.storage.k8s.io/pod.namespace": "default",
		"csi.storage.k8s.io/pod.uid": "u", "csi.storage.k8s.io/serviceAccount.name": "default", "csi.storage.k8s.io/ephemeral": "false",
	})
	v.Volume = proto.Clone(v.Volume).(*csi.Volume)
	v.VolumeContext = with
	v.ToNode()
	v.PublishAt()
}

func emptyTarget(t *T) {
	v := t.NewVolume().ToNode()
	p := v.PublishRequest()
	var err error
	if t.Config().Block {
		err = os.WriteFile(p.GetTargetPath(), nil, 0o600)
	} else {
		err = os.Mkdir(p.GetTargetPath(), 0o750)
	}
	if err != nil {
		t.NotRun("%v", err)
	}
	check.OK[*csi.NodePublishVolumeResponse](t, "NP-05 NP-07", p)
	v.Unpublish(p.GetTargetPath())
}

// finalError: after a code that says "surely not in progress" kubelet removes the
// target, and never unpublishes.
func finalError(t *T) {
	if t.Config().Block {
		t.NotApplicable("a raw volume has nothing that fails so")
	}
	v := t.NewVolume()
	v.Attach()
	bad := check.Capability(v.Cap.GetAccessMode().GetMode(), false)
	bad.GetMount().MountFlags = []string{"csikit-no-such-option"}
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		s := v.StageRequest()
		s.VolumeCapability = bad
		_, err := t.Try(s)
		if code := codeOf(err); err == nil || code == codes.Aborted || code == codes.Unavailable {
			return // it takes any option, or is not sure
		}
		left(t, "NodeStageVolume", s.GetStagingTargetPath(), err)
		v.Stage()
	}
	p := v.PublishRequest()
	p.VolumeCapability = bad
	if _, err := t.Try(p); err != nil && codeOf(err) != codes.Aborted && codeOf(err) != codes.Unavailable {
		left(t, "NodePublishVolume", p.GetTargetPath(), err)
	}
	v.Unpublish(v.PublishAt())
}

func left(t *T, rpc, path string, err error) {
	if !t.Config().Host {
		return
	}
	if names, rerr := os.ReadDir(path); rerr == nil && len(names) > 0 {
		t.Failf("NS-06", "%s: %s, and %s has %s", rpc, check.Describe(err), path, names[0].Name())
	}
}
