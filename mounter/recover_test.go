package mounter_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mountertest"
)

func newFullRig(t *testing.T) (*rig, *full) {
	var f *full
	r := newRig(t, func(n *node) backends.Node { f = &full{recorder: &recorder{node: n}}; return f })
	return r, f
}

// TestRestart: the driver's death costs nothing.
func TestRestart(t *testing.T) {
	r, f := newFullRig(t)
	r.stage()
	r.publish()
	must(t, r.Restart())
	want := []backends.OpenVolume{{ID: "v", State: []byte("state of v"), Mounted: true}}
	if got := f.recovered; len(got) != 1 || got[0].ID != "v" || string(got[0].State) != "state of v" || !got[0].Mounted {
		t.Errorf("the backend was told %+v, want %+v", got, want)
	}
	r.Kernel.ClearLog()
	r.stage()
	r.publish()
	if log := r.Kernel.Log(); len(log) != 0 {
		t.Errorf("done again: %v", log)
	}
	if got := f.targets; len(got) != 2 || got[0].Again || !got[1].Again {
		t.Errorf("targets %+v", got)
	}
	wantKind(t, r.Unstage(t.Context(), r.unstageRequest()), backends.ErrInUse)
	r.unpublish()
	r.unstage()
	r.clean()
	if string(r.node.states["v"]) != "state of v" {
		t.Errorf("CloseVolume got state %q", r.node.states["v"])
	}
}

func TestReboot(t *testing.T) {
	r, f := newFullRig(t)
	r.stage()
	r.publish()
	r.Kernel.Reboot()
	must(t, r.Restart())
	if got := f.recovered; len(got) != 1 || got[0].Mounted || string(got[0].State) != "state of v" {
		t.Errorf("the backend was told %+v", got)
	}
	wantKind(t, r.Publish(t.Context(), r.publishRequest()), backends.ErrPrecondition)
	r.stage()
	r.publish()
	if r.mkfs() != 1 {
		t.Errorf("log %v", r.Kernel.Log())
	}
	r.Kernel.Reboot()
	must(t, r.Restart())
	r.unpublish() // as kubelet does for pods that are gone
	r.unstage()
	r.clean()
	if _, err := os.Lstat(r.target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("target is left: %v", err)
	}
}

// TestReleaseAfterReboot: what a reboot left of a volume is given back when it is to be
// deleted; what was staged in this boot is not, and neither is what somebody mounted.
func TestReleaseAfterReboot(t *testing.T) {
	r := newRig(t, nil)
	release := func(want bool) {
		t.Helper()
		must(t, r.Release(t.Context(), "v"))
		if path, used := r.InUse("v"); used == want {
			t.Errorf("used at %q: %v", path, used)
		}
	}
	r.stage()
	r.publish()
	release(false)
	r.Kernel.Reboot()
	must(t, r.Restart())
	if _, used := r.InUse("v"); !used {
		t.Error("the record went by itself: with it what is known of the volume's format")
	}
	release(true)
	if string(r.node.states["v"]) != "state of v" {
		t.Errorf("CloseVolume got state %q", r.node.states["v"])
	}
	release(true)
	r.stage()
	r.Kernel.Reboot()
	must(t, r.Restart())
	must(t, r.Restart()) // the driver alone, in the same boot
	r.stage()
	release(false)
	r.publish()
	r.unpublish()
	r.unstage()
	r.clean()
}

// TestLostRecords: the kernel is the truth; what is lost is State.
func TestLostRecords(t *testing.T) {
	lose := func(t *testing.T, r *rig) {
		must(t, r.Close())
		files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", "*.json"))
		must(t, err)
		if len(files) == 0 {
			t.Fatal("no records")
		}
		for _, f := range files {
			must(t, os.Remove(f))
		}
		must(t, r.Restart())
	}
	t.Run("undo", func(t *testing.T) {
		r := newRig(t, nil)
		r.stage()
		r.publish()
		lose(t, r)
		r.unpublish()
		r.unstage()
		r.clean()
		if s, ok := r.node.states["v"]; !ok || s != nil {
			t.Errorf("CloseVolume got %q, %v", s, ok)
		}
	})
	t.Run("go on", func(t *testing.T) {
		r := newRig(t, nil)
		r.stage()
		r.publish()
		lose(t, r)
		r.stage()
		r.publish()
		if len(r.Kernel.Mounts()) != 2 || r.mkfs() != 1 {
			t.Errorf("mounts %v", r.Kernel.Mounts())
		}
		r.unpublish()
		r.unstage()
		r.clean()
	})
	t.Run("publish finds the stage", func(t *testing.T) {
		r := newRig(t, nil)
		r.stage()
		lose(t, r)
		r.publish()
		r.unpublish()
		r.unstage()
		r.clean()
	})
	t.Run("publish finds another disk", func(t *testing.T) {
		r := newRig(t, nil)
		r.stage()
		lose(t, r)
		r.Kernel.AddDisk("/dev/b", gib, backends.Identity{Serial: "B"})
		r.node.sources["v"].Device = &backends.Device{Path: "/dev/b", Identity: backends.Identity{Serial: "B"}}
		err := r.Publish(t.Context(), r.publishRequest())
		wantKind(t, err, backends.ErrPrecondition)
		if r.mountsAt(r.target) != 0 || r.mkfs() != 1 {
			t.Errorf("mounts %v, log %v", r.Kernel.Mounts(), r.Kernel.Log())
		}
	})
	t.Run("unstage finds a target", func(t *testing.T) {
		r := newRig(t, nil)
		r.stage()
		r.publish()
		must(t, r.Close())
		must(t, os.Remove(publishRecord(t, r)))
		must(t, r.Restart())
		wantKind(t, r.Unstage(t.Context(), r.unstageRequest()), backends.ErrInUse)
		if len(r.Kernel.Mounts()) != 2 || !r.node.isOpen("v") {
			t.Errorf("mounts %v", r.Kernel.Mounts())
		}
	})
}

