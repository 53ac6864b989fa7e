package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

var stepNames = [...]string{
	"CreateVolume", "NodeStageVolume", "NodePublishVolume", "NodeGetVolumeStats",
	"NodeUnpublishVolume", "NodeUnstageVolume", "DeleteVolume",
}

// load leads volumes through their lives as a CO does.
type load struct {
	controller csi.ControllerClient
	node       csi.NodeClient
	dir        string
	size       int64
	params     map[string]string
	topology   *csi.TopologyRequirement
	serial     atomic.Int64

	mu    sync.Mutex
	times [len(stepNames)]series // ns
}

func newLoad(ctx context.Context, conn *grpc.ClientConn, c config, params map[string]string, dir string) (*load, error) {
	l := &load{controller: csi.NewControllerClient(conn), node: csi.NewNodeClient(conn), dir: dir, size: c.size, params: params}
	info, err := l.node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	if err != nil {
		return nil, err
	}
	if t := info.GetAccessibleTopology(); t != nil {
		l.topology = &csi.TopologyRequirement{Requisite: []*csi.Topology{t}, Preferred: []*csi.Topology{t}}
	}
	return l, nil
}

func (l *load) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times = [len(stepNames)]series{}
}

// medians are those of each step since reset.
func (l *load) medians() (m [len(stepNames)]float64) {
	for i := range l.times {
		m[i] = l.times[i].median()
	}
	return m
}

// run keeps n lifecycles going for d, lets them end, and gives how many there
// were a second.
func (l *load) run(ctx context.Context, d time.Duration, n int) (float64, error) {
	return flood(ctx, d, n, func() error { return l.lifecycle(ctx) })
}

// lifecycle is one volume from its creation to its deletion. The directories
// that a CO makes are made here, too, and are part of the time of all drivers.
func (l *load) lifecycle(ctx context.Context) error {
	name := fmt.Sprintf("bench-%d", l.serial.Add(1))
	staging, target := filepath.Join(l.dir, name), filepath.Join(l.dir, name+"-target")
	if err := os.Mkdir(staging, 0o755); err != nil {
		return err
	}
	capability := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
	}
	var vol *csi.Volume
	steps := [len(stepNames)]func() error{
		func() error {
			r, err := l.controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
				Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: l.size}, Parameters: l.params,
				VolumeCapabilities: []*csi.VolumeCapability{capability}, AccessibilityRequirements: l.topology,
			})
			vol = r.GetVolume()
			return err
		},
		func() error {
			_, err := l.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
				VolumeId: vol.GetVolumeId(), StagingTargetPath: staging, VolumeCapability: capability, VolumeContext: vol.GetVolumeContext(),
			})
			return err
		},
		func() error {
			_, err := l.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
				VolumeId: vol.GetVolumeId(), StagingTargetPath: staging, TargetPath: target, VolumeCapability: capability,
				VolumeContext: vol.GetVolumeContext(),
			})
			return err
		},
		func() error {
			_, err := l.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: vol.GetVolumeId(), VolumePath: target})
			return err
		},
		func() error {
			_, err := l.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: vol.GetVolumeId(), TargetPath: target})
			return err
		},
		func() error {
			_, err := l.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: vol.GetVolumeId(), StagingTargetPath: staging})
			return err
		},
		func() error {
			_, err := l.controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: vol.GetVolumeId()})
			return err
		},
	}
	var took [len(stepNames)]time.Duration
	for i, step := range steps {
		begin := time.Now()
		if err := step(); err != nil {
			return fmt.Errorf("%s of %s: %w", stepNames[i], name, err)
		}
		took[i] = time.Since(begin)
	}
	if err := os.Remove(staging); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, d := range took {
		l.times[i].add(float64(d))
	}
	return nil
}
