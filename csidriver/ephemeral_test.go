package csidriver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mountertest"
)

// podDisks is disks with a disk for each ephemeral volume.
type podDisks struct {
	*disks
	created []backends.CreateEphemeralRequest
	deleted []backends.DeleteEphemeralRequest
	targets []backends.TargetRequest
	health  []backends.NodeHealthRequest
	failure error
}

func (d *podDisks) CreateEphemeral(_ context.Context, req backends.CreateEphemeralRequest) (*backends.Volume, error) {
	d.created = append(d.created, req)
	if d.failure != nil {
		return nil, d.failure
	}
	v := &backends.Volume{ID: "own-" + req.ID}
	d.mu.Lock()
	d.volumes[v.ID] = v
	d.mu.Unlock()
	d.kernel.AddDisk("/dev/"+v.ID, gi, backends.Identity{Serial: v.ID})
	return v, nil
}

func (d *podDisks) DeleteEphemeral(_ context.Context, req backends.DeleteEphemeralRequest) error {
	d.deleted = append(d.deleted, req)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.volumes, req.VolumeID)
	return nil
}

func (d *podDisks) PrepareTarget(_ context.Context, req backends.TargetRequest) error {
	d.targets = append(d.targets, req)
	return nil
}

func (d *podDisks) NodeVolumeHealth(_ context.Context, req backends.NodeHealthRequest) ([]backends.Health, error) {
	d.health = append(d.health, req)
	return nil, nil
}

func podRig(t *testing.T, change func(*setup)) (*rig, *podDisks) {
	t.Helper()
	kernel := mountertest.NewKernel()
	var d *podDisks
	r := startRig(t, func(s *setup) {
		d = &podDisks{disks: &disks{s.backend, kernel}}
		s.cfg.Controller, s.cfg.Node = d, d
		s.cfg.Traits.Lifecycle |= backends.Ephemeral
		s.opts.Engine = running{mountertest.New(t, d, &mountertest.Options{Kernel: kernel, FSTypes: s.cfg.Traits.FSTypes})}
		if change != nil {
			change(s)
		}
	})
	return r, d
}

func podReq(id, target, token string) *csi.NodePublishVolumeRequest {
	return &csi.NodePublishVolumeRequest{
		VolumeId: id, TargetPath: target, VolumeCapability: mountCap(), Secrets: map[string]string{"key": "x"},
		VolumeContext: map[string]string{
			"csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/pod.name": "web", "csi.storage.k8s.io/pod.namespace": "shop",
			"csi.storage.k8s.io/pod.uid": "u", "csi.storage.k8s.io/serviceAccount.name": "sa",
			"csi.storage.k8s.io/serviceAccount.tokens": token, "size": "1Gi",
		},
	}
}

// TestEphemeral walks an inline volume (CO-09) through the real engine: publish,
// republish with new tokens (CO-07), stats, health, unpublish.
func TestEphemeral(t *testing.T) {
	r, d := podRig(t, nil)
	ctx, dir := t.Context(), t.TempDir()
	target := filepath.Join(dir, "pods/u/mount")
	for n := range 3 {
		token := fmt.Sprint("token-", n)
		_, err := r.NodePublishVolume(ctx, podReq("csi-1", target, token))
		wantCode(t, err, codes.OK)
		got := d.targets[n]
		if got.Again != (n > 0) || got.Owner.Tokens.Reveal() != token || got.ID != "own-csi-1" || got.Path != target {
			t.Errorf("PrepareTarget got %+v", got)
		}
	}
	if m := d.kernel.Mounts(); len(m) != 1 || m[0].Point != target || len(d.created) != 1 {
		t.Errorf("mounts %v, %d created", m, len(d.created))
	}
	c := d.created[0]
	if o := c.Owner; len(c.Parameters) != 1 || c.Parameters["size"] != "1Gi" || o.Pod != "web" || o.PodNamespace != "shop" || o.PodUID != "u" || o.ServiceAccount != "sa" {
		t.Errorf("CreateEphemeral got %+v", c)
	}
	stats, err := r.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "csi-1", VolumePath: target})
	wantCode(t, err, codes.OK)
	if len(stats.GetUsage()) == 0 {
		t.Error("no usage")
	}
	health, err := r.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: "csi-1", VolumePublishPath: target})
	wantCode(t, err, codes.OK)
	if health.GetVolumeHealth().GetVolumeId() != "csi-1" || d.health[0].ID != "own-csi-1" || d.health[0].Path != target {
		t.Errorf("health %v, asked %+v", health, d.health)
	}
	_, err = r.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: "own-csi-1"})
	wantCode(t, err, codes.FailedPrecondition, "in use")
	changed := podReq("csi-1", target, "")
	changed.VolumeContext["size"] = "2Gi"
	_, err = r.NodePublishVolume(ctx, changed)
	wantCode(t, err, codes.AlreadyExists)
	for range 2 {
		_, err = r.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "csi-1", TargetPath: target})
		wantCode(t, err, codes.OK)
	}
	if len(d.kernel.Mounts()) > 0 || len(d.volumes) > 0 || len(d.deleted) != 1 || d.deleted[0].VolumeID != "own-csi-1" {
		t.Errorf("left %v, %v, deleted %+v", d.kernel.Mounts(), d.volumes, d.deleted)
	}
}

