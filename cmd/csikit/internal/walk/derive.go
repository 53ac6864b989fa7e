package walk

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// derive makes a volume of a snapshot or of another volume, perhaps a bigger one,
// looks whether it has what it should and whether writing to either is nothing
// to the other, expands it, and deletes it.
func (w *Walk) derive(ctx context.Context, alias string, size int64, from *csi.VolumeContentSource, has *content, source *Volume) error {
	v := w.newVolume(alias)
	v.source = from
	if v.ask > 0 {
		v.ask, v.size = size, size
	}
	return steps(ctx, v.create,
		func(context.Context) error { v.has = has; return nil },
		v.up, v.compareAll, v.sizeStep,
		source.writes("what was written to the source after "+alias+" was made"), v.compareAll,
		v.writes("what was written to "+alias), source.compareAll, v.compareAll,
		v.expandDerived, v.compareAll, v.down, v.delete,
	)
}

func (v *Volume) sizeStep(context.Context) error { return v.seeSize(pod1) }

// expandDerived expands a copy once more: while it is in use, if the driver can.
func (v *Volume) expandDerived(ctx context.Context) error {
	switch {
	case !v.expandable():
		return nil
	case v.offline():
		if err := steps(ctx, v.down, v.controllerExpand, v.up); err != nil {
			return err
		}
	default:
		if err := v.expandOnline(ctx); err != nil {
			return err
		}
		if !v.grow {
			return nil
		}
		if err := steps(ctx, v.down, v.up); err != nil {
			return err
		}
	}
	if err := v.nodeExpand(ctx, "what it could not while it was in use"); err != nil {
		return err
	}
	return v.seeSize(pod1)
}

// clone: as a restored volume, and the source is another volume.
func (w *Walk) clone(ctx context.Context) error {
	source := w.newVolume("source")
	if err := steps(ctx, source.create, source.up, source.writes("what the source had")); err != nil {
		return err
	}
	from := &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: source.id()},
	}}
	if err := w.derive(ctx, "clone", 2*source.size, from, source.has, source); err != nil {
		return err
	}
	return steps(ctx, source.down, source.delete)
}
