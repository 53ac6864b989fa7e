package mounter_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
)

// TestFormatIsRecordedAroundMkfs: begun before the first byte, done before anyone
// sees the mount.
func TestFormatIsRecordedAroundMkfs(t *testing.T) {
	var order []string
	var rec *recorder
	r := newRig(t, func(n *node) backends.Node { rec = &recorder{node: n}; return rec })
	r.Kernel.OnChange(func(op string) { order = append(order, op) })
	r.node.changed = func(m string) { order = append(order, m+" "+r.node.sources["v"].Device.Format.String()) }
	r.stage()
	want := []string{"OpenVolume unknown", "RecordFormat started", "half of Mkfs", "Mkfs", "RecordFormat done", "Mount"}
	if !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	if f := rec.formats[1]; f.FSType != "ext4" || string(f.State) != "state of v" {
		t.Errorf("recorded %+v", f)
	}
}

// TestSomebodyElsesFileSystem: a disk that is new to the volume and holds a file
// system was another volume's, and is shown to nobody.
func TestSomebodyElsesFileSystem(t *testing.T) {
	r := newRig(t, asRecorder)
	r.node.sources["v"].Device.Format = backends.FormatNever
	r.disk.SetContent(blockdev.Content{State: blockdev.Filesystem, Type: "ext4", Size: gib, Clean: true})
	err := r.Stage(t.Context(), r.stageRequest())
	wantKind(t, err, backends.ErrPrecondition)
	if !strings.Contains(err.Error(), "somebody else") || r.mkfs() != 0 {
		t.Errorf("%v; log %v", err, r.Kernel.Log())
	}
	r.clean()
}

// TestExistingFileSystemIsRecorded: a backend that said "started" must not say so
// any more once there can be data.
func TestExistingFileSystemIsRecorded(t *testing.T) {
	for _, f := range []backends.FormatState{backends.FormatUnknown, backends.FormatStarted} {
		t.Run(f.String(), func(t *testing.T) {
			r := newRig(t, asRecorder)
			d := r.node.sources["v"].Device
			d.Format, d.FSType = f, "ext4"
			r.disk.SetContent(blockdev.Content{State: blockdev.Filesystem, Type: "ext4", Size: gib, Clean: true})
			r.Kernel.Fail("Mount", 1, errors.New("not yet"))
			if err := r.Stage(t.Context(), r.stageRequest()); err == nil {
				t.Fatal("mounted")
			}
			if d.Format != backends.FormatDone {
				t.Errorf("before the mount the backend remembers %s", d.Format)
			}
			r.stage()
			if r.mkfs() != 0 {
				t.Error("formatted")
			}
		})
	}
}

// TestRecorderFails: without the backend's word nothing is formatted, and nothing
// is mounted.
func TestRecorderFails(t *testing.T) {
	for _, which := range []string{"started", "done"} {
		t.Run(which, func(t *testing.T) {
			r := newRig(t, asRecorder)
			r.node.fail["format "+which] = backends.ErrFailed
			err := r.Stage(t.Context(), r.stageRequest())
			if err == nil || errors.Is(err, backends.ErrFailed) {
				t.Errorf("got %v, want an error that keeps the CO coming back", err)
			}
			if which == "started" && r.mkfs() != 0 || r.mountsAt(r.staging) != 0 {
				t.Errorf("log %v", r.Kernel.Log())
			}
			delete(r.node.fail, "format "+which)
			r.stage()
		})
	}
}

// TestMkfsFails: the CO comes back, and the device is formatted again, for it is
// still the same one.
func TestMkfsFails(t *testing.T) {
	r := newRig(t, nil)
	r.Kernel.Fail("Mkfs", 2, errors.New("killed"))
	for range 2 {
		wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrUnavailable)
	}
	must(t, r.Restart())
	r.stage()
	if n := r.mkfs(); n != 3 {
		t.Errorf("mkfs ran %d times", n)
	}
}

