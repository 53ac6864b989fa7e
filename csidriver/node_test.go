package csidriver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

func stageReq(id, path string) *csi.NodeStageVolumeRequest {
	return &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: path, VolumeCapability: mountCap()}
}

func publishReq(id, staging, target string) *csi.NodePublishVolumeRequest {
	return &csi.NodePublishVolumeRequest{VolumeId: id, StagingTargetPath: staging, TargetPath: target, VolumeCapability: mountCap()}
}

// TestNodeConversion: what the CO adds becomes the owner, tokens are hidden, and
// the rest is the volume's own.
func TestNodeConversion(t *testing.T) {
	r, ctx := startRig(t, nil), t.Context()
	req := publishReq("v", "//s/", "/t/./1/")
	req.Readonly = true
	req.PublishContext = map[string]string{"dev": "1"}
	req.Secrets = map[string]string{"key": "canary"}
	req.VolumeContext = map[string]string{
		"pool": "a", "storage.kubernetes.io/csiProvisionerIdentity": "p",
		"csi.storage.k8s.io/pod.name": "web", "csi.storage.k8s.io/pod.namespace": "shop", "csi.storage.k8s.io/pod.uid": "u",
		"csi.storage.k8s.io/serviceAccount.name": "sa", "csi.storage.k8s.io/serviceAccount.tokens": "canary",
		"csi.storage.k8s.io/ephemeral": "false", "csi.storage.k8s.io/new": "x",
	}
	_, err := r.NodePublishVolume(ctx, req)
	wantCode(t, err, codes.OK)
	got, _ := r.engine.last.(mounter.PublishRequest)
	if got.StagingPath != "/s" || got.Path != "/t/1" || !got.ReadOnly || got.PublishContext["dev"] != "1" || len(got.Context) != 1 || got.Context["pool"] != "a" {
		t.Errorf("the engine got %+v", got)
	}
	if o := got.Owner; o.Pod != "web" || o.PodNamespace != "shop" || o.PodUID != "u" || o.ServiceAccount != "sa" || o.Tokens.Reveal() != "canary" {
		t.Errorf("owner %+v", o)
	}
	if v, _ := got.Secrets.Lookup("key"); v != "canary" || strings.Contains(fmt.Sprintf("%+v %#v", got, got), "canary") {
		t.Errorf("secrets %q, printed %+v", v, got)
	}

	stage := stageReq("v", "/s")
	stage.Secrets = map[string]string{"key": "x", "csi.storage.k8s.io/serviceAccount.tokens": "canary"}
	stage.VolumeCapability.GetMount().MountFlags = []string{`context="a,b"`}
	_, err = r.NodeStageVolume(ctx, stage)
	wantCode(t, err, codes.OK)
	staged, _ := r.engine.last.(mounter.StageRequest)
	if staged.Owner.Tokens.Reveal() != "canary" || len(staged.Secrets.Keys()) != 1 || staged.Capability.Flags.Reveal()[0] != `context="a,b"` {
		t.Errorf("the engine got %+v", staged)
	}
	expand := &csi.NodeExpandVolumeRequest{VolumeId: "v", VolumePath: "/t/1", StagingTargetPath: "/s/", VolumeCapability: blockCap(), CapacityRange: &csi.CapacityRange{RequiredBytes: 5}}
	_, err = r.NodeExpandVolume(ctx, expand)
	wantCode(t, err, codes.OK)
	if grown, _ := r.engine.last.(mounter.ExpandRequest); grown.StagingPath != "/s" || grown.Capability == nil || !grown.Capability.Block || grown.Range.Required != 5 {
		t.Errorf("the engine got %+v", grown)
	}
}

