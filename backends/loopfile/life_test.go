package loopfile

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// node are the paths of one volume on one node, and the engine there.
type node struct {
	*mounter.Engine
	o       order
	staging string
	target  string
}

func startNode(ctx context.Context, b *Backend, o order) (*node, error) {
	e, err := mounter.New(b, &mounter.Options{StateDir: filepath.Join(o.Dir, "state"), Logger: b.log, AllowVolatileState: true})
	if err != nil {
		return nil, err
	}
	return &node{e, o, filepath.Join(o.Dir, "staging"), filepath.Join(o.Dir, "pods/1")}, e.Start(ctx)
}

func (n *node) capability() backends.Capability {
	return backends.Capability{Mode: backends.SingleNodeWriter, FSType: n.o.Type, Block: n.o.Type == ""}
}

// inline says that the volume is a pod's own.
func (n *node) inline() bool { return n.o.Op == "pod" }

func (n *node) do(ctx context.Context) error {
	if n.inline() {
		return n.Publish(ctx, mounter.PublishRequest{
			ID: n.o.ID, Path: n.target, Capability: n.capability(), Ephemeral: true, Context: map[string]string{"size": n.o.Name, "type": typeThin},
		})
	}
	stage := mounter.StageRequest{ID: n.o.ID, Path: n.staging, Capability: n.capability()}
	if err := n.Stage(ctx, stage); err != nil {
		return err
	}
	return n.Publish(ctx, mounter.PublishRequest{
		ID: n.o.ID, StagingPath: n.staging, Path: n.target, Capability: stage.Capability, ReadOnly: stage.Capability.Block,
	})
}

func (n *node) undo(ctx context.Context) error {
	if err := n.Unpublish(ctx, mounter.UnpublishRequest{ID: n.o.ID, Path: n.target}); err != nil {
		return err
	}
	if n.inline() {
		return nil
	}
	return n.Unstage(ctx, mounter.UnstageRequest{ID: n.o.ID, Path: n.staging})
}

// life is all that a node does with a volume.
func life(ctx context.Context, b *Backend, o order) error {
	n, err := startNode(ctx, b, o)
	if err != nil {
		return err
	}
	if err := n.do(ctx); err != nil {
		return err
	}
	if n.inline() {
		if err := os.WriteFile(filepath.Join(n.target, "f"), []byte("data"), 0o600); err != nil {
			return err
		}
	}
	return errors.Join(n.undo(ctx), n.Close())
}
