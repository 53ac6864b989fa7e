package suite

import (
	"context"
	"slices"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/internal/csiclient"
	"github.com/csikit/csikit/sanity/internal/check"
)

// sidecarChecks: what of H-29 the sidecars of Kubernetes do, and what kubelet does on
// behalf of the resizer.
func sidecarChecks() []Check {
	const node = "CREATE_DELETE_VOLUME node"
	return []Check{
		{ID: "H-29/sidecar/start", Title: "What sidecars and kubelet ask a driver that starts is no error: they exit over one", Clauses: "ID-16 ID-01 NI-01", Needs: "restart", Run: askedAtStart},
		{ID: "H-29/provisioner/force-deleted", Title: "DeleteVolume of a volume that a pod still has, which was deleted by force, does it no harm, and is OK afterwards", Clauses: "DV-07 DV-01", Needs: node + " host", Run: forceDeleted},
		{ID: "H-29/snapshotter/source-gone", Title: "CreateSnapshot is asked again, and its volume is deleted meanwhile", Clauses: "CS-02", Needs: "CREATE_DELETE_VOLUME CREATE_DELETE_SNAPSHOT", Run: snapshotOfGone},
		{ID: "H-29/resizer/unused", Title: "A volume that grew while nobody had it grows at its target, or at its staging path before it is published", Clauses: "NE-01 CE-06 CE-05", Needs: node + " EXPAND_VOLUME node:EXPAND_VOLUME node:STAGE_UNSTAGE_VOLUME", Run: grownUnused},
		{ID: "H-29/resizer/bare", Title: "NodeExpandVolume comes without staging_target_path or volume_capability", Clauses: "NE-01", Needs: node + " node:EXPAND_VOLUME", Run: expandBare},
	}
}

// bare takes the volume_context away.
func bare(v *check.Volume) {
	v.Volume = proto.Clone(v.Volume).(*csi.Volume)
	v.VolumeContext = nil
}

// starts are calls that come as soon as there is a socket, and who gives up when one
// of them fails.
func starts(t *T) []struct {
	req         proto.Message
	clause, who string
} {
	list := []struct {
		req         proto.Message
		clause, who string
	}{
		{&csi.ProbeRequest{}, "ID-16", "each sidecar of Kubernetes exits; want OK, and ready false"},
		{&csi.GetPluginInfoRequest{}, "ID-01", "external-provisioner and node-driver-registrar exit"},
		{&csi.NodeGetInfoRequest{}, "NI-01", "kubelet takes the driver off its list"},
	}
	if !t.HasNode {
		return list[:2]
	}
	return list
}

// askedAtStart asks over new connections, as kubelet does, while the driver is killed
// and started. That nobody is there yet, or that it takes long, everybody waits for.
func askedAtStart(t *T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for last := false; !last && ctx.Err() == nil; {
			select {
			case <-over:
				last = true // once more, now that it is ready
			default:
			}
			askOnce(ctx, t)
			pause(t)
		}
	})
	err := t.Config().Restart(ctx)
	if err != nil {
		cancel()
		wg.Wait()
		inTheWay(t, err)
		t.NotRun("the driver could not be restarted: %v", err)
	}
	ready(t)
	close(over)
	wg.Wait()
}

func askOnce(ctx context.Context, t *T) {
	for _, s := range starts(t) {
		target := t.Config().Controller
		if s.clause == "NI-01" {
			target = t.Config().Node
		}
		conn, err := csiclient.Dial(target)
		if err != nil {
			t.Failf("PR-01", "%v", err)
			return
		}
		_, err = t.SendOn(ctx, conn, s.req)
		_ = conn.Close() // nothing was sent that could be lost
		if !slices.Contains([]codes.Code{codes.OK, codes.Unavailable, codes.Canceled, codes.DeadlineExceeded}, codeOf(err)) {
			t.Warnf(s.clause, "%s while the driver starts: got %s; %s", check.Name(s.req), check.Describe(err), s.who)
		}
	}
}

// forceDeleted: a pod that is deleted by force is gone from the cluster at once, and
// its claim may be deleted while kubelet has not begun to unpublish.
func forceDeleted(t *T) {
	v, target := use(t)
	mustStore(t, "NP-07", target, "first")
	if _, err := t.Try(v.DeleteRequest()); err == nil {
		_, _ = t.Try(v.UnpublishRequest(target)) // what there is left of it
		if v.Staging != "" {
			_, _ = t.Try(v.UnstageRequest())
		}
		t.NotApplicable("DeleteVolume is OK: see H-01/DeleteVolume/staged")
	}
	mustHold(t, "DV-07", "DeleteVolume was refused, and the pod", target, "first")
	mustStore(t, "DV-07", target, "second")
	target = nextPod(v, target)
	mustHold(t, "DV-07", "DeleteVolume was refused, and the next pod", target, "second")
	v.Unpublish(target)
	v.FromNode()
	check.OK[*csi.DeleteVolumeResponse](t, "DV-01", v.DeleteRequest())
}

