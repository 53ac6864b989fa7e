package mem

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/csikit/csikit/backends"
)

// Target is a target path of which PrepareTarget was told.
type Target struct {
	Path     string
	ReadOnly bool
	Calls    int // how often it was told: once, and again at each republish
	Context  map[string]string
	Owner    backends.Owner
	Secrets  backends.Secrets
}

// PrepareTarget remembers the request.
func (b *Backend) PrepareTarget(ctx context.Context, req backends.TargetRequest) error {
	return b.run(ctx, Call{"PrepareTarget", req.ID, req}, func(context.Context) error {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		v, err := b.store.anywhere(req.ID)
		if err != nil {
			return err
		}
		key := targetKey{b.o.Node, req.Path}
		t := v.targets[key]
		if t == nil {
			t = &Target{}
			v.targets[key] = t
		}
		*t = Target{req.Path, req.ReadOnly, t.Calls + 1, maps.Clone(req.Context), req.Owner, req.Secrets}
		return nil
	})
}

// Targets are the target paths of a volume on a node since it was opened there.
func (s *Store) Targets(volumeID, nodeID string) []Target {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.anywhere(volumeID)
	if err != nil {
		return nil
	}
	var list []Target
	for k, t := range v.targets {
		if k.node == nodeID {
			list = append(list, *t)
		}
	}
	slices.SortFunc(list, func(a, b Target) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return list
}

// ephemeralSize is what a pod gets that asks for no size.
const ephemeralSize = 64 << 20

// CreateEphemeral makes a volume that only this node knows. It takes no
// parameters: they come from whoever may make a pod.
func (b *Backend) CreateEphemeral(ctx context.Context, req backends.CreateEphemeralRequest) (*backends.Volume, error) {
	c := Call{"CreateEphemeral", req.ID, req}
	return ask(ctx, b, c, func(ctx context.Context) (*backends.Volume, error) {
		id, err := b.beginEphemeral(req)
		if err != nil {
			return nil, err
		}
		if err := b.midway(ctx, c); err != nil {
			return nil, err
		}
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		v := b.store.ephemeral[id]
		if v == nil {
			return nil, fmt.Errorf("%w: ephemeral volume %s was deleted while it was made", backends.ErrUnavailable, id)
		}
		if v.half {
			if err := b.store.makeDir(id, backends.ContentSource{}); err != nil {
				return nil, fmt.Errorf("ephemeral volume %s: %w", id, err)
			}
			v.half = false
		}
		return v.answer(), nil
	})
}

func (b *Backend) beginEphemeral(req backends.CreateEphemeralRequest) (string, error) {
	s := b.store
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := b.node()
	if err != nil {
		return "", err
	}
	if len(req.Parameters) > 0 {
		return "", fmt.Errorf("%w: ephemeral volumes have no parameters", backends.ErrInvalid)
	}
	id := idOf(ephemeralPrefix, req.ID)
	if s.ephemeral[id] != nil {
		return id, nil
	}
	if s.free(n.zone) < ephemeralSize {
		return "", fmt.Errorf("%w: an ephemeral volume takes %d bytes", backends.ErrNoSpace, ephemeralSize)
	}
	v := newVolume(backends.Volume{
		ID: id, Name: req.ID, Capacity: ephemeralSize, Topology: b.segments(n.zone),
		Context: map[string]string{domain + "/volume": id},
	})
	v.home = b.o.Node
	s.putEphemeral(v)
	return id, nil
}

// DeleteEphemeral deletes the volume that CreateEphemeral made, or began to make.
func (b *Backend) DeleteEphemeral(ctx context.Context, req backends.DeleteEphemeralRequest) error {
	c := Call{"DeleteEphemeral", req.ID, req}
	return b.run(ctx, c, func(ctx context.Context) error {
		id := idOf(ephemeralPrefix, req.ID)
		if err := b.store.removeDir(id); err != nil {
			return fmt.Errorf("ephemeral volume %s: %w", id, err)
		}
		if err := b.midway(ctx, c); err != nil {
			return err
		}
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		b.store.dropEphemeral(id)
		return nil
	})
}
