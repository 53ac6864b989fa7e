package mounter_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// lostState is a raw block volume, published read-only, whose records are lost.
func lostState(t *testing.T) (r *rig, stage mounter.StageRequest, pub mounter.PublishRequest) {
	t.Helper()
	r = newRig(t, nil)
	stage, pub = r.stageRequest(), r.publishRequest()
	stage.Capability = backends.Capability{Mode: backends.SingleNodeWriter, Block: true}
	pub.Capability, pub.ReadOnly = stage.Capability, true
	must(t, r.Stage(t.Context(), stage))
	must(t, r.Publish(t.Context(), pub))
	if !r.disk.IsReadOnly() {
		t.Fatal("not read-only")
	}
	files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", "*.json"))
	must(t, err)
	for _, f := range files {
		must(t, os.Remove(f))
	}
	must(t, r.Restart())
	return r, stage, pub
}

// TestReadOnlyFlagOfLostRecord: the engine's own flag on a device is not taken for
// the device's because the records were lost.
func TestReadOnlyFlagOfLostRecord(t *testing.T) {
	t.Run("staged again", func(t *testing.T) {
		r, stage, pub := lostState(t)
		must(t, r.Stage(t.Context(), stage))
		must(t, r.Publish(t.Context(), pub))
		r.unpublish()
		if r.disk.IsReadOnly() {
			t.Error("still read-only")
		}
		pub.ReadOnly = false
		must(t, r.Publish(t.Context(), pub))
		r.unpublish()
		r.unstage()
		r.clean()
	})
	t.Run("unpublished", func(t *testing.T) {
		r, stage, pub := lostState(t)
		r.unpublish()
		if r.disk.IsReadOnly() {
			t.Error("still read-only")
		}
		must(t, r.Stage(t.Context(), stage))
		pub.ReadOnly = false
		must(t, r.Publish(t.Context(), pub))
		r.unpublish()
		r.unstage()
		r.clean()
	})
	t.Run("published writable", func(t *testing.T) {
		r, stage, pub := lostState(t)
		must(t, r.Stage(t.Context(), stage))
		second := pub
		second.Path, second.ReadOnly = pub.Path+"-2", false
		wantKind(t, r.Publish(t.Context(), second), backends.ErrPrecondition)
		if !r.disk.IsReadOnly() {
			t.Error("writable while it is published read-only")
		}
		r.unpublish()
		must(t, r.Publish(t.Context(), second))
		must(t, r.Unpublish(t.Context(), mounter.UnpublishRequest{ID: "v", Path: second.Path}))
		r.unstage()
		r.clean()
	})
	t.Run("read-only by itself", func(t *testing.T) {
		r := newRig(t, nil)
		r.disk.SetReadOnly(true)
		stage, pub := r.stageRequest(), r.publishRequest()
		stage.Capability = backends.Capability{Mode: backends.SingleNodeWriter, Block: true}
		pub.Capability = stage.Capability
		must(t, r.Stage(t.Context(), stage))
		wantKind(t, r.Publish(t.Context(), pub), backends.ErrPrecondition)
		pub.ReadOnly = true
		must(t, r.Publish(t.Context(), pub))
		r.unpublish()
		if !r.disk.IsReadOnly() {
			t.Error("made writable")
		}
		r.unstage()
	})
}
