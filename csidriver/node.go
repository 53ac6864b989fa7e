package csidriver

import (
	"context"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
	"github.com/csikit/csikit/mounter"
)

// node serves the Node service: it validates and converts, takes the keys, and
// leaves the work to the engine.
type node struct {
	csi.UnimplementedNodeServer
	*Driver
	traits backends.Traits
	can    backends.NodeFeatures

	mu    sync.Mutex
	place backends.Segments // what NodeTopology answered first
}

func newNode(d *Driver) *node {
	return &node{Driver: d, traits: d.cfg.Traits, can: d.features.node}
}

func (n *node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: n.features.nodeCapabilities()}, nil
}

// NodeGetInfo answers before recovery is done: kubelet registers the driver with
// it.
func (n *node) NodeGetInfo(ctx context.Context, _ *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	place, err := n.nodeTopology(ctx)
	if err != nil {
		return nil, err
	}
	limit, err := n.maxVolumes(ctx)
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetInfoResponse{
		NodeId:             n.opts.NodeID,
		MaxVolumesPerNode:  limit,
		AccessibleTopology: pbconv.Accessible(place),
	}, nil
}

// topology keeps the first answer: a node whose place changes is not registered
// again by kubelet.
func (n *node) nodeTopology(ctx context.Context) (backends.Segments, error) {
	if n.can.TopologyReporter == nil {
		return nil, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.place != nil {
		return n.place, nil
	}
	place, err := n.can.TopologyReporter.NodeTopology(ctx)
	if err != nil {
		return nil, aboutVolume(err, "")
	}
	if len(place) == 0 {
		return nil, badAnswer("the node has no topology")
	}
	if err := checkSegments(&n.traits, place); err != nil {
		return nil, badAnswer("the node's topology: %w", err)
	}
	n.place = place
	return place, nil
}

func (n *node) maxVolumes(ctx context.Context) (int64, error) {
	if n.can.AttachLimiter == nil {
		return 0, nil
	}
	limit, err := n.can.AttachLimiter.MaxVolumes(ctx)
	if err != nil {
		return 0, aboutVolume(err, "")
	}
	if limit < 0 {
		return 0, badAnswer("the node holds %d volumes", limit)
	}
	return limit, nil
}

func (n *node) NodeGetVolumeStats(ctx context.Context, in *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	req, err := n.statsRequest(in)
	if err != nil {
		return nil, err
	}
	stats, err := n.engine.Stats(ctx, req)
	if err != nil {
		return nil, aboutVolume(err, req.ID)
	}
	if err := checkStats(stats); err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: pbconv.Usage(stats)}, nil
}

func (n *node) statsRequest(in *csi.NodeGetVolumeStatsRequest) (mounter.StatsRequest, error) {
	req := mounter.StatsRequest{ID: in.GetVolumeId()}
	err := n.validator.check(in)
	if err != nil {
		return req, err
	}
	if req.Path, err = servedPath("volume_path", in.GetVolumePath(), req.ID); err != nil {
		return req, err
	}
	req.StagingPath, err = optionalPath("staging_target_path", in.GetStagingTargetPath())
	return req, err
}

func checkStats(s *mounter.Stats) error {
	if s == nil {
		return badAnswer("no statistics and no error")
	}
	for _, v := range []int64{s.Total, s.Used, s.Available, s.Inodes, s.InodesUsed, s.InodesFree} {
		if v < 0 {
			return badAnswer("negative statistics: %+v", s.VolumeStats)
		}
	}
	return nil
}

func (n *node) NodeExpandVolume(ctx context.Context, in *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	req, err := n.expandRequest(in)
	if err != nil {
		return nil, err
	}
	op := operation("NodeExpandVolume", req.ID, asked{message: in, id: req.ID, path: req.Path}, nodeKey(req.ID))
	size, err := do(ctx, n.Driver, op, func(ctx context.Context) (int64, error) { return n.engine.Expand(ctx, req) })
	if err != nil {
		return nil, aboutVolume(err, req.ID)
	}
	if size < 0 {
		return nil, badAnswer("volume %q was expanded to %d bytes", req.ID, size)
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: size}, nil
}

func (n *node) expandRequest(in *csi.NodeExpandVolumeRequest) (mounter.ExpandRequest, error) {
	if err := n.checkExpand(in); err != nil {
		return mounter.ExpandRequest{}, err
	}
	path, err := servedPath("volume_path", in.GetVolumePath(), in.GetVolumeId())
	if err != nil {
		return mounter.ExpandRequest{}, err
	}
	staging, err := optionalPath("staging_target_path", in.GetStagingTargetPath())
	if err != nil {
		return mounter.ExpandRequest{}, err
	}
	return pbconv.NodeExpand(in, path, staging), nil
}

func (n *node) checkExpand(in *csi.NodeExpandVolumeRequest) error {
	if err := n.validator.check(in); err != nil {
		return err
	}
	if err := checkRange(in.GetCapacityRange()); err != nil {
		return err
	}
	if r := pbconv.Range(in.GetCapacityRange()); r.Limit > 0 && r.Required > r.Limit {
		return outOfRange("required_bytes %d is more than limit_bytes %d", r.Required, r.Limit)
	}
	if in.GetVolumeCapability() == nil {
		return nil
	}
	return checkCapability(&n.traits, in.GetVolumeCapability())
}
