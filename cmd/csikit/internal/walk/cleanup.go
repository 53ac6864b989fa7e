package walk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// object is something that was made and is to be taken back.
type object interface {
	// takeBack takes back what was not, in order. A step that fails ends it: what
	// may be in use is not taken away from below.
	takeBack(ctx context.Context) error
	left() []string // names what is there
}

func (w *Walk) forget(o object) {
	w.made = slices.DeleteFunc(w.made, func(m object) bool { return m == o })
}

// cleanUp takes back what was not: the latest first, for that may hold on to the
// earlier. What is left is named.
func (w *Walk) cleanUp(ctx context.Context) error {
	if len(w.made) == 0 {
		return nil
	}
	if len(w.left()) > 0 {
		w.Section("taking back what was done")
	}
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, o := range slices.Backward(slices.Clone(w.made)) {
		err := o.takeBack(ctx)
		if err == nil {
			w.forget(o)
			continue
		}
		errs = append(errs, err)
		if gone(err) {
			break // it would not answer for the others either
		}
	}
	if left := w.left(); len(left) > 0 {
		text := "left behind: " + strings.Join(left, "; ")
		w.See("%s", text)
		errs = append(errs, errors.New(text))
	}
	return errors.Join(errs...)
}

func (w *Walk) left() []string {
	var left []string
	for _, o := range w.made {
		left = append(left, o.left()...)
	}
	return left
}

func (v *Volume) takeBack(ctx context.Context) error {
	for len(v.published) > 0 {
		if err := v.unpublish(ctx, v.published[0]); err != nil {
			return errors.Join(err, v.removeDirs())
		}
	}
	for _, step := range []func(context.Context) error{v.unstage, v.noMounts, v.controllerUnpublish, v.resolve} {
		if err := step(ctx); err != nil {
			return errors.Join(err, v.removeDirs())
		}
	}
	for len(v.ids) > 0 {
		if err := v.deleteVolume(ctx, v.ids[0], ""); err != nil {
			return errors.Join(err, v.removeDirs())
		}
	}
	return v.removeDirs()
}

// noMounts: the driver said that all are gone.
func (v *Volume) noMounts(context.Context) error {
	mounts, err := MountsBelow(v.dir())
	if err != nil || len(mounts) > 0 {
		return fmt.Errorf("%d mounts are left: %v (%w)", len(mounts), mounts, err)
	}
	return nil
}

// left names what was done and not taken back.
func (v *Volume) left() []string {
	var left []string
	for _, pod := range v.published {
		left = append(left, "published at "+v.path(pod))
	}
	if v.staged {
		left = append(left, "staged at "+v.path("staging"))
	}
	if v.attached {
		left = append(left, "attached to node "+v.info.GetNodeId())
	}
	for _, id := range v.ids {
		left = append(left, "volume "+id)
	}
	if v.doubt != nil {
		left = append(left, "perhaps a volume called "+v.doubt.GetName())
	}
	return left
}

// removeDirs removes the directories that the CO makes, and the CO is us. It
// removes no file and looks into no directory: they may be the volume's.
func (v *Volume) removeDirs() error {
	for _, name := range []string{"staging", pod1, pod2, podRO, ""} {
		_ = os.Remove(v.path(name)) // it is not there; or not empty, or a mount, which the last one tells
	}
	if _, err := os.Lstat(v.dir()); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("something is left below %s (%w)", v.dir(), err)
	}
	return nil
}
