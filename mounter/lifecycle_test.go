package mounter_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
)

func TestLifecycle(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.publish()
	if _, used := r.InUse("v"); !used {
		t.Error("a published volume is not in use")
	}
	st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.target})
	must(t, err)
	if st.Total != gib || st.Block {
		t.Errorf("stats %+v", st)
	}
	r.unpublish()
	if _, err := os.Lstat(r.target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("target is left: %v", err)
	}
	if _, err := os.Lstat(filepath.Dir(r.target)); err != nil {
		t.Errorf("the target's parent is gone: %v", err)
	}
	r.unstage()
	r.clean()
	if got := string(r.node.states["v"]); got != "state of v" {
		t.Errorf("CloseVolume got state %q", got)
	}
	want := []string{"open v", "close v"}
	if got := r.node.log(); !slices.Equal(got, want) {
		t.Errorf("calls %v, want %v", got, want)
	}
}

func TestStageTwiceMountsOnce(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.stage()
	if n := r.mountsAt(r.staging); n != 1 {
		t.Errorf("%d mounts", n)
	}
	if n := r.mkfs(); n != 1 {
		t.Errorf("%d times mkfs", n)
	}
}

func TestStageUnstageStage(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.unstage()
	r.stage()
	if n := r.mountsAt(r.staging); n != 1 {
		t.Errorf("%d mounts after the second stage", n)
	}
	if n := r.mkfs(); n != 1 {
		t.Errorf("%d times mkfs", n)
	}
}

// TestStageLooksAgain: an OK is never answered from memory.
func TestStageLooksAgain(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.Kernel.UnmountForeign(r.staging)
	r.stage()
	if n := r.mountsAt(r.staging); n != 1 {
		t.Errorf("%d mounts", n)
	}
}

func TestPublishTwiceUnpublishOnce(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.publish()
	r.publish()
	if n := r.mountsAt(r.target); n != 1 {
		t.Errorf("%d mounts at the target", n)
	}
	r.unpublish()
	if n := r.mountsAt(r.target); n != 0 {
		t.Errorf("%d mounts at the target after unpublish", n)
	}
	r.unpublish()
	r.unstage()
	r.unstage()
	r.clean()
}

func TestStackedMountsAreUnwound(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.publish()
	must(t, r.Kernel.Bind(r.staging, r.target, mntBind()))
	must(t, r.Kernel.Bind(r.staging, r.staging, mntBind()))
	r.unpublish()
	r.unstage()
	r.clean()
}

