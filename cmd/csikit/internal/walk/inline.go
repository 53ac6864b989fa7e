package walk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

func (w *Walk) noInline() string {
	switch {
	case w.o.Inline == nil:
		return "not walked: CSI has no capability for it (-inline)"
	case w.o.Block:
		return "not walked: a pod's inline volume is a file system"
	}
	return ""
}

// inline walks volumes that are made by NodePublishVolume and deleted by
// NodeUnpublishVolume.
func (w *Walk) inline(ctx context.Context) error {
	a, b := w.newInline("web-1"), w.newInline("web-2")
	if err := steps(ctx, a.publishInline("a volume of pod web-1 alone"), a.empty, a.writes("what web-1 wrote"),
		a.publishInline("again: the same call"), a.compareAll, a.stats,
		b.publishInline("another one, of pod web-2"), b.empty, b.writes("what web-2 wrote"), a.compareAll,
		b.unpublishAll, b.noMounts, a.compareAll, a.unpublishAll, a.noMounts,
		// The same pod once more is another volume.
		a.publishInline("once more: what was there is gone"), a.empty, a.unpublishAll, a.noMounts); err != nil {
		return err
	}
	for _, v := range []*Volume{a, b} {
		if err := v.removeDirs(); err != nil {
			return err
		}
		v.forget(v)
	}
	return nil
}

// newInline is a volume with the ID that kubelet gives it.
func (w *Walk) newInline(pod string) *Volume {
	v := w.newVolume(pod)
	v.vol = &csi.Volume{VolumeId: fmt.Sprintf("csi-%x", sha256.Sum256([]byte(v.name)))}
	return v
}

// publishInline publishes as kubelet does.
func (v *Volume) publishInline(what string) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := os.MkdirAll(v.dir(), 0o750); err != nil {
			return err
		}
		attributes := maps.Clone(v.o.Inline)
		maps.Copy(attributes, map[string]string{
			"csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/pod.name": v.alias, "csi.storage.k8s.io/pod.namespace": "csikit-walk",
			"csi.storage.k8s.io/pod.uid": v.name, "csi.storage.k8s.io/serviceAccount.name": "default",
		})
		v.published = []string{pod1}
		c := v.capability()
		c.AccessMode.Mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
		_, err := call(ctx, v.Walk, "NodePublishVolume", v.label(what), v.node.NodePublishVolume, &csi.NodePublishVolumeRequest{
			VolumeId: v.id(), TargetPath: v.path(pod1), VolumeCapability: c, VolumeContext: attributes, Secrets: v.o.Secrets,
		})
		if err != nil {
			return err
		}
		return v.lookAt(pod1)
	}
}

// empty: a pod does not get what another one, or an earlier one, had.
func (v *Volume) empty(context.Context) error {
	if !v.seen[pod1] {
		return nil
	}
	if _, err := os.Lstat(v.file(pod1)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the inline volume of pod %s is not new: there is data of another one (%w)", v.alias, err)
	}
	v.has = nil
	return nil
}
