package walk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// The pods that get the volume.
const (
	pod1  = "pod-1"
	pod2  = "pod-2"
	podRO = "pod-ro"
)

// Publish publishes the volume for a pod, once more if it has it already, and
// looks.
func (v *Volume) Publish(ctx context.Context, pod, what string) error {
	return v.publish(ctx, pod, what, false)
}

func (v *Volume) publish(ctx context.Context, pod, what string, readOnly bool) error {
	if !slices.Contains(v.published, pod) {
		v.published = append(v.published, pod)
	}
	staging := v.stagingPath()
	if staging == "" && v.block {
		staging = v.path("staging") // kubelet sends it for block volumes always
	}
	_, err := call(ctx, v.Walk, "NodePublishVolume", v.label(what), v.node.NodePublishVolume, &csi.NodePublishVolumeRequest{
		VolumeId: v.id(), StagingTargetPath: staging, TargetPath: v.path(pod), VolumeCapability: v.capability(), Readonly: readOnly,
		VolumeContext: v.vol.GetVolumeContext(), PublishContext: v.attach, Secrets: v.o.Secrets,
	})
	if err != nil {
		return err
	}
	return v.lookAt(pod)
}

func (v *Volume) publishFirst(ctx context.Context) error {
	return v.publish(ctx, pod1, "for pod-1", false)
}

func (v *Volume) publishAndWrite(ctx context.Context) error {
	if err := v.publishFirst(ctx); err != nil {
		return err
	}
	return v.write("what pod-1 wrote")
}

func (v *Volume) publishTwice(ctx context.Context) error {
	if err := v.publish(ctx, pod1, "again for pod-1: the same call", false); err != nil {
		return err
	}
	if !v.can.multiWriter() {
		v.See("one pod at a time: the driver does not say SINGLE_NODE_MULTI_WRITER")
		return nil
	}
	if err := v.publish(ctx, pod2, "for pod-2, a second pod on this node", false); err != nil {
		return err
	}
	return v.Compare(pod2)
}

// publishReadOnly is beside others that write, and so not for raw block, of which
// a device has one flag for all.
func (v *Volume) publishReadOnly(ctx context.Context) error {
	if v.block || !v.can.multiWriter() {
		return nil
	}
	return v.publishReader(ctx)
}

func (v *Volume) publishReader(ctx context.Context) error {
	if err := v.publish(ctx, podRO, "for pod-ro, read-only", true); err != nil {
		return err
	}
	if err := v.refusesWrites(podRO); err != nil {
		return err
	}
	return v.Compare(podRO)
}

// publishOnlyReader: nobody but a reader has the volume. The next publish is to
// write again.
func (v *Volume) publishOnlyReader(ctx context.Context) error {
	return steps(ctx, v.publishReader, v.unpublishAll)
}

// publishAgain: another pod finds the data, and the size, and can write.
func (v *Volume) publishAgain(ctx context.Context) error {
	if err := v.publishFirst(ctx); err != nil {
		return err
	}
	if err := v.nodeExpand(ctx, "what it could not while it was in use"); err != nil {
		return err
	}
	if err := v.Compare(pod1); err != nil {
		return err
	}
	if err := v.seeSize(pod1); err != nil {
		return err
	}
	return v.write("what pod-1 wrote in the second life")
}

func (v *Volume) unpublishAll(ctx context.Context) error {
	for len(v.published) > 0 {
		pod := v.published[0]
		if err := v.unpublish(ctx, pod); err != nil {
			return err
		}
		if _, err := os.Lstat(v.path(pod)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("after unpublish, %s is still there (%w)", v.path(pod), err)
		}
	}
	return nil
}

// unpublish is for the first of the published pods.
func (v *Volume) unpublish(ctx context.Context, pod string) error {
	_, err := call(ctx, v.Walk, "NodeUnpublishVolume", v.label(pod), v.node.NodeUnpublishVolume,
		&csi.NodeUnpublishVolumeRequest{VolumeId: v.id(), TargetPath: v.path(pod)})
	if err != nil {
		return err
	}
	v.published = v.published[1:]
	return nil
}
