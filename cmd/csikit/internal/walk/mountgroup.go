package walk

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// walkGroup is a group that nothing has.
const walkGroup = 61617

func (w *Walk) noMountGroup() string {
	switch {
	case !w.can.node[csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP]:
		return notAdvertised("VOLUME_MOUNT_GROUP")
	case w.o.Block:
		return "not walked: a raw block volume has no group"
	}
	return ""
}

// mountGroup: a pod of the group can write.
func (w *Walk) mountGroup(ctx context.Context) error {
	v := w.newVolume("grouped")
	v.gid = fmt.Sprint(walkGroup)
	return steps(ctx, v.create, v.up, v.belongs, v.writes("what it had"), v.compareAll, v.down, v.delete)
}

func (v *Volume) belongs(context.Context) error {
	if !v.seen[pod1] {
		return nil
	}
	gid, mode, err := groupOf(v.path(pod1))
	if err != nil {
		return err
	}
	v.See("group %d, %v", gid, mode)
	if gid != walkGroup || mode.Perm()&0o070 != 0o070 {
		return fmt.Errorf("the volume was published for group %d, and belongs to %d with %v", walkGroup, gid, mode)
	}
	return nil
}