func TestNodeRefuses(t *testing.T) {
	r, ctx := startRig(t, nil), t.Context()
	call := map[string]func() error{
		"stage, relative": func() error { _, err := r.NodeStageVolume(ctx, stageReq("v", "s")); return err },
		"stage, dots":     func() error { _, err := r.NodeStageVolume(ctx, stageReq("v", "/s/../t")); return err },
		"unstage, relative": func() error {
			_, err := r.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: "v", StagingTargetPath: "s"})
			return err
		},
		"publish, relative": func() error { _, err := r.NodePublishVolume(ctx, publishReq("v", "/s", "t")); return err },
		"publish, root":     func() error { _, err := r.NodePublishVolume(ctx, publishReq("v", "/s", "/")); return err },
		"publish, staging":  func() error { _, err := r.NodePublishVolume(ctx, publishReq("v", "s", "/t")); return err },
		"unpublish, relative": func() error {
			_, err := r.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "v", TargetPath: "t"})
			return err
		},
		"stats, dots": func() error {
			_, err := r.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "v", VolumePath: "/a/.."})
			return err
		},
		"stats, staging": func() error {
			_, err := r.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "v", VolumePath: "/a", StagingTargetPath: "b"})
			return err
		},
		"expand, staging": func() error {
			_, err := r.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: "v", VolumePath: "/a", StagingTargetPath: "b"})
			return err
		},
		"expand, empty range": func() error {
			_, err := r.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: "v", VolumePath: "/a", CapacityRange: new(csi.CapacityRange)})
			return err
		},
		"publish, ephemeral": func() error {
			req := publishReq("v", "", "/t")
			req.VolumeContext = map[string]string{"csi.storage.k8s.io/ephemeral": "true"}
			_, err := r.NodePublishVolume(ctx, req)
			return err
		},
	}
	for name, f := range call {
		t.Run(name, func(t *testing.T) { wantCode(t, f(), codes.InvalidArgument) })
	}
	_, err := r.NodePublishVolume(ctx, publishReq("v", "", "/t"))
	wantCode(t, err, codes.FailedPrecondition, "staging_target_path")
	_, err = r.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: "v", VolumePath: "/a", CapacityRange: &csi.CapacityRange{RequiredBytes: 2, LimitBytes: 1}})
	wantCode(t, err, codes.OutOfRange)
	// W-4: csi-sanity asks about a relative path and wants NOT_FOUND.
	_, err = r.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "v", VolumePath: "some/path"})
	wantCode(t, err, codes.NotFound)
	_, err = r.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: "v", VolumePath: "some/path"})
	wantCode(t, err, codes.NotFound)
	_, err = r.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "v", VolumePath: "/nowhere"})
	wantCode(t, err, codes.NotFound)
	if r.engine.last != nil {
		if _, ok := r.engine.last.(mounter.StatsRequest); !ok {
			t.Errorf("the engine was asked %T", r.engine.last)
		}
	}
}

func TestNodeErrors(t *testing.T) {
	for _, tc := range []struct {
		failure error
		want    codes.Code
	}{
		{backends.VolumeNotFound("v"), codes.NotFound},
		{backends.VolumeNotFound("w"), codes.Unavailable},
		{backends.ErrIncompatible, codes.AlreadyExists},
		{backends.ErrPrecondition, codes.FailedPrecondition},
		{backends.ErrInUse, codes.FailedPrecondition},
		{errors.New("mount: exit status 32"), codes.Unavailable},
	} {
		r := startRig(t, func(s *setup) {
			s.engine.hook = func(_ context.Context, method string) error {
				if method == "Start" {
					return nil
				}
				return tc.failure
			}
		})
		ctx := t.Context()
		_, err := r.NodeStageVolume(ctx, stageReq("v", "/s"))
		wantCode(t, err, tc.want)
		_, err = r.NodePublishVolume(ctx, publishReq("v", "/s", "/t"))
		wantCode(t, err, tc.want)
		_, err = r.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "v", TargetPath: "/t"})
		wantCode(t, err, tc.want)
		_, err = r.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: "v", StagingTargetPath: "/s"})
		wantCode(t, err, tc.want)
		_, err = r.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: "v", VolumePath: "/s"})
		wantCode(t, err, tc.want)
	}
}

// holding makes the engine stop in one method until released or cancelled.
func holding(s *setup, method string) (begun, release chan struct{}) {
	begun, release = make(chan struct{}, 10), make(chan struct{})
	s.engine.hook = func(ctx context.Context, m string) error {
		if m != method {
			return nil
		}
		begun <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("mkfs: signal: killed")
		}
	}
	return begun, release
}

func TestUnstageNegatesStage(t *testing.T) {
	var begun chan struct{}
	r, ctx := startRig(t, func(s *setup) { begun, _ = holding(s, "Stage") }), t.Context()
	staged := make(chan error, 1)
	go func() { _, err := r.NodeStageVolume(ctx, stageReq("v", "/s")); staged <- err }()
	<-begun
	_, err := r.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: "v", StagingTargetPath: "/s/"})
	wantCode(t, err, codes.OK)
	wantCode(t, <-staged, codes.Aborted)
}

// TestUnstageNegatesNothingElse: neither a stage at another path nor an expansion.
func TestUnstageNegatesNothingElse(t *testing.T) {
	for _, method := range []string{"Stage", "Expand"} {
		var begun, release chan struct{}
		r, ctx := startRig(t, func(s *setup) {
			s.opts.Wait = 1 // the least there is
			begun, release = holding(s, method)
		}), t.Context()
		done := make(chan error, 1)
		path := "/s"
		go func() {
			var err error
			if method == "Stage" {
				_, err = r.NodeStageVolume(ctx, stageReq("v", "/other"))
			} else {
				_, err = r.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: "v", VolumePath: path})
			}
			done <- err
		}()
		<-begun
		_, err := r.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: "v", StagingTargetPath: path})
		wantCode(t, err, codes.Aborted, method+"Volume v")
		close(release)
		wantCode(t, <-done, codes.OK)
	}
}

