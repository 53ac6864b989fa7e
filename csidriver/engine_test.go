package csidriver

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/mountertest"
)

// disks is memory with a disk for each volume.
type disks struct {
	*memory
	kernel *mountertest.Kernel
}

func (d *disks) OpenVolume(_ context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	d.mu.Lock()
	_, ok := d.volumes[req.ID]
	d.mu.Unlock()
	if !ok {
		return nil, backends.VolumeNotFound(req.ID)
	}
	return &backends.Source{Device: &backends.Device{Path: "/dev/" + req.ID, Identity: backends.Identity{Serial: req.ID}}}, nil
}

func (d *disks) CreateVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	v, err := d.memory.CreateVolume(ctx, req)
	if err == nil {
		d.kernel.AddDisk("/dev/"+v.ID, v.Capacity, backends.Identity{Serial: v.ID})
	}
	return v, err
}

// running is an engine that mountertest has started and closes.
type running struct{ *mountertest.Engine }

func (running) Start(context.Context) error { return nil }
func (running) Close() error                { return nil }

// TestWithEngine walks a volume through the real engine over a kernel in memory.
func TestWithEngine(t *testing.T) {
	kernel := mountertest.NewKernel()
	r, ctx := startRig(t, func(s *setup) {
		d := &disks{s.backend, kernel}
		s.cfg.Controller, s.cfg.Node = d, d
		s.opts.Engine = running{mountertest.New(t, d, &mountertest.Options{Kernel: kernel, FSTypes: s.cfg.Traits.FSTypes})}
	}), t.Context()
	dir := t.TempDir()
	staging, target := filepath.Join(dir, "staging"), filepath.Join(dir, "target")
	if err := os.Mkdir(staging, 0o750); err != nil {
		t.Fatal(err)
	}
	made, err := r.CreateVolume(ctx, createReq("v"))
	wantCode(t, err, codes.OK)
	id := made.GetVolume().GetVolumeId()

	_, err = r.NodeStageVolume(ctx, stageReq("unknown", staging))
	wantCode(t, err, codes.NotFound)
	_, err = r.NodePublishVolume(ctx, publishReq(id, staging, target))
	wantCode(t, err, codes.FailedPrecondition)
	for range 2 {
		_, err = r.NodeStageVolume(ctx, stageReq(id, staging))
		wantCode(t, err, codes.OK)
		_, err = r.NodePublishVolume(ctx, publishReq(id, staging, target))
		wantCode(t, err, codes.OK)
	}
	readOnly := publishReq(id, staging, target)
	readOnly.Readonly = true
	_, err = r.NodePublishVolume(ctx, readOnly)
	wantCode(t, err, codes.AlreadyExists)
	stats, err := r.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: target})
	wantCode(t, err, codes.OK)
	if len(stats.GetUsage()) == 0 {
		t.Error("no usage")
	}
	_, err = r.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: dir})
	wantCode(t, err, codes.NotFound)
	_, err = r.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: "unknown", VolumePath: target})
	wantCode(t, err, codes.NotFound)
	_, err = r.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
	wantCode(t, err, codes.FailedPrecondition, "in use")
	for range 2 {
		_, err = r.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: target})
		wantCode(t, err, codes.OK)
		_, err = r.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: staging})
		wantCode(t, err, codes.OK)
	}
	_, err = r.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
	wantCode(t, err, codes.OK)
	if mounts := kernel.Mounts(); len(mounts) > 0 {
		t.Errorf("mounts are left: %v", mounts)
	}
}