// TestLostRecordsOfATarget: what the kernel still has mounted is not taken away.
func TestLostRecordsOfATarget(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.publish()
	must(t, r.Close())
	files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", "*.json"))
	must(t, err)
	for _, f := range files {
		must(t, os.Remove(f))
	}
	must(t, r.Restart())
	wantKind(t, r.Unstage(t.Context(), r.unstageRequest()), backends.ErrInUse)
	if len(r.Kernel.Mounts()) != 2 || !r.node.isOpen("v") {
		t.Errorf("mounts %v", r.Kernel.Mounts())
	}
	r.unpublish()
	r.unstage()
	r.clean()
}

func publishRecord(t *testing.T, r *rig) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", "publish-*.json"))
	must(t, err)
	if len(files) != 1 {
		t.Fatalf("publish records %v", files)
	}
	return files[0]
}

// TestUnreadableRecord: that volume is left alone, and named; others work.
func TestUnreadableRecord(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.publish()
	must(t, r.Close())
	file := publishRecord(t, r)
	must(t, os.WriteFile(file, []byte(`{"version": 1, "ki`), 0o600))
	must(t, r.Restart())
	ctx := t.Context()
	for name, err := range map[string]error{
		"stage":     r.Stage(ctx, r.stageRequest()),
		"unstage":   r.Unstage(ctx, r.unstageRequest()),
		"publish":   r.Publish(ctx, r.publishRequest()),
		"unpublish": r.Unpublish(ctx, r.unpublishRequest()),
		"stats":     second(r.Stats(ctx, mounter.StatsRequest{ID: "v", Path: r.target})),
		"expand":    second(r.Expand(ctx, mounter.ExpandRequest{ID: "v", Path: r.target})),
	} {
		want := backends.ErrPrecondition
		if strings.HasPrefix(name, "un") { // of which something may stand
			want = backends.ErrUnavailable
		}
		if !errors.Is(err, want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, used := r.InUse("v"); !used {
		t.Error("a volume that nobody can tell about is said to be free")
	}
	if len(r.Kernel.Mounts()) != 2 {
		t.Errorf("mounts %v", r.Kernel.Mounts())
	}
	r.Kernel.AddDisk("/dev/b", gib, backends.Identity{Serial: "B"})
	r.node.sources["w"] = &backends.Source{Device: &backends.Device{Path: "/dev/b", Identity: backends.Identity{Serial: "B"}}}
	req := r.stageRequest()
	req.ID, req.Path = "w", r.staging+"-w"
	must(t, r.Stage(ctx, req))
}

func second[T any](_ T, err error) error { return err }

// TestFinalErrorsLeaveNothing: after a code that a CO takes for final the volume
// is closed, or the code is another one.
func TestFinalErrorsLeaveNothing(t *testing.T) {
	foreign := blockdev.Content{State: blockdev.Foreign, Type: "gpt"}
	t.Run("closed", func(t *testing.T) {
		r := newRig(t, nil)
		r.disk.SetContent(foreign)
		wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
		if got := r.node.log(); !slices.Equal(got, []string{"open v", "close v"}) {
			t.Errorf("calls %v", got)
		}
		r.clean()
	})
	t.Run("not closed", func(t *testing.T) {
		r := newRig(t, nil)
		r.disk.SetContent(foreign)
		r.node.fail["close"] = backends.ErrInUse
		err := r.Stage(t.Context(), r.stageRequest())
		wantKind(t, err, backends.ErrUnavailable)
		if !strings.Contains(err.Error(), "gpt") {
			t.Errorf("the reason is lost: %v", err)
		}
		if !slices.Equal(r.Volumes(), []string{"v"}) {
			t.Error("the record of the open volume is gone")
		}
		delete(r.node.fail, "close")
		r.unstage()
		r.clean()
	})
	t.Run("in doubt", func(t *testing.T) {
		r := newRig(t, nil)
		r.node.fail["open"] = errors.New("no answer")
		if err := r.Stage(t.Context(), r.stageRequest()); err == nil {
			t.Fatal("staged")
		}
		if !slices.Equal(r.Volumes(), []string{"v"}) {
			t.Error("nobody remembers a volume that may be open")
		}
		r.unstage()
		r.clean()
	})
	t.Run("publish", func(t *testing.T) {
		r, f := newFullRig(t)
		r.stage()
		f.fail["prepare"] = backends.ErrPermission
		wantKind(t, r.Publish(t.Context(), r.publishRequest()), backends.ErrPermission)
		if _, err := os.Lstat(r.target); !errors.Is(err, os.ErrNotExist) || len(r.Kernel.Mounts()) != 1 {
			t.Errorf("left: %v, %v", err, r.Kernel.Mounts())
		}
		r.unstage()
		r.clean()
	})
	t.Run("close at unstage", func(t *testing.T) {
		r := newRig(t, nil)
		r.stage()
		r.node.fail["close"] = backends.ErrInUse
		wantKind(t, r.Unstage(t.Context(), r.unstageRequest()), backends.ErrUnavailable)
		delete(r.node.fail, "close")
		must(t, r.Restart()) // finishes it
		r.clean()
		r.unstage()
	})
}

// TestCancelledBetweenSteps: the opposite call can always get through.
func TestCancelledBetweenSteps(t *testing.T) {
	for n := 1; ; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		steps := 0
		nd := newNode()
		e := mountertest.New(t, nd, &mountertest.Options{Adjust: func(o *mounter.Options) {
			o.Observer = func(string) {
				if steps++; steps == n {
					cancel()
				}
			}
		}})
		r := &rig{t: t, Engine: e, node: nd, dir: t.TempDir()}
		r.staging = filepath.Join(r.dir, "staging")
		r.disk = e.Kernel.AddDisk("/dev/a", gib, backends.Identity{Serial: "A"})
		nd.sources["v"] = &backends.Source{Device: &backends.Device{Path: "/dev/a", Identity: backends.Identity{Serial: "A"}}}
		err := e.Stage(ctx, r.stageRequest())
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at step %d: %v", n, err)
		}
		r.unstage()
		r.clean()
		if steps < n {
			return
		}
	}
}