func TestForeignMounts(t *testing.T) {
	t.Run("stage", func(t *testing.T) {
		r := newRig(t, nil)
		must(t, os.Mkdir(r.staging, 0o700))
		r.Kernel.MountForeign(r.staging)
		wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
		if r.mountsAt(r.staging) != 1 || r.mkfs() != 0 || r.node.isOpen("v") {
			t.Errorf("mounts %v, log %v", r.Kernel.Mounts(), r.Kernel.Log())
		}
	})
	t.Run("stage again", func(t *testing.T) {
		r := newRig(t, nil)
		r.stage()
		r.Kernel.MountForeign(r.staging)
		wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
		if r.mountsAt(r.staging) != 2 {
			t.Error("stage unmounted something")
		}
	})
	t.Run("unstage", func(t *testing.T) {
		r := newRig(t, nil)
		r.stage()
		r.Kernel.MountForeign(r.staging)
		wantKind(t, r.Unstage(t.Context(), r.unstageRequest()), backends.ErrPrecondition)
		if r.mountsAt(r.staging) != 2 {
			t.Error("unstage unmounted something")
		}
		r.Kernel.UnmountForeign(r.staging)
		r.unstage()
		r.clean()
	})
	t.Run("publish", func(t *testing.T) {
		r := newRig(t, nil)
		r.stage()
		must(t, os.MkdirAll(r.target, 0o700))
		r.Kernel.MountForeign(r.target)
		wantKind(t, r.Publish(t.Context(), r.publishRequest()), backends.ErrPrecondition)
		if r.mountsAt(r.target) != 1 {
			t.Error("publish stacked or unmounted")
		}
	})
	t.Run("without a record", func(t *testing.T) {
		r := newRig(t, nil)
		for _, path := range []string{r.staging, r.target} {
			must(t, os.MkdirAll(path, 0o700))
			r.Kernel.MountForeign(path)
		}
		for what, err := range map[string]error{
			"unstage":   r.Unstage(t.Context(), r.unstageRequest()),
			"unpublish": r.Unpublish(t.Context(), r.unpublishRequest()),
		} {
			if !errors.Is(err, backends.ErrPrecondition) || !strings.Contains(err.Error(), "tmpfs of foreign") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if len(r.Kernel.Mounts()) != 2 {
			t.Errorf("mounts %v", r.Kernel.Mounts())
		}
	})
	t.Run("below a mount without a record", func(t *testing.T) {
		r := newRig(t, nil)
		must(t, os.Mkdir(r.staging, 0o700))
		r.Kernel.MountForeign(r.staging)
		must(t, r.Kernel.Bind(r.dir, r.staging, mntBind()))
		wantKind(t, r.Unstage(t.Context(), r.unstageRequest()), backends.ErrPrecondition)
	})
	t.Run("over the staging path", func(t *testing.T) {
		r := newRig(t, nil)
		r.stage()
		r.Kernel.MountForeign(r.staging)
		wantKind(t, r.Publish(t.Context(), r.publishRequest()), backends.ErrPrecondition)
	})
}

// TestOtherVolumesPath: one volume's calls do not touch another one's paths.
func TestOtherVolumesPath(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.publish()
	ctx := t.Context()
	wantKind(t, r.Unstage(ctx, mounter.UnstageRequest{ID: "w", Path: r.staging}), backends.ErrPrecondition)
	wantKind(t, r.Unpublish(ctx, mounter.UnpublishRequest{ID: "w", Path: r.target}), backends.ErrPrecondition)
	wantKind(t, r.Unpublish(ctx, mounter.UnpublishRequest{ID: "v", Path: r.staging}), backends.ErrPrecondition)
	req := r.stageRequest()
	req.ID = "w"
	wantKind(t, r.Stage(ctx, req), backends.ErrPrecondition)
	if len(r.Kernel.Mounts()) != 2 {
		t.Errorf("mounts %v", r.Kernel.Mounts())
	}
}

func TestUnknownIsFine(t *testing.T) {
	r := newRig(t, nil)
	r.unpublish()
	r.unstage()
	r.clean()
}

func TestPublishNeedsALiveStage(t *testing.T) {
	r := newRig(t, nil)
	wantKind(t, r.Publish(t.Context(), r.publishRequest()), backends.ErrPrecondition)
	r.stage()
	r.Kernel.UnmountForeign(r.staging)
	wantKind(t, r.Publish(t.Context(), r.publishRequest()), backends.ErrPrecondition)
	req := r.publishRequest()
	req.StagingPath = ""
	wantKind(t, r.Publish(t.Context(), req), backends.ErrPrecondition)
	if len(r.Kernel.Mounts()) != 0 {
		t.Errorf("mounts %v", r.Kernel.Mounts())
	}
	if _, err := os.Lstat(r.target); err == nil {
		t.Error("a target was made")
	}
}

func TestUnstageWhilePublished(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.publish()
	wantKind(t, r.Unstage(t.Context(), r.unstageRequest()), backends.ErrInUse)
	// The pod is gone, and so is its mount: what the kernel does not have does
	// not hold the volume.
	r.Kernel.UnmountForeign(r.target)
	r.unstage()
	r.unpublish()
	r.clean()
}

func TestIncompatible(t *testing.T) {
	stage := map[string]func(*mounter.StageRequest){
		"type":  func(q *mounter.StageRequest) { q.Capability.FSType = "xfs" },
		"block": func(q *mounter.StageRequest) { q.Capability.Block = true },
		"mode":  func(q *mounter.StageRequest) { q.Capability.Mode = backends.MultiNodeMultiWriter },
		"ro":    func(q *mounter.StageRequest) { q.Capability.Mode = backends.SingleNodeReader },
		"flags": func(q *mounter.StageRequest) { q.Capability.Flags = backends.NewFlags("noatime") },
		"group": func(q *mounter.StageRequest) { q.Capability.Group = "7" },
	}
	for name, change := range stage {
		t.Run("stage "+name, func(t *testing.T) {
			r := newRig(t, nil)
			r.stage()
			req := r.stageRequest()
			change(&req)
			wantKind(t, r.Stage(t.Context(), req), backends.ErrIncompatible)
			if r.mountsAt(r.staging) != 1 {
				t.Error("the mount was touched")
			}
			r.stage()
		})
	}
	publish := map[string]func(*mounter.PublishRequest){
		"readonly": func(q *mounter.PublishRequest) { q.ReadOnly = true },
		"mode":     func(q *mounter.PublishRequest) { q.Capability.Mode = backends.MultiNodeMultiWriter },
		"flags":    func(q *mounter.PublishRequest) { q.Capability.Flags = backends.NewFlags("noexec") },
	}
	for name, change := range publish {
		t.Run("publish "+name, func(t *testing.T) {
			r := newRig(t, nil)
			r.stage()
			r.publish()
			req := r.publishRequest()
			change(&req)
			wantKind(t, r.Publish(t.Context(), req), backends.ErrIncompatible)
			if r.mountsAt(r.target) != 1 {
				t.Error("the mount was touched")
			}
		})
	}
	t.Run("RWO by either name", func(t *testing.T) {
		r := newRig(t, nil)
		r.stage()
		req := r.stageRequest()
		req.Capability.Mode = backends.SingleNodeMultiWriter
		must(t, r.Stage(t.Context(), req))
	})
	t.Run("no type asked", func(t *testing.T) {
		r := newRig(t, nil)
		r.stage()
		req := r.stageRequest()
		req.Capability.FSType = ""
		must(t, r.Stage(t.Context(), req))
	})
}

func TestSecondTarget(t *testing.T) {
	for _, c := range []struct {
		name     string
		a, b     backends.AccessMode
		readOnly bool
		want     error
	}{
		{"RWO, as kubelet does", backends.SingleNodeWriter, backends.SingleNodeWriter, false, nil},
		{"RWO, read-only besides", backends.SingleNodeWriter, backends.SingleNodeWriter, true, nil},
		{"multi writer", backends.SingleNodeMultiWriter, backends.SingleNodeMultiWriter, true, nil},
		{"multi node", backends.MultiNodeMultiWriter, backends.MultiNodeMultiWriter, false, nil},
		{"single writer", backends.SingleNodeSingleWriter, backends.SingleNodeSingleWriter, false, backends.ErrInUse},
		{"other mode", backends.SingleNodeWriter, backends.MultiNodeMultiWriter, false, backends.ErrPrecondition},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			st := r.stageRequest()
			st.Capability.Mode = c.a
			must(t, r.Stage(t.Context(), st))
			req := r.publishRequest()
			req.Capability.Mode = c.a
			must(t, r.Publish(t.Context(), req))
			req.Path, req.Capability.Mode, req.ReadOnly = r.target+"-2", c.b, c.readOnly
			err := r.Publish(t.Context(), req)
			if c.want == nil {
				must(t, err)
				return
			}
			wantKind(t, err, c.want)
			if r.mountsAt(req.Path) != 0 {
				t.Error("it was published all the same")
			}
		})
	}
}

