package mem

import (
	"context"
	"slices"

	"github.com/csikit/csikit/backends"
)

// VolumeHealth is what SetHealth said of the volume.
func (b *Backend) VolumeHealth(ctx context.Context, req backends.VolumeRequest) ([]backends.Health, error) {
	return ask(ctx, b, Call{"VolumeHealth", req.ID, req}, func(context.Context) ([]backends.Health, error) {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		v, err := b.store.volume(req.ID)
		if err != nil {
			return nil, err
		}
		return slices.Clone(v.health[""]), nil
	})
}

// NodeVolumeHealth is what SetHealth said of the volume on this node.
func (b *Backend) NodeVolumeHealth(ctx context.Context, req backends.NodeHealthRequest) ([]backends.Health, error) {
	return ask(ctx, b, Call{"NodeVolumeHealth", req.ID, req}, func(context.Context) ([]backends.Health, error) {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		v, err := b.store.anywhere(req.ID)
		if err != nil {
			return nil, err
		}
		return slices.Clone(v.health[b.o.Node]), nil
	})
}

// StorageHealth is what SetStorageHealth said of this node.
func (b *Backend) StorageHealth(ctx context.Context, req backends.StorageHealthRequest) ([]backends.StorageHealth, error) {
	return ask(ctx, b, Call{"StorageHealth", "", req}, func(context.Context) ([]backends.StorageHealth, error) {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		n, err := b.node()
		if err != nil {
			return nil, err
		}
		return slices.Clone(n.health), nil
	})
}