// snapshotOfGone: two rows of the spec's table are true of such a call, so that only a
// CO says what it wants: it has no other way to learn that a snapshot got ready.
func snapshotOfGone(t *T) {
	v := t.NewVolume()
	req := t.SnapshotRequest(v.VolumeId)
	first := check.OK[*csi.CreateSnapshotResponse](t, "CS-01", req).GetSnapshot()
	if _, err := t.Try(v.DeleteRequest()); err != nil {
		t.NotApplicable("a volume stays while it has snapshots: %s", check.Describe(err))
	}
	again, err := check.Try[*csi.CreateSnapshotResponse](t, req)
	switch {
	case err != nil:
		t.Warnf("CS-02", "CreateSnapshot again, of a snapshot that is there and whose volume is not: %s; external-snapshotter asks so until ready_to_use, and takes that for the snapshot's error", check.Describe(err))
	case again.GetSnapshot().GetSnapshotId() != first.GetSnapshotId():
		t.Failf("CS-02", "CreateSnapshot again, of a snapshot whose volume is gone, gives %s; it was %s", again.GetSnapshot().GetSnapshotId(), first.GetSnapshotId())
	}
}

// nodeGrows calls NodeExpandVolume, which must be OK unless a file system in use
// cannot grow.
func nodeGrows(t *T, clauses, how, so string, req *csi.NodeExpandVolumeRequest) bool {
	_, err := t.Try(req)
	switch codeOf(err) {
	case codes.OK:
		return true
	case codes.FailedPrecondition:
		t.Warnf("NE-07", "NodeExpandVolume %s: %s; right where a file system in use cannot grow", how, check.Describe(err))
	default:
		t.Failf(clauses, "NodeExpandVolume %s: got %s, want OK; %s", how, check.Describe(err), so)
	}
	return false
}

// grownUnused: the file system is that of the old size, and kubelet has it grown when
// the next pod comes: at the target, as soon as there is one; older kubelets at the
// staging path, before.
func grownUnused(t *T) {
	for _, early := range []bool{true, false} {
		if grownBy(t, early); t.Failed() {
			return
		}
	}
}

func grownBy(t *T, early bool) {
	v := t.NewVolume().ToNode()
	target := v.PublishAt()
	host, before := t.Config().Host, int64(0)
	if host {
		mustStore(t, "NP-07", target, "first")
		before = sizeAt(t, target)
	}
	v.Unpublish(target)
	v.FromNode()
	size := max(t.Config().ExpandSize, 2*sizeOf(t, v))
	required := check.OK[*csi.ControllerExpandVolumeResponse](t, "CE-01", expandRequest(v, size)).GetNodeExpansionRequired()
	v.ToNode()
	const so = "kubelet does so for a volume that grew while no pod had it, and the pod does not start"
	grown := !required || !early || nodeGrows(t, "NE-01 CE-06", "at the staging path, before the volume is published", so, nodeExpandRequest(v, v.Staging, size))
	target = v.PublishAt()
	if required && !early {
		grown = nodeGrows(t, "NE-01 CE-06", "at the target, of a volume that grew before it was staged", so, nodeExpandRequest(v, target, size))
	}
	if host {
		mustHold(t, "CE-01 NE-01", "after a volume grew that nobody had", target, "first")
		if after := sizeAt(t, target); grown && after < before+(size-before)/2 {
			t.Failf("NE-01 CE-05", "the volume was expanded to %d bytes while nobody had it, and its next pod sees %d, before %d", size, after, before)
		}
	}
	v.Unpublish(target)
	v.FromNode()
}

// expandBare: both fields are OPTIONAL, and older kubelets have neither.
func expandBare(t *T) {
	v := t.NewVolume().ToNode()
	target := v.PublishAt()
	size := sizeOf(t, v)
	noStaging, noCapability := nodeExpandRequest(v, target, size), nodeExpandRequest(v, target, size)
	noStaging.StagingTargetPath, noCapability.VolumeCapability = "", nil
	const so = "the field is OPTIONAL, and older kubelets do not have it"
	nodeGrows(t, "NE-01", "without staging_target_path", so, noStaging)
	nodeGrows(t, "NE-01", "without volume_capability", so, noCapability)
	nodeGrows(t, "NE-01", "with volume_id, volume_path and capacity_range alone", so,
		&csi.NodeExpandVolumeRequest{VolumeId: v.VolumeId, VolumePath: target, CapacityRange: capRange(size, 0)})
}