// TestSecondStagingPath: Nomad stages once for each way to use a volume.
func TestSecondStagingPath(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	second := r.stageRequest()
	second.Path += "-2"
	second.Capability.Mode = backends.MultiNodeReader
	must(t, r.Stage(t.Context(), second))
	must(t, r.Stage(t.Context(), second))
	if got := r.node.log(); !slices.Equal(got, []string{"open v"}) {
		t.Errorf("calls %v", got)
	}
	r.unstage()
	if !r.node.isOpen("v") {
		t.Error("closed while it is staged at the second path")
	}
	must(t, r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: second.Path}))
	r.clean()
}

func TestReadOnlyModes(t *testing.T) {
	r := newRig(t, nil)
	req := r.stageRequest()
	req.Capability.Mode = backends.SingleNodeReader
	wantKind(t, r.Stage(t.Context(), req), backends.ErrPrecondition) // blank
	if r.mkfs() != 0 || r.node.isOpen("v") {
		t.Error("formatted or left open")
	}
	r.disk.SetContent(blockdev.Content{State: blockdev.Filesystem, Type: "ext4", Size: gib, Clean: true})
	must(t, r.Stage(t.Context(), req))
	if m := r.Kernel.Mounts(); !m[0].ReadOnly() {
		t.Error("not mounted read-only")
	}
	pub := r.publishRequest()
	wantKind(t, r.Publish(t.Context(), pub), backends.ErrPrecondition)
	pub.Capability.Mode = backends.SingleNodeReader
	must(t, r.Publish(t.Context(), pub))
}

func TestNotFound(t *testing.T) {
	r := newRig(t, nil)
	req := r.stageRequest()
	req.ID = "gone"
	wantKind(t, r.Stage(t.Context(), req), backends.ErrNotFound)
	if v := r.Volumes(); len(v) != 0 {
		t.Errorf("records left of %v", v)
	}
	for _, path := range []string{"some/path", "/no/where", r.target} {
		_, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: path})
		wantKind(t, err, backends.ErrNotFound)
		_, err = r.Expand(t.Context(), mounter.ExpandRequest{ID: "v", Path: path})
		wantKind(t, err, backends.ErrNotFound)
	}
}