func TestNotRunning(t *testing.T) {
	e, err := mounter.New(newNode(), &mounter.Options{StateDir: t.TempDir(), Kernel: mountertest.NewKernel()})
	must(t, err)
	wantKind(t, e.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: "/x/y"}), backends.ErrUnavailable)
	if _, used := e.InUse("v"); used || e.Volumes() != nil {
		t.Error("it knows something")
	}
	must(t, e.Start(t.Context()))
	wantKind(t, e.Start(t.Context()), backends.ErrPrecondition)
	must(t, e.Close())
	must(t, e.Close())
	wantKind(t, e.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: "/x/y"}), backends.ErrUnavailable)
}

// volatile is a kernel whose every directory is a container's own.
type volatile struct{ *mountertest.Kernel }

func (volatile) Volatile(string) (string, error) { return "an overlay", nil }
func (volatile) Shared(string) (bool, error)     { return false, nil }

func TestStartRefuses(t *testing.T) {
	k := volatile{mountertest.NewKernel()}
	start := func(o mounter.Options) error {
		o.StateDir, o.Kernel = filepath.Join(t.TempDir(), "state"), k
		e, err := mounter.New(newNode(), &o)
		must(t, err)
		return errors.Join(e.Start(t.Context()), e.Close())
	}
	wantKind(t, start(mounter.Options{}), backends.ErrPrecondition)
	must(t, start(mounter.Options{AllowVolatileState: true}))
	wantKind(t, start(mounter.Options{AllowVolatileState: true, SharedDirs: []string{"/var/lib/kubelet"}}), backends.ErrPrecondition)
	for _, o := range []*mounter.Options{nil, {}, {StateDir: "relative"}, {StateDir: "/x", DefaultFS: "zfs"}, {StateDir: "/x", FSTypes: []string{"vfat"}}} {
		_, err := mounter.New(newNode(), o)
		wantKind(t, err, backends.ErrInvalid)
	}
	_, err := mounter.New(nil, &mounter.Options{StateDir: "/x"})
	wantKind(t, err, backends.ErrInvalid)
}