// TestMkfsFailsThenAnotherDisk: what was begun on one disk does not allow
// formatting another one, or what the volume was used for in the meantime.
func TestMkfsFailsThenAnotherDisk(t *testing.T) {
	leftover := blockdev.Content{State: blockdev.Unknown, Offset: 4096}
	t.Run("another instance", func(t *testing.T) {
		r := newRig(t, nil)
		r.Kernel.Fail("Mkfs", 1, errors.New("killed"))
		wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrUnavailable)
		r.disk.Replace(backends.Identity{Serial: "A"})
		r.disk.SetContent(leftover)
		wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
		r.clean()
	})
	t.Run("closed in between", func(t *testing.T) {
		r := newRig(t, nil)
		r.Kernel.Fail("Mkfs", 1, errors.New("killed"))
		wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrUnavailable)
		r.unstage()
		r.clean()
		wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
		if c := r.disk.Content(); c != leftover {
			t.Errorf("the device holds %s", c)
		}
		r.clean()
	})
}

// TestNeverWithoutMemory: a backend that cannot take "never" back is not believed.
func TestNeverWithoutMemory(t *testing.T) {
	r := newRig(t, nil)
	r.node.sources["v"].Device.Format = backends.FormatNever
	r.disk.SetContent(blockdev.Content{State: blockdev.Unknown, Offset: 1 << 20})
	wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
	if r.mkfs() != 0 {
		t.Error("formatted")
	}
	r.clean()
}

// TestStartedWithoutMemory: nor is one believed that always says "started".
func TestStartedWithoutMemory(t *testing.T) {
	r := newRig(t, nil)
	r.node.sources["v"].Device.Format = backends.FormatStarted
	r.node.sources["v"].Device.FSType = "ext4"
	r.stage()
	r.unstage()
	r.disk.SetContent(blockdev.Content{State: blockdev.Unknown, Offset: 4096})
	if err := r.Stage(t.Context(), r.stageRequest()); err == nil {
		t.Errorf("staged: %v", r.Kernel.Log())
	}
}

// TestBlockUseIsRemembered: raw data has no signature; once somebody may have
// written some, "never" is over.
func TestBlockUseIsRemembered(t *testing.T) {
	r := newRig(t, asRecorder)
	r.node.sources["v"].Device.Format = backends.FormatNever
	req := r.stageRequest()
	req.Capability = backends.Capability{Mode: backends.SingleNodeWriter, Block: true}
	must(t, r.Stage(t.Context(), req))
	r.unstage()
	r.disk.SetContent(blockdev.Content{State: blockdev.Unknown, Offset: 1 << 20})
	wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
	if r.mkfs() != 0 {
		t.Error("formatted raw data")
	}
}

// TestUnreadable: an error of the probe is never an answer.
func TestUnreadable(t *testing.T) {
	eio := errors.New("input/output error")
	r := newRig(t, nil)
	r.Kernel.Fail("Probe", 1, eio)
	err := r.Stage(t.Context(), r.stageRequest())
	wantKind(t, err, backends.ErrUnavailable)
	if !errors.Is(err, eio) || !strings.Contains(err.Error(), "/dev/a") {
		t.Errorf("got %v", err)
	}
	if r.mkfs() != 0 || r.mountsAt(r.staging) != 0 {
		t.Errorf("log %v", r.Kernel.Log())
	}
	// After mkfs, too.
	r.Kernel.OnChange(func(op string) {})
	r.stage()
}

func TestWrongDevice(t *testing.T) {
	r := newRig(t, nil)
	r.disk.Replace(backends.Identity{Serial: "B"})
	err := r.Stage(t.Context(), r.stageRequest())
	wantKind(t, err, backends.ErrPrecondition)
	if _, ok := errors.AsType[*blockdev.MismatchError](err); !ok {
		t.Errorf("got %v", err)
	}
	if len(r.Kernel.Log()) != 0 {
		t.Errorf("log %v", r.Kernel.Log())
	}
	r.clean()
}

func TestIdentityIsNeeded(t *testing.T) {
	r := newRig(t, nil)
	r.node.sources["v"].Device.Identity = backends.Identity{Size: gib}
	wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
	r.clean()
	r.node.sources["v"].Device.Identity = backends.Identity{Unverified: "a test"}
	r.stage()
}

// TestMountFails: a file system that does not mount is left as it is.
func TestMountFails(t *testing.T) {
	r := newRig(t, nil)
	fs := blockdev.Content{State: blockdev.Filesystem, Type: "ext4", Size: gib, Errors: true, UUID: "u"}
	r.disk.SetContent(fs)
	r.Kernel.Fail("Mount", -1, errors.New("structure needs cleaning"))
	if err := r.Stage(t.Context(), r.stageRequest()); err == nil {
		t.Fatal("staged")
	}
	if c := r.disk.Content(); r.mkfs() != 0 || c.UUID != "u" {
		t.Errorf("log %v", r.Kernel.Log())
	}
}