func TestUnpublishNegatesPublish(t *testing.T) {
	var begun chan struct{}
	r, ctx := startRig(t, func(s *setup) { begun, _ = holding(s, "Publish") }), t.Context()
	published := make(chan error, 1)
	go func() { _, err := r.NodePublishVolume(ctx, publishReq("v", "/s", "/t")); published <- err }()
	<-begun
	_, err := r.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "v", TargetPath: "/t"})
	wantCode(t, err, codes.OK)
	wantCode(t, <-published, codes.Aborted)
}

// TestPublishesShareTheVolume: two targets of one volume are served side by side,
// an unstage of it and a delete have to wait.
func TestPublishesShareTheVolume(t *testing.T) {
	var begun, release chan struct{}
	r, ctx := startRig(t, func(s *setup) {
		s.opts.Wait = 1 // the least there is
		begun, release = holding(s, "Publish")
	}), t.Context()
	published := make(chan error, 2)
	for _, target := range []string{"/t/1", "/t/2"} {
		go func() { _, err := r.NodePublishVolume(ctx, publishReq("v", "/s", target)); published <- err }()
	}
	<-begun
	<-begun // both run
	_, err := r.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: "v", StagingTargetPath: "/s"})
	wantCode(t, err, codes.Aborted, "NodePublishVolume v")
	_, err = r.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: "v"})
	wantCode(t, err, codes.Aborted, "NodePublishVolume v")
	_, err = r.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "w", TargetPath: "/t/1"})
	wantCode(t, err, codes.Aborted, "NodePublishVolume v") // another volume negates nothing
	close(release)
	for range 2 {
		wantCode(t, <-published, codes.OK)
	}
}

// TestStageJoins: a retry with another secret is the same call.
func TestStageJoins(t *testing.T) {
	var begun, release chan struct{}
	r, ctx := startRig(t, func(s *setup) { begun, release = holding(s, "Stage") }), t.Context()
	staged := make(chan error, 2)
	stage := func(secret string) {
		req := stageReq("v", "/s")
		req.Secrets = map[string]string{"key": secret}
		_, err := r.NodeStageVolume(ctx, req)
		staged <- err
	}
	go stage("a")
	<-begun
	go stage("b")
	waitJoined(r)
	close(release)
	for range 2 {
		wantCode(t, <-staged, codes.OK)
	}
	if len(begun) != 0 {
		t.Error("staged twice")
	}
}

// waitJoined waits until a second call waits for the one operation that runs.
func waitJoined(r *rig) {
	for r.driver.operations.Running()[0].Waiters < 2 {
		time.Sleep(time.Millisecond)
	}
}

func TestNodeGetInfo(t *testing.T) {
	r, ctx := startRig(t, func(s *setup) {
		s.backend.place, s.backend.limit = backends.Segments{"a.b/zone": "one"}, 7
		s.cfg.Traits.TopologyKeys = []string{"a.b/zone"}
	}), t.Context()
	info, err := r.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	wantCode(t, err, codes.OK)
	if info.GetNodeId() != "node-1" || info.GetMaxVolumesPerNode() != 7 || info.GetAccessibleTopology().GetSegments()["a.b/zone"] != "one" {
		t.Errorf("info %v", info)
	}
	r.backend.place, r.backend.limit = backends.Segments{"a.b/zone": "two"}, -1
	_, err = r.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	wantCode(t, err, codes.Internal, "-1 volumes")
	r.backend.limit = 8
	info, err = r.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	wantCode(t, err, codes.OK)
	if info.GetAccessibleTopology().GetSegments()["a.b/zone"] != "one" || info.GetMaxVolumesPerNode() != 8 {
		t.Errorf("the node moved: %v", info)
	}
	for say, place := range map[string]backends.Segments{"no topology": {}, "not one of this driver's": {"c": "d"}, "is not of at most": {"a.b/zone": "o n e"}} {
		r := startRig(t, func(s *setup) {
			s.backend.place, s.cfg.Traits.TopologyKeys = place, []string{"a.b/zone"}
		})
		_, err := r.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
		wantCode(t, err, codes.Internal, say)
	}
}

func TestStats(t *testing.T) {
	if err := checkStats(nil); err == nil {
		t.Error("nil is accepted")
	}
	if err := checkStats(&mounter.Stats{VolumeStats: backends.VolumeStats{Available: -1}}); err == nil {
		t.Error("negative figures are accepted")
	}
}
