package co

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/csidriver"
)

// call is a call on a connection of its own.
func (k *kubelet) call(f func(c csi.NodeClient) error) error {
	c := k.w.client("kubelet", csidriver.ServeNode)
	defer k.w.hangUp(c)
	return f(c)
}

func (k *kubelet) canStage(ctx context.Context) error {
	return k.call(func(c csi.NodeClient) error {
		return done(c.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{}))
	})
}

// finalForKubelet is isFinalError.
func finalForKubelet(err error) bool {
	return !slices.Contains([]codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted}, status.Code(err))
}

func (k *kubelet) mountDevice(ctx context.Context, name string) error {
	path := k.staging(name)
	if err := prepare(path, !k.w.block); err != nil {
		return err
	}
	if err := k.canStage(ctx); err != nil {
		return err
	}
	v, va := k.objects(name)
	if v == nil || va == nil {
		return fmt.Errorf("%s went", name)
	}
	err := k.call(func(c csi.NodeClient) error {
		return done(c.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
			VolumeId: v.handle, StagingTargetPath: path, VolumeCapability: k.w.capability(),
			PublishContext: va.context, VolumeContext: v.context, Secrets: secrets(),
		}))
	})
	final := err != nil && finalForKubelet(err)
	k.change(ctx, name, func(n *nodeVolume) {
		switch {
		case err == nil:
			n.device, n.reconstructed = mounted, false
		case final && n.device == uncertain && !n.reconstructed:
			n.device = notMounted
		case !final && n.device == notMounted:
			n.device = uncertain
		}
	})
	if final {
		_ = k.removeMountDir(path) // kubelet logs it, and goes on
	}
	return err
}

func (k *kubelet) setUp(ctx context.Context, name, podName string) error {
	path := k.target(name, podName)
	if err := prepare(filepath.Dir(path), true); err != nil {
		return err
	}
	if err := saveData(path); err != nil {
		return err
	}
	req := k.publishRequest(name, podName, path)
	if req == nil {
		return fmt.Errorf("%s went", name)
	}
	if err := k.canStage(ctx); err != nil {
		return err
	}
	err := k.call(func(c csi.NodeClient) error { return done(c.NodePublishVolume(ctx, req)) })
	final := err != nil && finalForKubelet(err)
	k.change(ctx, name, func(n *nodeVolume) {
		m := n.pods[podName]
		if m == nil {
			m = &podMount{}
			n.pods[podName] = m
		}
		switch {
		case err == nil:
			m.state, m.reconstructed, m.republish = mounted, false, false
		case final && m.state == uncertain && !m.reconstructed:
			m.state = notMounted
		case !final && m.state == notMounted:
			m.state = uncertain
		}
		if o := k.w.api.pods[podName]; o != nil && err == nil {
			o.running = true
		}
	})
	if final {
		_ = k.removeMountDir(path) // kubelet logs it, and goes on
	}
	return err
}

// publishRequest has new tokens each time (podServiceAccountTokenAttrs).
func (k *kubelet) publishRequest(name, podName, path string) *csi.NodePublishVolumeRequest {
	req := &csi.NodePublishVolumeRequest{
		VolumeId: "csi-" + podName, TargetPath: path, VolumeCapability: k.w.capability(), Secrets: secrets(),
		VolumeContext: map[string]string{
			"csi.storage.k8s.io/pod.name": podName, "csi.storage.k8s.io/ephemeral": "true",
			"csi.storage.k8s.io/serviceAccount.tokens": fmt.Sprintf("%s-%d", canary, time.Now().Unix()),
		},
	}
	if strings.HasPrefix(name, inline) {
		return req
	}
	v, va := k.objects(name)
	if v == nil || va == nil {
		return nil
	}
	req.VolumeId, req.StagingTargetPath, req.PublishContext = v.handle, k.staging(name), va.context
	req.VolumeContext["csi.storage.k8s.io/ephemeral"] = "false"
	maps.Copy(req.VolumeContext, v.context)
	return req
}

func (k *kubelet) objects(name string) (*pv, *attachment) {
	return snap(k.w, func(a *api) *pv { return a.pvs[name] }), snap(k.w, func(a *api) *attachment { return a.vas[name] })
}

func (k *kubelet) tearDown(ctx context.Context, name, podName string) error {
	id := "csi-" + podName
	if v, _ := k.objects(name); v != nil {
		id = v.handle
	}
	path := k.target(name, podName)
	err := k.call(func(c csi.NodeClient) error {
		return done(c.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: path}))
	})
	if err == nil {
		err = k.removeMountDir(path)
	}
	k.change(ctx, name, func(n *nodeVolume) {
		if err == nil {
			delete(n.pods, podName)
		} else if m := n.pods[podName]; m != nil {
			m.state = uncertain
		}
	})
	return err
}

func (k *kubelet) unmountDevice(ctx context.Context, name string) error {
	v, _ := k.objects(name)
	if v == nil {
		return fmt.Errorf("%s was deleted while it is staged", name)
	}
	if err := k.canStage(ctx); err != nil {
		return err
	}
	path := k.staging(name)
	err := k.call(func(c csi.NodeClient) error {
		return done(c.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: v.handle, StagingTargetPath: path}))
	})
	if err == nil {
		err = k.removeMountDir(path)
	}
	k.change(ctx, name, func(n *nodeVolume) {
		if n.device = notMounted; err != nil {
			n.device = uncertain
		}
	})
	return err
}

// expand is done while the volume is mounted; FAILED_PRECONDITION and what is
// infeasible are tried again later (pkg/volume/csi/expander.go).
func (k *kubelet) expand(ctx context.Context, name, podName string) error {
	v, _ := k.objects(name)
	if v == nil {
		return nil
	}
	err := k.call(func(c csi.NodeClient) error {
		return done(c.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
			VolumeId: v.handle, VolumePath: k.target(name, podName), StagingTargetPath: k.staging(name),
			VolumeCapability: k.w.capability(), CapacityRange: &csi.CapacityRange{RequiredBytes: v.size}, Secrets: secrets(),
		}))
	})
	if err != nil {
		return err
	}
	k.w.update(func(a *api) {
		if o := a.pvs[name]; o != nil && o.size == v.size {
			o.growOnNode = false
		}
	})
	return nil
}