func TestEphemeralErrors(t *testing.T) {
	r, d := podRig(t, nil)
	ctx, target := t.Context(), filepath.Join(t.TempDir(), "t")
	for _, tc := range []struct {
		failure error
		want    codes.Code
	}{
		{backends.ErrInvalid, codes.InvalidArgument},
		{backends.ErrNoSpace, codes.ResourceExhausted},
		{backends.ErrPermission, codes.PermissionDenied},
		{errors.New("timeout"), codes.Unavailable},
	} {
		d.failure = tc.failure
		_, err := r.NodePublishVolume(ctx, podReq("csi-1", target, "t"))
		wantCode(t, err, tc.want)
	}
	block := podReq("csi-1", target, "t")
	block.VolumeCapability = blockCap()
	_, err := r.NodePublishVolume(ctx, block)
	wantCode(t, err, codes.FailedPrecondition, "block")
	mode := podReq("csi-1", target, "t")
	mode.VolumeCapability = capMode(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER)
	_, err = r.NodePublishVolume(ctx, mode)
	wantCode(t, err, codes.FailedPrecondition, "access mode")
	_, err = r.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "csi-1", TargetPath: target})
	wantCode(t, err, codes.OK)
}

// TestEphemeralOnly: a driver without persistent volumes has no staging.
func TestEphemeralOnly(t *testing.T) {
	r, d := podRig(t, func(s *setup) { s.cfg.Controller, s.cfg.Traits.Lifecycle = nil, backends.Ephemeral })
	ctx, target := t.Context(), filepath.Join(t.TempDir(), "t")
	caps, err := r.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	wantCode(t, err, codes.OK)
	for _, c := range caps.GetCapabilities() {
		if c.GetRpc().GetType() == csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME {
			t.Error("STAGE_UNSTAGE_VOLUME is advertised")
		}
	}
	_, err = r.NodeStageVolume(ctx, stageReq("v", "/s"))
	wantCode(t, err, codes.Unimplemented)
	_, err = r.NodePublishVolume(ctx, publishReq("v", "", target))
	wantCode(t, err, codes.InvalidArgument, "ephemeral")
	_, err = r.NodePublishVolume(ctx, podReq("csi-1", target, "t"))
	wantCode(t, err, codes.OK)
	_, err = r.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "csi-1", TargetPath: target})
	wantCode(t, err, codes.OK)
	if len(d.kernel.Mounts()) > 0 || len(d.volumes) > 0 {
		t.Errorf("left %v, %v", d.kernel.Mounts(), d.volumes)
	}
}

// TestFreshTokensAreHeard: a republish that comes while another one runs waits
// for it and runs too, when somebody listens.
func TestFreshTokensAreHeard(t *testing.T) {
	for _, listens := range []bool{true, false} {
		var begun, release chan struct{}
		r := startRig(t, func(s *setup) {
			begun, release = holding(s, "Publish")
			if listens {
				s.cfg.Node = struct {
					*memory
					backends.TargetPreparer
				}{s.backend, &podDisks{}}
			}
		})
		done := make(chan error, 2)
		publish := func(token string) {
			req := publishReq("v", "/s", "/t")
			req.VolumeContext = map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": token}
			_, err := r.NodePublishVolume(t.Context(), req)
			done <- err
		}
		go publish("a")
		<-begun
		go publish("b")
		waitJoined(r)
		close(release)
		for range 2 {
			wantCode(t, <-done, codes.OK)
		}
		last, _ := r.engine.last.(mounter.PublishRequest)
		if heard := last.Owner.Tokens.Reveal() == "b"; heard != listens || len(begun) > 0 != listens {
			t.Errorf("listens %v: the last token is %q, %d more calls", listens, last.Owner.Tokens.Reveal(), len(begun))
		}
	}
}

// TestEphemeralHasOneTarget: a second target waits for the first one, where
// targets of a persistent volume go side by side.
func TestEphemeralHasOneTarget(t *testing.T) {
	var begun, release chan struct{}
	r := startRig(t, func(s *setup) {
		s.opts.Wait = 1 // the least there is
		begun, release = holding(s, "Publish")
		s.cfg.Traits.Lifecycle |= backends.Ephemeral
		s.cfg.Node = struct {
			*memory
			backends.EphemeralProvisioner
		}{s.backend, &podDisks{}}
	})
	done := make(chan error, 1)
	go func() { _, err := r.NodePublishVolume(t.Context(), podReq("csi-1", "/t/1", "t")); done <- err }()
	<-begun
	_, err := r.NodePublishVolume(t.Context(), podReq("csi-1", "/t/2", "t"))
	wantCode(t, err, codes.Aborted, "NodePublishVolume csi-1")
	close(release)
	wantCode(t, <-done, codes.OK)
}
