package suite

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/mounter/mnt"
	"github.com/csikit/csikit/sanity/internal/check"
)

// kubeletChecks: what of H-29 kubelet does beside a volume's usual life, as it was
// seen under a real one (docs/kubernetes.md).
func kubeletChecks() []Check {
	const node = "CREATE_DELETE_VOLUME node"
	const stats, staged = node + " node:GET_VOLUME_STATS", node + " node:STAGE_UNSTAGE_VOLUME"
	return []Check{
		{ID: "H-29/kubelet/stats-unpublish", Title: "Kubelet asks for statistics of a volume that is being unpublished", Clauses: "NB-01 NB-02 NG-04", Needs: stats, Run: statsWhileUnpublished},
		{ID: "H-29/kubelet/reboot", Title: "After a reboot nothing is mounted: what was published is published again with its data, or unpublished", Clauses: "NP-07 NS-06 NP-01 NB-03 NU-03", Needs: node + " host restart", Run: reboot},
		{ID: "H-29/kubelet/static", Title: "A volume that somebody wrote into the cluster by its handle comes without volume_context", Clauses: "CV-41", Needs: node, Run: withoutContext},
		{ID: "H-29/kubelet/ephemeral", Title: "An inline volume comes with NodePublishVolume alone, is its pod's own, and goes with NodeUnpublishVolume", Clauses: "NP-07 NP-01 NB-01 NB-02 NB-04 CV-40", Needs: "node mount", Run: ephemeral},
		{ID: "H-29/kubelet/other-mode", Title: "A SINGLE_NODE_WRITER volume is staged and published as SINGLE_NODE_MULTI_WRITER, which the node advertises", Clauses: "NP-17", Needs: node + " node:SINGLE_NODE_MULTI_WRITER", Run: otherMode},
		{ID: "H-29/kubelet/staging-beside", Title: "What kubelet has beside the staging path stays", Clauses: "NU-02", Needs: staged + " host", Run: besideStaging},
		{ID: "H-29/kubelet/references", Title: "Kubelet does not take what another volume has mounted for a reference to this one", Clauses: "NU-02", Needs: staged + " host mount", Run: references},
		{ID: "H-29/kubelet/block-stats", Title: "NodeGetVolumeStats of a raw volume comes with kubelet's own path of the device", Clauses: "NG-06 NG-05", Needs: stats + " host block", Run: blockStats},
		{ID: "H-29/kubelet/block-staging", Title: "NodePublishVolume of a raw volume has a staging path, also where nothing is staged", Clauses: "NP-06", Needs: node + " block", Run: blockStaging},
	}
}

// statsWhileUnpublished: kubelet's statistics come by a clock of their own. Who holds
// the volume open for them is in the way of unmounting it. A driver may refuse the second
// of two calls for a volume (ABORTED): once it did so nobody asks until it is through,
// for kubelet asks once a minute.
func statsWhileUnpublished(t *T) {
	v := t.NewVolume().ToNode()
	for range 5 {
		target := v.PublishAt()
		stats := &csi.NodeGetVolumeStatsRequest{VolumeId: v.VolumeId, VolumePath: target}
		var asked atomic.Int64
		var wait atomic.Bool
		done := make(chan struct{})
		t.Go(3, func(i int) {
			if i == 0 {
				defer close(done)
				for asked.Load() < 4 && t.Context().Err() == nil {
					pause(t)
				}
				_, err := t.Ask(v.UnpublishRequest(target))
				if slices.Contains([]codes.Code{codes.Aborted, codes.Unavailable, codes.DeadlineExceeded}, codeOf(err)) {
					wait.Store(true)
					_, err = t.Try(v.UnpublishRequest(target))
				}
				if err != nil {
					t.Failf("NB-01 NB-02", "NodeUnpublishVolume while NodeGetVolumeStats is called: got %s, want OK; kubelet asks for statistics all the time, and the pod does not go", check.Describe(err))
				}
				return
			}
			for {
				var err error
				if wait.Load() {
					pause(t)
				} else {
					_, err = t.Ask(stats)
					asked.Add(1)
				}
				if code := codeOf(err); !slices.Contains(busy, code) && code != codes.DeadlineExceeded && code != codes.Canceled {
					t.Warnf("NG-04", "NodeGetVolumeStats while the volume is unpublished: got %s, want OK or NOT_FOUND", check.Describe(err))
				}
				select {
				case <-done:
					return
				case <-t.Context().Done():
					return
				default:
				}
			}
		})
		if t.Failed() {
			return
		}
		t.Refused("NG-04", "at a target that was unpublished", stats, codes.NotFound)
	}
	v.FromNode()
}

