package mounter_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// sharedRig has a second volume "w" on the disk of "v", each with an identity that
// is true.
func sharedRig(t *testing.T) (r *rig, w mounter.StageRequest) {
	r = newRig(t, nil)
	d := *r.node.sources["v"].Device
	r.node.sources["w"] = &backends.Source{Device: &d}
	w = r.stageRequest()
	w.ID, w.Path = "w", r.staging+"-w"
	return r, w
}

// TestDeviceOfAnotherVolume: what one volume has staged is neither formatted nor
// opened for another one, nor taken away when that one is closed.
func TestDeviceOfAnotherVolume(t *testing.T) {
	block := backends.Capability{Mode: backends.SingleNodeWriter, Block: true}
	files := backends.Capability{Mode: backends.SingleNodeWriter, FSType: "ext4"}
	for name, c := range map[string]struct{ v, w backends.Capability }{
		"block, then ext4":  {block, files},
		"block, then block": {block, block},
		"ext4, then block":  {files, block},
		"ext4, then ext4":   {files, files},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			r, w := sharedRig(t)
			v := r.stageRequest()
			v.Capability, w.Capability = c.v, c.w
			must(t, r.Stage(ctx, v))
			r.Kernel.ClearLog()
			for range 2 {
				err := r.Stage(ctx, w)
				wantKind(t, err, backends.ErrInUse)
				wantKind(t, err, backends.ErrUnavailable) // w is open, and stays so
				for _, want := range []string{"/dev/a", `"v"`, r.staging} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("the refusal does not say %s: %v", want, err)
					}
				}
			}
			if log := r.Kernel.Log(); len(log) != 0 {
				t.Errorf("done all the same: %v", log)
			}
			unstage := mounter.UnstageRequest{ID: "w", Path: w.Path}
			wantKind(t, r.Unstage(ctx, unstage), backends.ErrUnavailable)
			if slices.Contains(r.node.log(), "close w") {
				t.Error("the disk was closed under its user")
			}
			must(t, r.Restart())
			must(t, r.Stage(ctx, v)) // w claims nothing
			r.unstage()
			must(t, r.Unstage(ctx, unstage))
			r.clean()
			must(t, r.Stage(ctx, w))
		})
	}
}

// TestDeviceOfALostStage: a raw block volume whose stage record was lost still has
// its target.
func TestDeviceOfALostStage(t *testing.T) {
	ctx := t.Context()
	r, w := sharedRig(t)
	v, pub := r.stageRequest(), r.publishRequest()
	v.Capability.Block, pub.Capability.Block = true, true
	must(t, r.Stage(ctx, v))
	must(t, r.Publish(ctx, pub))
	must(t, r.Close())
	files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", "stage-*.json"))
	must(t, err)
	for _, f := range files {
		must(t, os.Remove(f))
	}
	must(t, r.Restart())
	wantKind(t, r.Stage(ctx, w), backends.ErrInUse)
	if r.mkfs() != 0 {
		t.Error("formatted under a pod")
	}
	r.unpublish()
	must(t, r.Stage(ctx, w))
}

// TestDeviceReplaced: the number of a disk that is gone may come to mean another
// disk.
func TestDeviceReplaced(t *testing.T) {
	r, w := sharedRig(t)
	v := r.stageRequest()
	v.Capability.Block = true
	must(t, r.Stage(t.Context(), v))
	r.disk.Replace(backends.Identity{Serial: "A"})
	must(t, r.Stage(t.Context(), w))
}

// TestTwoVolumesOnOneDevice: an older engine staged both. Each can go, and the one
// that goes first is closed when it does not take the disk from the other.
func TestTwoVolumesOnOneDevice(t *testing.T) {
	for _, first := range []string{"v", "w"} {
		t.Run(first+" first", func(t *testing.T) {
			ctx := t.Context()
			r, w := sharedRig(t)
			r.stage()
			must(t, os.Mkdir(w.Path, 0o700))
			must(t, r.Kernel.Bind(r.staging, w.Path, mntBind()))
			copyStageRecord(t, r, w)
			unstage := map[string]mounter.UnstageRequest{"v": r.unstageRequest(), "w": {ID: "w", Path: w.Path}}
			last := map[string]string{"v": "w", "w": "v"}[first]

			wantKind(t, r.Unstage(ctx, unstage[first]), backends.ErrUnavailable)
			if r.mountsAt(unstage[first].Path) != 0 || r.mountsAt(unstage[last].Path) != 1 {
				t.Errorf("mounts %v", r.Kernel.Mounts())
			}
			if slices.Contains(r.node.log(), "close "+first) {
				t.Error("the disk was closed under a mount")
			}
			must(t, r.Unstage(ctx, unstage[last]))
			must(t, r.Unstage(ctx, unstage[first]))
			r.clean()
		})
	}
}

// copyStageRecord gives w the stage record of "v".
func copyStageRecord(t *testing.T, r *rig, w mounter.StageRequest) {
	t.Helper()
	// A stage that cannot open anything leaves a file of the right name.
	r.node.failOnce("open", backends.ErrUnavailable)
	r.Kernel.UnmountForeign(w.Path)
	wantKind(t, r.Stage(t.Context(), w), backends.ErrUnavailable)
	must(t, r.Kernel.Bind(r.staging, w.Path, mntBind()))
	must(t, r.Close())
	files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", "stage-*.json"))
	must(t, err)
	var text []byte
	var to string
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		if bytes.Contains(b, []byte(`"volume": "v"`)) {
			text = b
		} else {
			to = f
		}
	}
	text = bytes.ReplaceAll(text, []byte(`"volume": "v"`), []byte(`"volume": "w"`))
	text = bytes.ReplaceAll(text, []byte(r.staging), []byte(w.Path))
	must(t, os.WriteFile(to, text, 0o600))
	must(t, r.Restart())
}
