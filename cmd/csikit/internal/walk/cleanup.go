package walk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// cleanUp takes back what was not, in order. A step that fails ends it: what may
// be in use is not taken away from below. What is left is named.
func (w *Walk) cleanUp(ctx context.Context) error {
	if len(w.left()) == 0 {
		return nil
	}
	w.Section("taking back what was done")
	ctx = context.WithoutCancel(ctx)
	err := w.takeBack(ctx)
	if left := w.left(); len(left) > 0 {
		text := "left behind: " + strings.Join(left, "; ")
		w.See("%s", text)
		return errors.Join(err, errors.New(text))
	}
	return err
}

func (w *Walk) takeBack(ctx context.Context) error {
	for len(w.published) > 0 {
		if err := w.unpublish(ctx, w.published[0]); err != nil {
			return err
		}
	}
	for _, step := range []func(context.Context) error{w.unstage, w.noMounts, w.controllerUnpublish, w.resolve} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	for len(w.made) > 0 {
		if err := w.deleteVolume(ctx, w.made[0], ""); err != nil {
			return err
		}
	}
	return nil
}

// resolve finds out whether a CreateVolume that ended in doubt made a volume, as
// a CO does: it asks again.
func (w *Walk) resolve(ctx context.Context) error {
	if w.doubt == nil {
		return nil
	}
	resp, err := call(ctx, w, "CreateVolume", "is there one?", w.controller.CreateVolume, w.doubt)
	switch id := resp.GetVolume().GetVolumeId(); {
	case err == nil && id != "":
		w.made = append(w.made, id)
	case err == nil:
		return errors.New("CreateVolume answers OK and no volume_id")
	case !final(err):
		return err
	}
	w.doubt = nil
	return nil
}

// noMounts: the driver said that all are gone.
func (w *Walk) noMounts(context.Context) error {
	mounts, err := MountsBelow(w.dir())
	if err != nil || len(mounts) > 0 {
		return fmt.Errorf("%d mounts are left: %v (%w)", len(mounts), mounts, err)
	}
	return nil
}

// left names what was done and not taken back.
func (w *Walk) left() []string {
	var left []string
	for _, pod := range w.published {
		left = append(left, "published at "+w.path(pod))
	}
	if w.staged {
		left = append(left, "staged at "+w.path("staging"))
	}
	if w.attached {
		left = append(left, "attached to node "+w.info.GetNodeId())
	}
	for _, id := range w.made {
		left = append(left, "volume "+id)
	}
	if w.doubt != nil {
		left = append(left, "perhaps a volume called "+w.doubt.GetName())
	}
	return left
}

func (w *Walk) deleteVolume(ctx context.Context, id, what string) error {
	_, err := call(ctx, w, "DeleteVolume", what, w.controller.DeleteVolume, &csi.DeleteVolumeRequest{VolumeId: id, Secrets: w.o.Secrets})
	if err != nil {
		return err
	}
	w.made = w.made[1:]
	return nil
}

// removeDirs removes the directories that the CO makes, and the CO is us. It
// removes no file and looks into no directory: they may be the volume's.
func (w *Walk) removeDirs() error {
	for _, name := range []string{"staging", pod1, pod2, podRO, ""} {
		_ = os.Remove(w.path(name)) // it is not there; or not empty, or a mount, which the last one tells
	}
	if _, err := os.Lstat(w.dir()); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("something is left below %s (%w)", w.dir(), err)
	}
	return nil
}
