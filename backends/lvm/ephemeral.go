package lvm

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit"
	"github.com/csikit/csikit/backends/internal/luks"
)

// paramSize is how big a pod wants its inline volume.
const paramSize = "size"

// podName is the name of a pod's volume. It follows from the CO's ID, so that the
// volume is found when the process died before anybody knew its own ID; no name that
// a CO gives has a NUL in it.
func podName(id string) string { return "ephemeral\x00" + id }

// FilterNode takes back what Options do not ask for.
func (b *Backend) FilterNode(f *backends.NodeFeatures) {
	if b.o.EphemeralMax == 0 {
		f.EphemeralProvisioner = nil
	}
	if b.o.MaxVolumes == 0 {
		f.AttachLimiter = nil
	}
	if b.o.Cgroup == "" {
		f.NodeHealthChecker = nil
	}
}

// MaxVolumes is how many volumes the CO may bring here.
func (b *Backend) MaxVolumes(context.Context) (int64, error) { return b.o.MaxVolumes, nil }

// CreateEphemeral makes a volume of a pod's own, in the node's process, or finds
// the one that it made.
func (b *Backend) CreateEphemeral(ctx context.Context, req backends.CreateEphemeralRequest) (*backends.Volume, error) {
	if err := b.serves(NodeHalf); err != nil {
		return nil, err
	}
	p, err := b.planPod(req)
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		g, err := b.peek(ctx, p.c)
		if err != nil {
			return nil, err
		}
		v, err := g.find(p.c.Name, p.lv())
		if err != nil {
			return nil, err
		}
		if v != nil && v.own.State == stateReady {
			err := b.vouch(ctx, p.c, v)
			if err == nil {
				return b.samePod(v, p)
			}
			if !errors.Is(err, backends.ErrNotFound) || try > 0 {
				return nil, err
			}
		}
		made, err := b.make(ctx, p)
		switch {
		case err == nil:
			return b.public(made), nil
		case !errors.Is(err, backends.ErrExists) || try > 0:
			return nil, err
		}
	}
}

// samePod refuses a volume that the same pod had with other parameters.
func (b *Backend) samePod(v *volume, p *plan) (*backends.Volume, error) {
	extents, err := extentsFor(v.g, p.c, p.size, 0)
	if err != nil {
		return nil, err
	}
	if v.own.Pod != p.m.Pod || v.size != extents*v.g.extent || v.own.Encrypted != p.m.Encrypted || !maps.Equal(publicMutable(v.own), p.m.Mutable) {
		return nil, fmt.Errorf("%w: ephemeral volume %q has other parameters", backends.ErrIncompatible, p.m.Pod)
	}
	return b.public(v), nil
}

// planPod checks what the pod asks for: whoever may make a pod wrote it.
func (b *Backend) planPod(req backends.CreateEphemeralRequest) (*plan, error) {
	params := map[string]string{}
	size := min(Traits(b.o).SizeDefault, b.o.EphemeralMax)
	for k, v := range req.Parameters {
		if k != paramSize {
			params[k] = v
			continue
		}
		n, err := iolimit.Bytes(v)
		if err != nil || n == 0 || n > maxSize {
			return nil, fmt.Errorf("%w: parameter size %q: want bytes, or a number with Ki, Mi, Gi or Ti", backends.ErrInvalid, v)
		}
		size = int64(n) //nolint:gosec // at most maxSize
	}
	p, err := b.plan(backends.CreateVolumeRequest{Name: podName(req.ID), Size: size, Parameters: params})
	if err != nil {
		return nil, err
	}
	if least := max(Traits(b.o).SizeMin, luks.LeastSize(req.Capability, p.m.Encrypted)); size < least || size > b.o.EphemeralMax {
		return nil, fmt.Errorf("%w: an inline volume of %d bytes: want %d to %d", backends.ErrInvalid, size, least, b.o.EphemeralMax)
	}
	p.m.Pod = req.ID
	return p, nil
}

// DeleteEphemeral deletes a pod's volume, which is closed by now. When its own ID is
// not known, it is looked for in every class.
func (b *Backend) DeleteEphemeral(ctx context.Context, req backends.DeleteEphemeralRequest) error {
	if err := b.serves(NodeHalf); err != nil {
		return err
	}
	if req.VolumeID != "" {
		if _, _, err := b.locate(req.VolumeID, kindVolume); gone(err) != nil {
			return err
		}
	}
	lv := nameOf(kindVolume, podName(req.ID))
	for _, c := range b.order {
		id := makeID(c.Name, lv)
		if req.VolumeID != "" && req.VolumeID != id {
			continue
		}
		if err := b.delete(ctx, id, kindVolume); err != nil && !errors.Is(err, backends.ErrNotFound) {
			return err
		}
	}
	return nil
}

// recoverPod deletes a pod's volume that no record speaks of: the node's records
// were lost, or the process died before it wrote that the volume is gone. One that
// somebody uses stays.
func (b *Backend) recoverPod(ctx context.Context, v *volume) {
	b.log.Warn("delete an inline volume that no record speaks of", "id", v.id(), "pod", v.own.Pod)
	if err := b.delete(ctx, v.id(), kindVolume); err != nil && !errors.Is(err, backends.ErrNotFound) {
		b.log.Warn("inline volume is left", "id", v.id(), "err", err)
	}
}
