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
func (w *Walk) Publish(ctx context.Context, pod, what string) error {
	return w.publish(ctx, pod, what, false)
}

func (w *Walk) publish(ctx context.Context, pod, what string, readOnly bool) error {
	if !slices.Contains(w.published, pod) {
		w.published = append(w.published, pod)
	}
	staging := w.stagingPath()
	if staging == "" && w.o.Block {
		staging = w.path("staging") // kubelet sends it for block volumes always
	}
	_, err := call(ctx, w, "NodePublishVolume", what, w.node.NodePublishVolume, &csi.NodePublishVolumeRequest{
		VolumeId: w.id(), StagingTargetPath: staging, TargetPath: w.path(pod), VolumeCapability: w.capability(), Readonly: readOnly,
		VolumeContext: w.vol.GetVolumeContext(), PublishContext: w.attach, Secrets: w.o.Secrets,
	})
	if err != nil {
		return err
	}
	return w.lookAt(pod)
}

func (w *Walk) publishAndWrite(ctx context.Context) error {
	if err := w.publish(ctx, pod1, "for pod-1", false); err != nil {
		return err
	}
	return w.write(pod1)
}

func (w *Walk) publishTwice(ctx context.Context) error {
	if err := w.publish(ctx, pod1, "again for pod-1: the same call", false); err != nil {
		return err
	}
	if !w.can.multiWriter() {
		w.See("one pod at a time: the driver does not say SINGLE_NODE_MULTI_WRITER")
		return nil
	}
	if err := w.publish(ctx, pod2, "for pod-2, a second pod on this node", false); err != nil {
		return err
	}
	return w.Compare(pod2)
}

// publishReadOnly is not for raw block, of which a device has one flag for all.
func (w *Walk) publishReadOnly(ctx context.Context) error {
	if w.o.Block || !w.can.multiWriter() {
		return nil
	}
	if err := w.publish(ctx, podRO, "for pod-ro, read-only", true); err != nil {
		return err
	}
	if err := w.refusesWrites(podRO); err != nil {
		return err
	}
	return w.Compare(podRO)
}

// publishAgain: another pod finds the data, and the size.
func (w *Walk) publishAgain(ctx context.Context) error {
	if err := w.publish(ctx, pod1, "for pod-1", false); err != nil {
		return err
	}
	if err := w.nodeExpand(ctx, "what it could not while it was in use"); err != nil {
		return err
	}
	if err := w.Compare(pod1); err != nil {
		return err
	}
	return w.seeSize(pod1)
}

func (w *Walk) unpublishAll(ctx context.Context) error {
	for len(w.published) > 0 {
		pod := w.published[0]
		if err := w.unpublish(ctx, pod); err != nil {
			return err
		}
		if _, err := os.Lstat(w.path(pod)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("after unpublish, %s is still there (%w)", w.path(pod), err)
		}
	}
	return nil
}

// unpublish is for the first of the published pods.
func (w *Walk) unpublish(ctx context.Context, pod string) error {
	_, err := call(ctx, w, "NodeUnpublishVolume", pod, w.node.NodeUnpublishVolume,
		&csi.NodeUnpublishVolumeRequest{VolumeId: w.id(), TargetPath: w.path(pod)})
	if err != nil {
		return err
	}
	w.published = w.published[1:]
	return nil
}
