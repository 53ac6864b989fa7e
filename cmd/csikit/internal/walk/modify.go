package walk

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

func (w *Walk) noModify() string {
	switch {
	case !w.can.controller[csi.ControllerServiceCapability_RPC_MODIFY_VOLUME]:
		return notAdvertised("MODIFY_VOLUME")
	case len(w.o.Mutable) == 0:
		return "not walked: what is to be modified? (-mutable-parameters)"
	}
	return ""
}

// modify modifies a volume in use, twice, and looks after its data.
func (w *Walk) modify(ctx context.Context) error {
	v := w.newVolume("modified")
	return steps(ctx, v.create, v.up, v.writes("what it had before"),
		v.modifyStep("while it is in use"), v.modifyStep("again: the same call"), v.compareAll, v.down, v.delete)
}

func (v *Volume) modifyStep(what string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := call(ctx, v.Walk, "ControllerModifyVolume", v.label(what), v.controller.ControllerModifyVolume,
			&csi.ControllerModifyVolumeRequest{VolumeId: v.id(), MutableParameters: v.o.Mutable, Secrets: v.o.Secrets})
		return err
	}
}
