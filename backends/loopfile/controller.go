package loopfile

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit"
	"github.com/csikit/csikit/backends/internal/luks"
)

const (
	paramType      = "type"
	paramBlockSize = "blockSize"

	sizeStep = 4096 // a whole number of blocks of either size
)

// VolumeID is pure once the pool's name is known.
func (b *Backend) VolumeID(req backends.CreateVolumeRequest) (string, error) {
	name, err := b.poolName()
	if err != nil {
		return "", err
	}
	return makeID(name, dirOf(req.Name)), nil
}

// Volume looks a volume up by ID.
func (b *Backend) Volume(_ context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
	p, done, err := b.enter(0)
	if err != nil {
		return nil, err
	}
	defer done()
	dir, err := p.decode(req.ID)
	if err != nil {
		return nil, err
	}
	v, err := p.volume(dir)
	if err != nil {
		return nil, err
	}
	return b.public(v), nil
}

// FindVolume looks a volume up by name. A half-made one is in .tmp, and found by
// nobody.
func (b *Backend) FindVolume(_ context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	p, done, err := b.enter(0)
	if err != nil {
		return nil, err
	}
	defer done()
	v, err := p.volume(dirOf(req.Name))
	if errors.Is(err, backends.ErrNotFound) {
		return nil, backends.VolumeNotFound(req.Name)
	}
	if err != nil {
		return nil, err
	}
	if v.meta.Name != req.Name {
		return nil, fmt.Errorf("%w: %s is volume %q", backends.ErrIncompatible, v.path(""), v.meta.Name)
	}
	return b.public(v), nil
}

// CheckVolume refuses parameters that are not known and sizes that mkfs would refuse.
func (b *Backend) CheckVolume(_ context.Context, req backends.CheckVolumeRequest) error {
	m, err := b.params(req.Parameters, req.Mutable)
	if err != nil {
		return err
	}
	return luks.CheckSizes(req, m.encrypted())
}

// params are the parameters of a volume, with defaults.
func (b *Backend) params(params, mutable map[string]string) (m meta, err error) {
	m = meta{Type: defaultType(b.o.Thin), BlockSize: 512}
	if m.Mutable, err = b.mutable(params, mutable); err != nil {
		return m, err
	}
	for k, v := range params {
		if _, ok := m.Mutable[k]; ok {
			continue
		}
		switch k {
		case paramType:
			if v != typeThick && v != typeThin {
				return m, fmt.Errorf("%w: parameter type %q: want %s or %s", backends.ErrInvalid, v, typeThick, typeThin)
			}
			m.Type = v
		case paramBlockSize:
			if v != "512" && v != "4096" {
				return m, fmt.Errorf("%w: parameter blockSize %q: want 512 or 4096", backends.ErrInvalid, v)
			}
			n, err := strconv.ParseUint(v, 10, 32)
			if err != nil {
				return m, fmt.Errorf("%w: parameter blockSize: %w", backends.ErrInvalid, err)
			}
			m.BlockSize = uint32(n)
		case luks.Param:
			if _, err := luks.Parse(v); err != nil {
				return m, err
			}
		default:
			return m, fmt.Errorf("%w: parameter %q is not known", backends.ErrInvalid, k)
		}
	}
	m.Parameters = params
	return m, nil
}

// mutable are the limits of a new volume: what the mutable parameters say goes
// before what the others do.
func (b *Backend) mutable(params, mutable map[string]string) (map[string]string, error) {
	all := map[string]string{}
	for k, v := range params {
		if b.o.Cgroup != "" && iolimit.Is(k) {
			all[k] = v
		}
	}
	for k, v := range mutable {
		if b.o.Cgroup == "" {
			return nil, fmt.Errorf("%w: parameter %q is not mutable", backends.ErrInvalid, k)
		}
		all[k] = v
	}
	_, err := iolimit.Parse(all)
	return all, err
}

// newMeta is the meta of a volume that is to be made.
func (b *Backend) newMeta(p *pool, req backends.CreateVolumeRequest) (*meta, error) {
	if err := checkName("volume", req.Name); err != nil {
		return nil, err
	}
	if !req.Topology.Permits(b.segments()) {
		return nil, fmt.Errorf("%w: volumes of this pool are on node %s alone", backends.ErrNoSpace, b.o.Node)
	}
	m, err := b.params(req.Parameters, req.Mutable)
	if err != nil {
		return nil, err
	}
	if err := b.canLimit(m.Mutable); err != nil {
		return nil, err
	}
	size := req.Size
	if size == 0 {
		size = Traits(b.o).SizeDefault
	}
	if size < 0 || size > maxSize {
		return nil, fmt.Errorf("%w: %d bytes", backends.ErrOutOfRange, size)
	}
	size = roundUp(size)
	if l := req.Range.Limit; l > 0 && size > l {
		return nil, fmt.Errorf("%w: volumes are multiples of %d bytes, and %d is above the limit %d", backends.ErrOutOfRange, sizeStep, size, l)
	}
	m.Version, m.Name, m.Size, m.Fingerprint = m.version(), req.Name, size, req.Fingerprint
	m.ID = makeID(p.info.Name, dirOf(req.Name))
	m.Format = backends.FormatNever.String()
	return &m, nil
}

// maxSize keeps sums of sizes far from overflowing.
const maxSize = 1 << 60

func roundUp(n int64) int64 { return (n + sizeStep - 1) / sizeStep * sizeStep }
