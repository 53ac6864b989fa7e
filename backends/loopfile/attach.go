package loopfile

import (
	"context"
	"errors"
	"fmt"

	"github.com/csikit/csikit/backends"
)

// attachment is the node that a volume is attached to, and how. What an older
// release attached has no mode.
type attachment struct {
	Node     string `json:"node"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Mode     string `json:"mode,omitempty"` // of CSI
	Block    bool   `json:"block,omitempty"`
}

func attachmentOf(req backends.AttachVolumeRequest) attachment {
	a := attachment{Node: req.NodeID, ReadOnly: req.ReadOnly}
	if req.Capability.Mode != 0 {
		a.Mode, a.Block = req.Capability.Mode.String(), req.Capability.Block
	}
	return a
}

func (a *attachment) String() string {
	how := "mounted"
	if a.Block {
		how = "raw"
	}
	return fmt.Sprintf("to node %s as %s, %s, with read-only %v", a.Node, a.Mode, how, a.ReadOnly)
}

// publishNode is the key in the publish context.
const publishNode = "node"

// AttachVolume notes that the volume is for this node. Nothing else needs to be
// done for a file on the node's own disk: it serves tests of what calls a driver,
// which want one that has an attach and holds them to it. See Options.Attach.
func (b *Backend) AttachVolume(ctx context.Context, req backends.AttachVolumeRequest) (map[string]string, error) {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return nil, err
	}
	defer done()
	dir, err := p.decode(req.ID)
	if err != nil {
		return nil, err
	}
	v, err := p.lock(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer v.unlock()
	if req.NodeID != b.o.Node {
		return nil, backends.NodeNotFound(req.NodeID)
	}
	want := attachmentOf(req)
	have := v.meta.Attached
	old := have != nil && have.Mode == "" && *have == attachment{Node: want.Node, ReadOnly: want.ReadOnly}
	switch {
	case have == nil || old && *have != want:
		m := *v.meta
		m.Attached = &want
		if err := v.saveMeta(m); err != nil {
			return nil, err
		}
	case *have != want:
		return nil, fmt.Errorf("%w: volume %s is attached %v; asked for: %v", backends.ErrIncompatible, v.id, have, &want)
	}
	return map[string]string{publishNode: req.NodeID}, nil
}

// DetachVolume undoes it.
func (b *Backend) DetachVolume(ctx context.Context, req backends.DetachVolumeRequest) error {
	p, done, err := b.enter(ControllerHalf)
	if err != nil {
		return err
	}
	defer done()
	dir, err := p.decode(req.ID)
	if errors.Is(err, backends.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	v, err := p.lock(ctx, dir)
	if errors.Is(err, backends.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer v.unlock()
	if v.meta.Attached == nil || req.NodeID != "" && req.NodeID != v.meta.Attached.Node {
		return nil
	}
	if s, open, _ := b.opened.get(dir); open {
		return fmt.Errorf("%w: volume %s is open on node %s as %s", backends.ErrInUse, v.id, b.o.Node, s.Loop)
	}
	m := *v.meta
	m.Attached = nil
	return v.saveMeta(m)
}

// ListsPublishedNodes says that Volume.Nodes is complete.
func (b *Backend) ListsPublishedNodes() {}

// attachedHere refuses what was not attached first, as a storage does that has an
// attach.
func (b *Backend) attachedHere(v *volume) error {
	if !b.o.Attach || v.meta.Ephemeral != "" || v.meta.Attached != nil {
		return nil
	}
	return fmt.Errorf("%w: volume %s is not attached to node %s", backends.ErrPrecondition, v.id, b.o.Node)
}

// FilterController takes back what Options do not ask for.
func (b *Backend) FilterController(f *backends.ControllerFeatures) {
	if !b.o.Attach {
		f.Attacher, f.PublishedNodesLister = nil, nil
	}
	if b.o.Cgroup == "" {
		f.Modifier = nil
	}
}

// FilterNode takes back what Options do not ask for.
func (b *Backend) FilterNode(f *backends.NodeFeatures) {
	if b.o.EphemeralMax == 0 {
		f.EphemeralProvisioner = nil
	}
}
