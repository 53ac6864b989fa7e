package mounter_test

import (
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/blockdev"
)

// TestClaimed: a device that another program works on is neither formatted nor
// believed, even where it reads as a whole file system.
func TestClaimed(t *testing.T) {
	for name, content := range map[string]blockdev.Content{
		"blank":       {State: blockdev.Blank},
		"file system": {State: blockdev.Filesystem, Type: "ext4", Clean: true, Size: gib},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.disk.SetContent(content)
			r.disk.Claim(true)
			wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrUnavailable)
			if n := r.mkfs(); n != 0 {
				t.Errorf("%d mkfs on a device that is claimed", n)
			}
			r.disk.Claim(false)
			r.stage()
		})
	}
}

// TestSecondPathOfClaimed: the mount at the first staging path claims the device,
// and that is no reason to refuse a second one.
func TestSecondPathOfClaimed(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.disk.Claim(true)
	req := r.stageRequest()
	req.Path += "-second"
	must(t, r.Stage(t.Context(), req))
}

// TestUnfinishedIsChecked: a file system whose mkfs is not known to have ended is
// checked in full before it is used.
func TestUnfinishedIsChecked(t *testing.T) {
	r := newRig(t, nil)
	r.Kernel.Fail("Mkfs", 1, backends.ErrUnavailable)
	if err := r.Stage(t.Context(), r.stageRequest()); err == nil {
		t.Fatal("stage says OK, and mkfs failed")
	}
	r.disk.SetContent(blockdev.Content{State: blockdev.Filesystem, Type: "ext4", Clean: true, Size: gib})
	r.Kernel.Fail("Check", 1, backends.ErrPrecondition)
	if err := r.Stage(t.Context(), r.stageRequest()); err == nil || !strings.Contains(err.Error(), "check") {
		t.Fatalf("stage after a failed check: %v", err)
	}
	if n := r.mountsAt(r.stageRequest().Path); n != 0 {
		t.Fatalf("%d mounts after a failed check", n)
	}
	r.stage()
}
