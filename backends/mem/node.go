package mem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/csikit/csikit/backends"
)

// node is this process's own. s.mu is held.
func (b *Backend) node() (*node, error) {
	n := b.store.nodes[b.o.Node]
	if n == nil {
		return nil, fmt.Errorf("%w: this process has no Options.Node", backends.ErrUnavailable)
	}
	return n, nil
}

// OpenVolume says where the volume is.
func (b *Backend) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	c := Call{"OpenVolume", req.ID, req}
	return ask(ctx, b, c, func(ctx context.Context) (*backends.Source, error) {
		if err := b.beginOpen(req); err != nil {
			return nil, err
		}
		if err := b.midway(ctx, c); err != nil {
			return nil, err
		}
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		v, err := b.store.anywhere(req.ID)
		if err != nil {
			return nil, err
		}
		return b.source(v)
	})
}

// beginOpen notes that the volume is in use here.
func (b *Backend) beginOpen(req backends.OpenVolumeRequest) error {
	s := b.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := b.node(); err != nil {
		return err
	}
	v, err := s.anywhere(req.ID)
	if err != nil {
		return err
	}
	if b.has("Attacher") && v.home == "" {
		if _, ok := v.attached[b.o.Node]; !ok {
			return fmt.Errorf("%w: volume %s is not attached to node %s", backends.ErrPrecondition, req.ID, b.o.Node)
		}
	}
	for other := range v.open {
		if other != b.o.Node && !req.Capability.Mode.MultiNode() {
			return fmt.Errorf("%w: volume %s is open on node %q", backends.ErrInUse, req.ID, other)
		}
	}
	v.open[b.o.Node] = true
	return nil
}

func (b *Backend) source(v *volume) (*backends.Source, error) {
	src := &backends.Source{State: []byte("1 " + v.ID)}
	switch {
	case b.store.o.Devices:
		src.Device = &backends.Device{
			Path: "/dev/mem/" + v.ID, Identity: backends.Identity{Serial: v.ID, Size: v.Capacity},
			Format: v.format, FSType: v.fsType,
		}
	case b.store.o.Dir != "":
		src.Dir = b.store.dir(v.ID)
	default:
		return nil, fmt.Errorf("%w: volumes cannot be opened without StoreOptions.Dir or Devices", backends.ErrPrecondition)
	}
	return src, nil
}

// CloseVolume forgets that the volume is in use here.
func (b *Backend) CloseVolume(ctx context.Context, req backends.CloseVolumeRequest) error {
	c := Call{"CloseVolume", req.ID, req}
	return b.run(ctx, c, func(ctx context.Context) error {
		b.store.close(req.ID, b.o.Node)
		return b.midway(ctx, c)
	})
}

func (s *Store) close(id, nodeID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, set := range []map[string]*volume{s.volumes, s.ephemeral} {
		if v := set[id]; v != nil {
			v.closeOn(nodeID)
		}
	}
}

// RecoverNode closes what is open here and nobody uses.
func (b *Backend) RecoverNode(ctx context.Context, open []backends.OpenVolume) error {
	return b.run(ctx, Call{"RecoverNode", "", open}, func(context.Context) error {
		for _, id := range b.store.Open(b.o.Node) {
			if !slices.ContainsFunc(open, func(o backends.OpenVolume) bool { return o.ID == id }) {
				b.store.close(id, b.o.Node)
			}
		}
		return nil
	})
}

// NodeExpandVolume looks whether the volume is big enough. The device is always
// as big as the volume.
func (b *Backend) NodeExpandVolume(ctx context.Context, req backends.NodeExpandVolumeRequest) error {
	return b.run(ctx, Call{"NodeExpandVolume", req.ID, req}, func(context.Context) error {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		v, err := b.store.anywhere(req.ID)
		switch {
		case err != nil:
			return err
		case req.Range.Required > v.Capacity:
			return fmt.Errorf("%w: volume %s has %d bytes, %d are required: the controller must expand it first",
				backends.ErrOutOfRange, v.ID, v.Capacity, req.Range.Required)
		case !v.open[b.o.Node]:
			return fmt.Errorf("%w: volume %s is not open on this node", backends.ErrPrecondition, v.ID)
		}
		return nil
	})
}

// RecordFormat remembers that the volume was formatted.
func (b *Backend) RecordFormat(ctx context.Context, req backends.RecordFormatRequest) error {
	return b.run(ctx, Call{"RecordFormat", req.ID, req}, func(context.Context) error {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		v, err := b.store.anywhere(req.ID)
		if err != nil {
			return err
		}
		if v.format == backends.FormatDone && (req.Format != v.format || req.FSType != v.fsType) {
			return fmt.Errorf("%w: volume %s was formatted with %s already", backends.ErrPrecondition, v.ID, v.fsType)
		}
		v.format, v.fsType = req.Format, req.FSType
		return nil
	})
}

// VolumeStats is what files, or blocks, the volume has.
func (b *Backend) VolumeStats(ctx context.Context, req backends.VolumeStatsRequest) (*backends.VolumeStats, error) {
	return ask(ctx, b, Call{"VolumeStats", req.ID, req}, func(context.Context) (*backends.VolumeStats, error) {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		v, err := b.store.anywhere(req.ID)
		if err != nil {
			return nil, err
		}
		st := &backends.VolumeStats{Total: v.Capacity, Used: int64(len(v.blocks)) * blockSize, Inodes: 1 << 20}
		if dir := b.store.dir(v.ID); dir != "" {
			err = filepath.WalkDir(dir, counter{st}.add)
		}
		st.Available = max(st.Total-st.Used, 0)
		st.InodesFree = max(st.Inodes-st.InodesUsed, 0)
		return st, err
	})
}

// counter adds files up.
type counter struct{ *backends.VolumeStats }

func (c counter) add(_ string, d fs.DirEntry, err error) error {
	if err != nil {
		return ignoreGone(err)
	}
	info, err := d.Info()
	if err != nil {
		return ignoreGone(err)
	}
	c.InodesUsed++
	if info.Mode().IsRegular() {
		c.Used += info.Size()
	}
	return nil
}

// ignoreGone lets a user of the volume remove files while they are counted.
func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
