package walk

import "context"

// life is the life of a volume.
func (w *Walk) life(ctx context.Context) error {
	v := w.newVolume("")
	return steps(ctx,
		v.create, v.validate, v.list,
		v.controllerPublish, v.stage, v.publishAndWrite, v.publishTwice, v.publishReadOnly,
		v.expandOnline, v.middle, v.compareAll, v.stats, v.health, v.down,
		v.expandOffline, v.again, v.delete,
	)
}

func (v *Volume) middle(ctx context.Context) error {
	if v.o.Published == nil {
		return nil
	}
	return v.o.Published(ctx, v)
}

// again is the volume's second life: the data is there, and so is the size.
func (v *Volume) again(ctx context.Context) error {
	v.Section("the same volume for another pod")
	return steps(ctx, v.controllerPublish, v.stage, v.publishOnlyReader, v.publishAgain, v.down)
}

// up makes the volume ready for pod-1; down takes it from all pods and the node.
func (v *Volume) up(ctx context.Context) error {
	return steps(ctx, v.controllerPublish, v.stage, v.publishFirst)
}

func (v *Volume) down(ctx context.Context) error {
	return steps(ctx, v.unpublishAll, v.unstage, v.noMounts, v.controllerUnpublish)
}
