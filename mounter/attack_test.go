package mounter_test

import (
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
)

// TestDoneStaysDone: a refusal to format is not forgotten with the record that it
// came from. The CO repeats the call, and the second one finds a blank device as
// the first did.
func TestDoneStaysDone(t *testing.T) {
	for name, content := range map[string]blockdev.Content{
		"blank":             {State: blockdev.Blank},
		"unfinished xfs":    {State: blockdev.Filesystem, Type: "xfs", InProgress: true, Size: gib},
		"other file system": {State: blockdev.Filesystem, Type: "xfs", Clean: true, Size: gib},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil) // a backend without a memory of its own
			r.stage()
			r.Kernel.Reboot()
			must(t, r.Restart())
			r.disk.SetContent(content)
			req := r.stageRequest()
			req.Capability.FSType = ""
			for range 3 {
				if err := r.Stage(t.Context(), req); err == nil {
					t.Fatal("staged")
				}
				must(t, r.Restart())
			}
			if n := r.mkfs(); n != 1 {
				t.Fatalf("%d mkfs: %v", n, r.Kernel.Log())
			}
			r.unstage() // who unstages it gives the node's memory up
			r.clean()
		})
	}
}

// TestUnstageLeavesReadOnly: the device stays read-only for a target of the other
// staging path.
func TestUnstageLeavesReadOnly(t *testing.T) {
	r := newRig(t, nil)
	first, pub := r.stageRequest(), r.publishRequest()
	first.Capability = backends.Capability{Mode: backends.SingleNodeMultiWriter, Block: true}
	pub.Capability, pub.ReadOnly = first.Capability, true
	second := first
	second.Path += "-2"
	ctx := t.Context()
	must(t, r.Stage(ctx, first))
	must(t, r.Stage(ctx, second))
	must(t, r.Publish(ctx, pub))
	must(t, r.Unstage(ctx, mounter.UnstageRequest{ID: "v", Path: second.Path}))
	if !r.disk.IsReadOnly() {
		t.Error("writable while it is published read-only")
	}
	r.unpublish()
	if r.disk.IsReadOnly() {
		t.Error("still read-only")
	}
	r.unstage()
	r.clean()
}

// TestPublishedReadOnlyIsLookedAt: the flag of the device is part of what
// was asked for, whoever took it away.
func TestPublishedReadOnlyIsLookedAt(t *testing.T) {
	r := newRig(t, nil)
	stage, pub := r.stageRequest(), r.publishRequest()
	stage.Capability.Block, pub.Capability.Block, pub.ReadOnly = true, true, true
	ctx := t.Context()
	must(t, r.Stage(ctx, stage))
	must(t, r.Publish(ctx, pub))
	for _, restart := range []bool{false, true} {
		if restart {
			must(t, r.Restart())
		}
		r.disk.SetReadOnly(false) // blockdev --setrw
		err := r.Publish(ctx, pub)
		if err == nil && !r.disk.IsReadOnly() {
			t.Error("OK, and it can be written to")
		}
	}
	r.unpublish()
	r.unstage()
	r.clean()
}

// TestRawUseEndsMkfs: an mkfs that was cut short is no licence any more once
// somebody had the raw device, be it by another staging path.
func TestRawUseEndsMkfs(t *testing.T) {
	r := newRig(t, nil)
	r.Kernel.Fail("Mkfs", 1, backends.ErrUnavailable)
	fs := r.stageRequest()
	ctx := t.Context()
	wantKind(t, r.Stage(ctx, fs), backends.ErrUnavailable)
	raw := fs
	raw.Path += "-raw"
	raw.Capability = backends.Capability{Mode: backends.SingleNodeWriter, Block: true}
	must(t, r.Stage(ctx, raw))
	r.disk.SetContent(blockdev.Content{State: blockdev.Unknown, Offset: 8192}) // a guest's
	must(t, r.Unstage(ctx, mounter.UnstageRequest{ID: "v", Path: raw.Path}))
	if err := r.Stage(ctx, fs); err == nil {
		t.Error("staged")
	}
	if n := r.mkfs(); n != 1 {
		t.Fatalf("%d mkfs: %v", n, r.Kernel.Log())
	}
	r.unstage()
	r.clean()
}

// TestPathTakenOver: a mount was taken away by hand, and another volume stands at
// its path by now. The first volume's records are no reason to touch it.
func TestPathTakenOver(t *testing.T) {
	r := newRig(t, nil)
	r.Kernel.AddDisk("/dev/b", gib, backends.Identity{Serial: "B"})
	r.node.sources["w"] = &backends.Source{Device: &backends.Device{Path: "/dev/b", Identity: backends.Identity{Serial: "B"}}}
	ctx := t.Context()
	r.stage()
	r.publish()
	r.Kernel.UnmountForeign(r.target)
	stage, pub := r.stageRequest(), r.publishRequest()
	stage.ID, pub.ID, stage.Path = "w", "w", r.staging+"-w"
	pub.StagingPath = stage.Path
	must(t, r.Stage(ctx, stage))
	must(t, r.Publish(ctx, pub))
	must(t, r.Unpublish(ctx, r.unpublishRequest())) // v's
	if n := r.mountsAt(r.target); n != 1 {
		t.Fatalf("%d mounts of w", n)
	}
	must(t, r.Publish(ctx, pub))
	r.unstage()
	must(t, r.Unpublish(ctx, mounter.UnpublishRequest{ID: "w", Path: r.target}))
	must(t, r.Unstage(ctx, mounter.UnstageRequest{ID: "w", Path: stage.Path}))
	r.clean()
}

// TestFailedStageOfPublishedBlock: a stage that fails for good closes nothing
// that is still published.
func TestFailedStageOfPublishedBlock(t *testing.T) {
	r := newRig(t, nil)
	stage, pub := r.stageRequest(), r.publishRequest()
	stage.Capability.Block, pub.Capability.Block = true, true
	ctx := t.Context()
	must(t, r.Stage(ctx, stage))
	must(t, r.Publish(ctx, pub))
	r.disk.Replace(backends.Identity{Serial: "B"}) // a link that went stale
	err := r.Stage(ctx, stage)
	if err == nil {
		t.Fatal("staged")
	}
	if !r.node.isOpen("v") {
		t.Errorf("closed while it is published (%v)", err)
	}
	r.unpublish()
	r.unstage()
	r.clean()
}