// reboot takes the mounts away as a reboot does: behind the driver's back, who is
// then started. The directories stay, and so does what kubelet knows.
func reboot(t *T) {
	stays, goes := t.NewVolume().ToNode(), t.NewVolume().ToNode()
	p := stays.PublishRequest()
	check.OK[*csi.NodePublishVolumeResponse](t, "NP-07", p)
	mustStore(t, "NP-07", p.GetTargetPath(), "first")
	other := goes.PublishAt()
	for _, path := range []string{p.GetTargetPath(), other, stays.Staging, goes.Staging} {
		endMounts(t, path)
	}
	restart(t)
	check.OK[*csi.NodeUnpublishVolumeResponse](t, "NB-03", goes.UnpublishRequest(other))
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		check.OK[*csi.NodeUnstageVolumeResponse](t, "NU-03", goes.UnstageRequest())
	}
	goes.Detach()
	goes.Delete()
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		check.OK[*csi.NodeStageVolumeResponse](t, "NS-06 NS-02", stays.StageRequest())
	}
	check.OK[*csi.NodePublishVolumeResponse](t, "NP-07 NP-01 NS-06", p)
	mustHold(t, "NP-07 NS-06", "a reboot took the mounts away, and NodeStageVolume and NodePublishVolume are OK", p.GetTargetPath(), "first")
	stays.Unpublish(p.GetTargetPath())
	stays.FromNode()
}

// endMounts unmounts what is at a path of the check's, or below it.
func endMounts(t *T, path string) {
	all, err := mnt.List()
	if err != nil {
		t.NotRun("%v", err)
	}
	for _, m := range slices.Backward(all) {
		if path == "" || m.Point != path && !strings.HasPrefix(m.Point, path+"/") {
			continue
		}
		if _, err := mnt.Unmount(m.Point); err != nil {
			t.NotRun("unmounting as a reboot does: %v", err)
		}
	}
}

// withoutContext: an administrator may not know what keys a driver wants.
func withoutContext(t *T) {
	v := t.NewVolume()
	if len(v.VolumeContext) == 0 {
		t.NotApplicable("CreateVolume gives no volume_context")
	}
	bare(v)
	toPod(t, v, true, "CV-41", "without volume_context", "a PersistentVolume that is written by hand has to have the driver's keys")
}

// toPod brings a volume to a target, and warns of the first step that is refused.
func toPod(t *T, v *check.Volume, attach bool, clauses, how, so string) {
	refused := func(name string, err error) bool {
		if err != nil {
			t.Warnf(clauses, "%s %s: %s; %s", name, how, check.Describe(err), so)
		}
		return err != nil
	}
	if attach && t.Has("PUBLISH_UNPUBLISH_VOLUME") {
		resp, err := check.Try[*csi.ControllerPublishVolumeResponse](t, v.AttachRequest())
		if refused("ControllerPublishVolume", err) {
			return
		}
		v.Publish = resp.GetPublishContext()
	}
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		if _, err := t.Try(v.StageRequest()); refused("NodeStageVolume", err) {
			return
		}
	}
	p := v.PublishRequest()
	if _, err := t.Try(p); refused("NodePublishVolume", err) {
		return
	}
	v.Unpublish(p.GetTargetPath())
	v.FromNode()
}

// inline is the request for a volume that a pod's own text asks for, with attributes.
func inline(t *T, attributes map[string]string) *csi.NodePublishVolumeRequest {
	sum := sha256.Sum256([]byte(t.UniqueName()))
	with := map[string]string{
		"csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/pod.name": "p", "csi.storage.k8s.io/pod.namespace": "default",
		"csi.storage.k8s.io/pod.uid": "u", "csi.storage.k8s.io/serviceAccount.name": "default",
	}
	maps.Copy(with, attributes)
	return &csi.NodePublishVolumeRequest{
		VolumeId: "csi-" + hex.EncodeToString(sum[:]), TargetPath: filepath.Join(t.MakeDir("pod"), "mount"), Secrets: t.Config().Secrets,
		VolumeCapability: t.Cap(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER), VolumeContext: with,
	}
}

// ephemeral: nobody advertises inline volumes in CSI, so the first one shows whether
// there are such. All that NodeUnpublishVolume gets is the id, which the driver has
// never given. Attributes may name storage that is there already, and is no pod's own:
// nothing is written to that.
func ephemeral(t *T) {
	a, b, named := inline(t, nil), inline(t, nil), false
	_, err := t.Try(a)
	if err != nil && len(t.Config().Parameters) > 0 {
		named = true
		a, b = inline(t, t.Config().Parameters), inline(t, t.Config().Parameters)
		_, err = t.Try(a)
	}
	if err != nil {
		t.NotApplicable("the driver refuses inline volumes, without attributes and with those of --parameters: %s", check.Describe(err))
	}
	check.OK[*csi.NodePublishVolumeResponse](t, "NP-07", b)
	check.OK[*csi.NodePublishVolumeResponse](t, "NP-01", a)
	at, bt := a.GetTargetPath(), b.GetTargetPath()
	own := t.Config().Host && (!named || !sameFile(at, bt))
	if own {
		mustStore(t, "NP-07", at, "a")
		mustStore(t, "NP-07", bt, "b")
		mustHold(t, "CV-40 NP-07", "the first of two inline volumes", at, "a")
	}
	if t.Has("restart") {
		restart(t)
	}
	const so = "NodeUnpublishVolume of an inline volume"
	for _, req := range []*csi.NodePublishVolumeRequest{a, b} {
		undo := &csi.NodeUnpublishVolumeRequest{VolumeId: req.GetVolumeId(), TargetPath: req.GetTargetPath()}
		for range 2 {
			if _, err := t.Try(undo); err != nil {
				t.Fatalf("NB-01 NB-03", "%s: got %s, want OK; there is no other call for it, and its pod does not go", so, check.Describe(err))
			}
		}
		if _, err := os.Lstat(req.GetTargetPath()); t.Config().Host && !errors.Is(err, fs.ErrNotExist) {
			t.Failf("NB-02 NB-04", "%s is OK, and %s is still there", so, req.GetTargetPath())
		}
		if own && req == a {
			mustHold(t, "NB-02", "after "+so+" the other one", bt, "b")
		}
	}
}