// TestCheck: only a file system that asks for it is checked, and one whose check
// failed is not mounted.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name    string
		content blockdev.Content
		check   bool
	}{
		{"clean", blockdev.Content{Type: "ext4", Clean: true}, false},
		{"journal to replay", blockdev.Content{Type: "ext4", Journal: true}, false},
		{"ext4 without a journal", blockdev.Content{Type: "ext4"}, true},
		{"errors", blockdev.Content{Type: "ext4", Errors: true}, true},
		{"no journal", blockdev.Content{Type: "ext2"}, true},
		{"xfs", blockdev.Content{Type: "xfs", Errors: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			c.content.State, c.content.Size = blockdev.Filesystem, gib
			r.disk.SetContent(c.content)
			req := r.stageRequest()
			req.Capability.FSType = ""
			r.Kernel.Fail("Check", 1, backends.ErrPrecondition)
			err := r.Stage(t.Context(), req)
			if (err != nil) != c.check {
				t.Fatalf("got %v, checked %v", err, c.check)
			}
			if c.check {
				wantKind(t, err, backends.ErrPrecondition)
				r.clean()
				must(t, r.Stage(t.Context(), req))
			}
		})
	}
}

// TestGrow: space that the file system does not use yet.
func TestGrow(t *testing.T) {
	grown := func(r *rig) bool { return r.disk.Content().Size == 2*gib }
	setup := func(t *testing.T) *rig {
		r := newRig(t, nil)
		r.stage()
		r.unstage()
		r.disk.Resize(2 * gib)
		return r
	}
	t.Run("at stage, mounted", func(t *testing.T) {
		r := setup(t)
		r.stage()
		if !grown(r) || slices.Contains(r.Kernel.Log(), "check ext4 /dev/a") {
			t.Errorf("log %v", r.Kernel.Log())
		}
	})
	t.Run("at stage, before the mount", func(t *testing.T) {
		r := setup(t)
		r.Kernel.ForbidOnlineExt4()
		r.stage()
		if !grown(r) || !slices.Contains(r.Kernel.Log(), "check ext4 /dev/a") {
			t.Errorf("log %v", r.Kernel.Log())
		}
	})
	t.Run("not for readers", func(t *testing.T) {
		r := setup(t)
		req := r.stageRequest()
		req.Capability.Mode = backends.MultiNodeReader
		must(t, r.Stage(t.Context(), req))
		if grown(r) {
			t.Error("a reader changed the disk")
		}
	})
	t.Run("expand", func(t *testing.T) {
		r := newRig(t, nil)
		r.stage()
		r.publish()
		req := mounter.ExpandRequest{ID: "v", Path: r.target, Range: backends.CapacityRange{Required: 2 * gib}}
		_, err := r.Expand(t.Context(), req)
		wantKind(t, err, backends.ErrOutOfRange)
		r.disk.Resize(2 * gib)
		for range 2 {
			size, err := r.Expand(t.Context(), req)
			if err != nil || size != 2*gib || !grown(r) {
				t.Errorf("%d, %v", size, err)
			}
		}
		req.Range = backends.CapacityRange{Limit: gib}
		_, err = r.Expand(t.Context(), req)
		wantKind(t, err, backends.ErrOutOfRange)
		req = mounter.ExpandRequest{ID: "v", Path: r.target, Capability: &backends.Capability{Block: true}}
		_, err = r.Expand(t.Context(), req)
		wantKind(t, err, backends.ErrInvalid)
	})
	t.Run("expand, not while mounted", func(t *testing.T) {
		r := newRig(t, nil)
		r.Kernel.ForbidOnlineExt4()
		r.stage()
		r.disk.Resize(2 * gib)
		req := mounter.ExpandRequest{ID: "v", Path: r.staging}
		_, err := r.Expand(t.Context(), req)
		wantKind(t, err, backends.ErrPrecondition)
		r.unstage()
		r.stage()
		size, err := r.Expand(t.Context(), req)
		if err != nil || size != 2*gib {
			t.Errorf("%d, %v", size, err)
		}
	})
}
