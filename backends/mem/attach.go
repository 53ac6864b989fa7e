package mem

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/csikit/csikit/backends"
)

// AttachVolume notes that a node may open the volume.
func (b *Backend) AttachVolume(ctx context.Context, req backends.AttachVolumeRequest) (map[string]string, error) {
	return ask(ctx, b, Call{"AttachVolume", req.ID, req}, func(context.Context) (map[string]string, error) {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		if err := b.store.attach(req); err != nil {
			return nil, err
		}
		return map[string]string{attachmentKey: attachmentOf(req.ID, req.NodeID)}, nil
	})
}

// attachmentKey is what a node looks for in the publish context.
const attachmentKey = domain + "/attachment"

func attachmentOf(id, nodeID string) string { return idOf("a-", id+"\x00"+nodeID) }

// attach decides. s.mu is held.
func (s *Store) attach(req backends.AttachVolumeRequest) error {
	v, err := s.volume(req.ID)
	if err != nil {
		return err
	}
	n := s.nodes[req.NodeID]
	if n == nil {
		return backends.NodeNotFound(req.NodeID)
	}
	want := attachment{req.Capability.Mode, req.Capability.Block, req.ReadOnly}
	have, attached := v.attached[req.NodeID]
	switch {
	case attached && have != want:
		return fmt.Errorf("%w: volume %s is attached to node %s in another way", backends.ErrIncompatible, req.ID, req.NodeID)
	case attached:
		return nil
	case len(v.attached) > 0 && (!want.mode.MultiNode() || v.heldAlone()):
		return fmt.Errorf("%w: volume %s is attached to node %q", backends.ErrInUse, req.ID, slices.Sorted(maps.Keys(v.attached)))
	case n.limit > 0 && s.attachedTo(req.NodeID) >= n.limit:
		return fmt.Errorf("%w: node %s has its %d volumes", backends.ErrLimit, req.NodeID, n.limit)
	}
	v.attached[req.NodeID] = want
	return nil
}

// heldAlone tells whether a node has the volume for itself.
func (v *volume) heldAlone() bool {
	for _, a := range v.attached {
		if !a.mode.MultiNode() {
			return true
		}
	}
	return false
}

func (s *Store) attachedTo(nodeID string) int64 {
	var n int64
	for _, v := range s.volumes {
		if _, ok := v.attached[nodeID]; ok {
			n++
		}
	}
	return n
}

// DetachVolume takes the volume away from a node, or from all.
func (b *Backend) DetachVolume(ctx context.Context, req backends.DetachVolumeRequest) error {
	return b.run(ctx, Call{"DetachVolume", req.ID, req}, func(context.Context) error {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		v := b.store.volumes[req.ID]
		if v == nil {
			return nil
		}
		if req.NodeID == "" {
			clear(v.attached)
		}
		delete(v.attached, req.NodeID)
		return nil
	})
}
