package csidriver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver/internal/pbconv"
	"github.com/csikit/csikit/idempotency"
)

func (c *controller) ControllerPublishVolume(ctx context.Context, in *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	if err := c.checkAttachRequest(in); err != nil {
		return nil, err
	}
	req := pbconv.Attach(in)
	keys := []idempotency.Key{attachKey(req.ID, req.NodeID), sharedIDKey(req.ID)}
	if !req.Capability.Mode.MultiNode() {
		keys[1] = idKey(req.ID)
	}
	op := operation("ControllerPublishVolume", attachment(req.ID, req.NodeID), asked{message: in, id: req.ID, path: req.NodeID}, keys...)
	answer, err := do(ctx, c.Driver, op, func(ctx context.Context) (map[string]string, error) {
		return c.attachVolume(ctx, req)
	})
	if err != nil {
		return nil, err
	}
	return &csi.ControllerPublishVolumeResponse{PublishContext: answer}, nil
}

func attachment(id, node string) string {
	if node == "" {
		return id + " at every node"
	}
	return id + " at node " + node
}

func (c *controller) checkAttachRequest(in *csi.ControllerPublishVolumeRequest) error {
	if err := c.validator.check(in); err != nil {
		return err
	}
	if in.GetReadonly() && !c.traits.AttachReadOnly {
		return invalid("readonly: this driver has no PUBLISH_READONLY")
	}
	return checkCapability(&c.traits, in.GetVolumeCapability())
}

// attachVolume looks the volume up first: a backend that attaches what it does
// not know would answer of something else.
func (c *controller) attachVolume(ctx context.Context, req *backends.AttachVolumeRequest) (map[string]string, error) {
	vol, err := c.volumeToUse(ctx, req.ID, req.Secrets)
	if err != nil {
		return nil, err
	}
	if err := c.checkAttach(ctx, vol, req); err != nil {
		return nil, err
	}
	answer, err := c.can.Attacher.AttachVolume(ctx, *req)
	if err != nil {
		return nil, aboutAttachment(err, req.ID, req.NodeID)
	}
	if !smallMap(answer) {
		return nil, badAnswer("the publish context of volume %q has more than %d bytes, or is not UTF-8", req.ID, maxMap)
	}
	if field, key := leak(answer, req.Secrets); field != "" {
		return nil, badAnswer("publish context key %q of volume %q repeats secret %q", field, req.ID, key)
	}
	return maps.Clone(answer), nil
}

// checkAttach asks a VolumeChecker whether this very volume has the capability,
// and refuses a second node where there may be one. What the backend does not
// list, it has to refuse itself.
func (c *controller) checkAttach(ctx context.Context, vol *backends.Volume, req *backends.AttachVolumeRequest) error {
	if c.can.VolumeChecker != nil {
		err := c.can.VolumeChecker.CheckVolume(ctx, backends.CheckVolumeRequest{
			Volume: vol, Capabilities: []backends.Capability{req.Capability}, Secrets: req.Secrets,
		})
		if err != nil {
			return unseen(aboutVolume(err, req.ID), silentRefusals)
		}
	}
	if c.can.PublishedNodesLister == nil || req.Capability.Mode.MultiNode() {
		return nil
	}
	others := slices.DeleteFunc(slices.Clone(vol.Nodes), func(n string) bool { return n == req.NodeID })
	return attachedTo(req.ID, others)
}

// attachedTo is ErrInUse when there are nodes.
func attachedTo(id string, nodes []string) error {
	if len(nodes) == 0 {
		return nil
	}
	return fmt.Errorf("volume %q: %w: it is published to node %s", id, backends.ErrInUse, nodesText(nodes))
}

func nodesText(nodes []string) string { return clip(strings.Join(nodes, ", "), maxText/2) }

// detached is ErrInUse when the volume is known to be in use anywhere.
func (c *controller) detached(vol *backends.Volume) error {
	if err := c.unused(vol.ID); err != nil {
		return err
	}
	if c.can.PublishedNodesLister == nil {
		return nil
	}
	return attachedTo(vol.ID, vol.Nodes)
}

func (c *controller) ControllerUnpublishVolume(ctx context.Context, in *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	if err := c.validator.check(in); err != nil {
		return nil, err
	}
	req := backends.DetachVolumeRequest{ID: in.GetVolumeId(), NodeID: in.GetNodeId(), Secrets: pbconv.Secrets(in.GetSecrets(), nil)}
	a := asked{message: in, id: req.ID, path: req.NodeID, all: req.NodeID == ""}
	keys := []idempotency.Key{idKey(req.ID)}
	if !a.all {
		keys = []idempotency.Key{attachKey(req.ID, req.NodeID), sharedIDKey(req.ID)}
	}
	op := operation("ControllerUnpublishVolume", attachment(req.ID, req.NodeID), a, keys...)
	err := run(ctx, c.Driver, op, func(ctx context.Context) error { return c.detachVolume(ctx, req) })
	if err != nil {
		return nil, aboutAttachment(err, req.ID, req.NodeID)
	}
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}

// detachVolume looks, where the backend lists published nodes, at what it does not
// know: a volume that is gone, or is listed without the node, is detached. And it
// looks whether detaching from every node left one.
func (c *controller) detachVolume(ctx context.Context, req backends.DetachVolumeRequest) error {
	err := c.can.Attacher.DetachVolume(ctx, req)
	unknown := gone(err, backends.KindVolume, req.ID) || gone(err, backends.KindNode, req.NodeID)
	if c.can.PublishedNodesLister == nil || err != nil && !unknown || err == nil && req.NodeID != "" {
		return err
	}
	vol, lookup := c.volume(ctx, req.ID, req.Secrets)
	switch {
	case gone(lookup, backends.KindVolume, req.ID):
		return nil
	case lookup != nil:
		return afterwards("is it detached: %w", lookup)
	case !publishedTo(vol, req.NodeID):
		return nil
	case unknown:
		return err
	}
	return badAnswer("volume %q was detached from every node, and is published to %s", req.ID, nodesText(vol.Nodes))
}

// publishedTo tells whether a volume is published to a node; "" is any.
func publishedTo(vol *backends.Volume, node string) bool {
	if node == "" {
		return len(vol.Nodes) > 0
	}
	return slices.Contains(vol.Nodes, node)
}