// sameFile tells whether two paths lead to one file or directory.
func sameFile(a, b string) bool {
	at, err := os.Stat(a)
	bt, berr := os.Stat(b)
	return err == nil && berr == nil && os.SameFile(at, bt)
}

// otherMode: the provisioner goes by the controller's capabilities, kubelet by the
// node's, and a volume may be older than both.
func otherMode(t *T) {
	v := volumeOf(t, snw)
	both := t.Has("SINGLE_NODE_MULTI_WRITER")
	if !both {
		v.Attach()
	}
	v.Cap = t.Cap(snmw)
	toPod(t, v, both, "NP-17", "of a SINGLE_NODE_WRITER volume, as SINGLE_NODE_MULTI_WRITER",
		"kubelet says so of each ReadWriteOnce volume as soon as the node advertises SINGLE_NODE_MULTI_WRITER")
}

func besideStaging(t *T) {
	v := t.NewVolume()
	v.Attach()
	v.StageRequest()
	beside := filepath.Join(filepath.Dir(v.Staging), "vol_data.json")
	if err := os.WriteFile(beside, []byte("{}"), 0o600); err != nil {
		t.NotRun("%v", err)
	}
	v.Stage()
	v.Unstage()
	if err := os.Remove(beside); err != nil {
		t.Failf("NU-02", "what kubelet has beside the staging path is gone after NodeUnstageVolume: %v; without it kubelet does not know how to go on after a restart", err)
	}
	v.Detach()
}

// references: before NodeUnstageVolume kubelet looks in mountinfo for what else has the
// device and the root of the mount at the staging path, and waits while there is any.
// NFS says "/" of every root, and the mounts of one export are one device.
func references(t *T) {
	one, other := t.NewVolume().ToNode(), t.NewVolume().ToNode()
	target := other.PublishAt()
	all, err := mnt.List()
	if err != nil {
		t.NotRun("%v", err)
	}
	i := slices.IndexFunc(all, func(m mnt.Info) bool { return m.Point == one.Staging })
	for _, m := range all {
		if i >= 0 && (m.Point == other.Staging || m.Point == target) && m.Dev == all[i].Dev && m.Root == all[i].Root {
			t.Warnf("NU-02", "%s, of another volume, has device and root (%s) of the mount at %s in common: kubelet takes it for a reference, and calls no NodeUnstageVolume while it is there", m.Point, m.Root, one.Staging)
			break
		}
	}
	other.Unpublish(target)
	other.FromNode()
	one.FromNode()
}

// blockStats: kubelet binds the published device to a path of its own, and asks with
// that. The spec does not know it: only a warning.
func blockStats(t *T) {
	v, target := use(t)
	at := filepath.Join(t.MakeDir("dev"), "pod")
	if err := os.WriteFile(at, nil, 0o600); err != nil {
		t.NotRun("%v", err)
	}
	defer os.Remove(at) //nolint:errcheck // what stays is told of at the end of the check
	if err := mnt.Bind(target, at, mnt.BindOptions{}); err != nil {
		t.NotRun("%v", err)
	}
	defer mnt.Unmount(at) //nolint:errcheck // as above
	r, err := check.Try[*csi.NodeGetVolumeStatsResponse](t, &csi.NodeGetVolumeStatsRequest{VolumeId: v.VolumeId, VolumePath: at})
	switch {
	case err != nil:
		t.Warnf("NG-06", "NodeGetVolumeStats of a raw volume at another path of its device: %s; kubelet asks with volumeDevices/VOLUME/dev/POD, to which it has bound the target, and has no figures then", check.Describe(err))
	case len(r.GetUsage()) == 0:
		t.Warnf("NG-05", "no usage: kubelet takes that for an error")
	}
}

func blockStaging(t *T) {
	if t.Has("node:STAGE_UNSTAGE_VOLUME") {
		t.NotApplicable("volumes are staged")
	}
	v := t.NewVolume().ToNode()
	p := v.PublishRequest()
	p.StagingTargetPath = t.MakeDir(check.StagingDir)
	if _, err := t.Try(p); err != nil {
		t.Warnf("NP-06", "NodePublishVolume of a raw volume with a staging_target_path: %s; kubelet gives one whether or not volumes are staged", check.Describe(err))
		return
	}
	v.Unpublish(p.GetTargetPath())
}
