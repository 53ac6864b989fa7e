package csidriver

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
	"github.com/csikit/csikit/idempotency"
	"github.com/csikit/csikit/mounter"
)

func (n *node) NodeStageVolume(ctx context.Context, in *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	path, err := n.checkStage(in)
	if err != nil {
		return nil, err
	}
	req := pbconv.Stage(in, path)
	op := operation("NodeStageVolume", req.ID, asked{message: in, id: req.ID, path: path}, nodeKey(req.ID))
	err = run(ctx, n.Driver, op, func(ctx context.Context) error { return n.engine.Stage(ctx, req) })
	if err != nil {
		return nil, aboutVolume(err, req.ID)
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

func (n *node) checkStage(in *csi.NodeStageVolumeRequest) (path string, err error) {
	if err := n.validator.check(in); err != nil {
		return "", err
	}
	if err := checkCapability(&n.traits, in.GetVolumeCapability()); err != nil {
		return "", err
	}
	return absPath("staging_target_path", in.GetStagingTargetPath())
}

func (n *node) NodeUnstageVolume(ctx context.Context, in *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if err := n.validator.check(in); err != nil {
		return nil, err
	}
	path, err := absPath("staging_target_path", in.GetStagingTargetPath())
	if err != nil {
		return nil, err
	}
	req := mounter.UnstageRequest{ID: in.GetVolumeId(), Path: path}
	op := operation("NodeUnstageVolume", req.ID, asked{message: in, id: req.ID, path: path}, nodeKey(req.ID))
	err = run(ctx, n.Driver, op, func(ctx context.Context) error { return n.engine.Unstage(ctx, req) })
	if err != nil {
		return nil, aboutVolume(err, req.ID)
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (n *node) NodePublishVolume(ctx context.Context, in *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	req, err := n.publishRequest(in)
	if err != nil {
		return nil, err
	}
	keys := []idempotency.Key{pathKey(req.Path), sharedNodeKey(req.ID)}
	if req.Ephemeral {
		keys[1] = nodeKey(req.ID) // which is made here, and has one target
	}
	op := operation("NodePublishVolume", req.ID, asked{message: in, id: req.ID, path: req.Path}, keys...)
	if n.can.TargetPreparer != nil {
		op.Equal = sameToTheLetter // who brings fresh tokens has to be heard
	}
	err = run(ctx, n.Driver, op, func(ctx context.Context) error { return n.engine.Publish(ctx, req) })
	if err != nil {
		return nil, aboutVolume(err, req.ID)
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (n *node) publishRequest(in *csi.NodePublishVolumeRequest) (mounter.PublishRequest, error) {
	var none mounter.PublishRequest
	if err := n.checkPublish(in); err != nil {
		return none, err
	}
	target, err := absPath("target_path", in.GetTargetPath())
	if err != nil {
		return none, err
	}
	if pbconv.Ephemeral(in) {
		return pbconv.Publish(in, "", target), nil
	}
	staging, err := absPath("staging_target_path", in.GetStagingTargetPath())
	if err != nil {
		return none, err
	}
	return pbconv.Publish(in, staging, target), nil
}

func (n *node) checkPublish(in *csi.NodePublishVolumeRequest) error {
	if err := n.validator.check(in); err != nil {
		return err
	}
	ephemeral := pbconv.Ephemeral(in)
	switch {
	case ephemeral && n.traits.Lifecycle&backends.Ephemeral == 0:
		return invalid("inline ephemeral volumes are not served by this driver")
	case ephemeral && in.GetVolumeCapability().GetBlock() != nil:
		return noCapability("raw block ephemeral volumes")
	case ephemeral:
		return checkCapability(&n.traits, in.GetVolumeCapability())
	case n.traits.Lifecycle&backends.Persistent == 0:
		return invalid("this driver has inline ephemeral volumes only")
	case in.GetStagingTargetPath() == "":
		return fmt.Errorf("%w: staging_target_path is not set, and the driver has STAGE_UNSTAGE_VOLUME", backends.ErrPrecondition)
	}
	return checkCapability(&n.traits, in.GetVolumeCapability())
}

func (n *node) NodeUnpublishVolume(ctx context.Context, in *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := n.validator.check(in); err != nil {
		return nil, err
	}
	path, err := absPath("target_path", in.GetTargetPath())
	if err != nil {
		return nil, err
	}
	req := mounter.UnpublishRequest{ID: in.GetVolumeId(), Path: path}
	op := operation("NodeUnpublishVolume", req.ID, asked{message: in, id: req.ID, path: path}, pathKey(path), sharedNodeKey(req.ID))
	err = run(ctx, n.Driver, op, func(ctx context.Context) error { return n.engine.Unpublish(ctx, req) })
	if err != nil {
		return nil, aboutVolume(err, req.ID)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
