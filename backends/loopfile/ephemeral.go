package loopfile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit"
)

// paramSize is how big a pod wants its inline volume.
const paramSize = "size"

// ephemeralName is the name of a pod's volume. It follows from the CO's ID, so
// that the volume is found when the process died before anybody knew its own ID;
// no name that a CO gives has a NUL in it.
func ephemeralName(id string) string { return "ephemeral\x00" + id }

// CreateEphemeral makes a volume of a pod's own, in the node's process, or finds
// the one that it made.
func (b *Backend) CreateEphemeral(ctx context.Context, req backends.CreateEphemeralRequest) (*backends.Volume, error) {
	p, done, err := b.enter(NodeHalf)
	if err != nil {
		return nil, err
	}
	defer done()
	m, err := b.ephemeralMeta(p, req)
	if err != nil {
		return nil, err
	}
	v, err := p.volume(dirOf(m.Name))
	if errors.Is(err, backends.ErrNotFound) {
		return b.make(ctx, p, m, func(img *os.File) error { return b.fill(ctx, p, img, m) })
	}
	if err != nil {
		return nil, err
	}
	if v.meta.Ephemeral != req.ID || v.meta.Size != m.Size || v.meta.Type != m.Type || v.meta.BlockSize != m.BlockSize || !maps.Equal(v.meta.Mutable, m.Mutable) {
		return nil, fmt.Errorf("%w: ephemeral volume %q has other parameters", backends.ErrIncompatible, req.ID)
	}
	return b.public(v), nil
}

// ephemeralMeta checks what the pod asks for: whoever may make a pod wrote it.
func (b *Backend) ephemeralMeta(p *pool, req backends.CreateEphemeralRequest) (*meta, error) {
	params := map[string]string{}
	limit := b.o.EphemeralMax
	size := min(Traits(b.o).SizeDefault, limit)
	for k, v := range req.Parameters {
		if k != paramSize {
			params[k] = v
			continue
		}
		n, err := parseSize(v)
		if err != nil {
			return nil, err
		}
		size = n
	}
	least := max(Traits(b.o).SizeMin, req.Capability.LeastSize())
	if size < least || size > limit {
		return nil, fmt.Errorf("%w: an inline volume of %d bytes: want %d to %d", backends.ErrInvalid, size, least, limit)
	}
	m, err := b.newMeta(p, backends.CreateVolumeRequest{Name: ephemeralName(req.ID), Size: size, Parameters: params})
	if err != nil {
		return nil, err
	}
	m.Ephemeral = req.ID
	return m, nil
}

// parseSize reads bytes, with a unit of Kubernetes after them if need be.
func parseSize(s string) (int64, error) {
	n, err := iolimit.Bytes(s)
	if err != nil || n == 0 || n > maxSize {
		return 0, fmt.Errorf("%w: parameter size %q: want bytes, or a number with Ki, Mi, Gi or Ti", backends.ErrInvalid, s)
	}
	return int64(n), nil //nolint:gosec // at most maxSize
}

// DeleteEphemeral deletes a pod's volume, which is closed by now. It goes by the
// CO's ID alone.
func (b *Backend) DeleteEphemeral(ctx context.Context, req backends.DeleteEphemeralRequest) error {
	p, done, err := b.enter(NodeHalf)
	if err != nil {
		return err
	}
	defer done()
	err = b.deleteDir(ctx, p, dirOf(ephemeralName(req.ID)))
	if errors.Is(err, backends.ErrNotFound) {
		return nil
	}
	return err
}

// deleteLost deletes a pod's volume that no record speaks of: the node's records
// were lost, or the process died before it wrote that the volume is gone. One that
// is attached is somebody's all the same, and stays.
func (b *Backend) deleteLost(ctx context.Context, p *pool, dir string) error {
	v, err := p.volume(dir)
	if err != nil || v.meta.Ephemeral == "" {
		return err
	}
	b.log.Warn("delete an ephemeral volume that no record speaks of", "id", v.id, "pod", v.meta.Ephemeral)
	return b.deleteDir(ctx, p, dir)
}
