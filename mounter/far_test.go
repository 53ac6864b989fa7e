package mounter_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
	"github.com/csikit/csikit/mounter/mountertest"
)

func (f *far) say(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(format, args...)
}

// fails is failing for methods that do not have the lock.
func (f *far) fails(method string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failing(method)
}

// far mounts its volumes itself, by way of the kernel in memory.
type far struct {
	*node
	kernel *mountertest.Kernel
	checks func() error // nil: as fail says
}

func (f *far) MountRemote(ctx context.Context, req backends.MountRemoteRequest) error {
	f.say("mount %s at %s read-only %v flags %v", req.Mount.Source, filepath.Base(req.Target), req.ReadOnly, req.Flags.Reveal())
	if err := f.fails("mount"); err != nil {
		return err
	}
	return f.kernel.Mount(ctx, mounter.MountRequest{Source: req.Mount.Source, FSType: "nfs4", Target: req.Target, ReadOnly: req.ReadOnly})
}

func (f *far) UnmountRemote(_ context.Context, req backends.UnmountRemoteRequest) error {
	f.say("unmount %s detach %v", filepath.Base(req.Path), req.Detach)
	if err := f.fails("unmount"); err != nil && !req.Detach {
		return err
	}
	_, err := f.kernel.Unwind(req.Path)
	return err
}

func (f *far) GroupRemote(_ context.Context, req backends.GroupRemoteRequest) error {
	f.say("group %d of %s, %s", req.GID, filepath.Base(req.Path), req.State)
	return f.fails("group")
}

func (f *far) CheckRemote(_ context.Context, _ backends.CheckRemoteRequest) error {
	if f.checks != nil {
		return f.checks()
	}
	return f.fails("check")
}

func (f *far) VolumeStats(context.Context, backends.VolumeStatsRequest) (*backends.VolumeStats, error) {
	return &backends.VolumeStats{Total: 1}, f.fails("stats")
}

// TestFarMount: what may hang of a remote mount is the backend's alone.
func TestFarMount(t *testing.T) {
	var f *far
	r := newRig(t, func(n *node) backends.Node { f = &far{node: n}; return f })
	f.kernel = r.Kernel
	r.node.sources["v"] = &backends.Source{Mount: &backends.Mount{Source: "server:/x", FSType: "nfs", Remote: true}, State: []byte("state of v")}
	for _, operation := range []string{"StatFS", "SetGroup"} {
		r.Kernel.Fail(operation, 100, errors.New("must not be called"))
	}
	req := r.stageRequest()
	req.Capability.FSType, req.Capability.Group, req.Capability.Flags = "", "42", backends.NewFlags("nconnect=4")
	must(t, r.Stage(t.Context(), req))
	pub := r.publishRequest()
	pub.Capability = req.Capability
	pub.Capability.Flags = backends.Flags{}
	must(t, r.Publish(t.Context(), pub))
	if _, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.target}); err != nil {
		t.Error(err)
	}
	r.unpublish()
	r.unstage()
	want := []string{
		"open v", "mount server:/x at staging read-only false flags [nconnect=4]", "group 42 of staging, state of v",
		"unmount mount detach false", "unmount staging detach false", "close v",
	}
	if !slices.Equal(r.node.calls, want) {
		t.Errorf("calls %q\nwant  %q", r.node.calls, want)
	}
}

// TestFarFails: a mount that the backend could not make leaves nothing, and an
// unmount that does not go leaves all; a final kind is UNAVAILABLE's then.
func TestFarFails(t *testing.T) {
	var f *far
	r := newRig(t, func(n *node) backends.Node { f = &far{node: n}; return f })
	f.kernel = r.Kernel
	r.node.sources["v"] = &backends.Source{Mount: &backends.Mount{Source: "server:/x", FSType: "nfs", Remote: true}}
	req := r.stageRequest()
	req.Capability.FSType = ""
	r.node.failOnce("mount", backends.ErrUnavailable)
	if err := r.Stage(t.Context(), req); !errors.Is(err, backends.ErrUnavailable) {
		t.Error(err)
	}
	r.node.failOnce("mount", backends.ErrPermission)
	if err := r.Stage(t.Context(), req); !errors.Is(err, backends.ErrPermission) {
		t.Error(err)
	}
	if !slices.Contains(r.node.calls, "close v") {
		t.Errorf("not closed after a final error: %q", r.node.calls)
	}
	must(t, r.Stage(t.Context(), req))
	r.node.failOnce("unmount", backends.ErrInUse)
	if err := r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: r.staging}); !errors.Is(err, backends.ErrUnavailable) {
		t.Error(err)
	}
	r.unstage()
	if m := r.Kernel.Mounts(); len(m) > 0 {
		t.Errorf("left: %v", m)
	}
}

// TestFarStale: what the server does not know any more is mounted and bound anew at the
// next publish, as it was.
func TestFarStale(t *testing.T) {
	var f *far
	r := newRig(t, func(n *node) backends.Node { f = &far{node: n}; return f })
	f.kernel = r.Kernel
	r.node.sources["v"] = &backends.Source{Mount: &backends.Mount{Source: "server:/x", FSType: "nfs", Remote: true}}
	req := r.stageRequest()
	req.Capability.FSType = ""
	must(t, r.Stage(t.Context(), req))
	pub := r.publishRequest()
	pub.Capability, pub.ReadOnly = req.Capability, true
	must(t, r.Publish(t.Context(), pub))
	before := r.Kernel.Mounts()
	r.node.calls = nil
	r.node.fail["check"] = backends.ErrUnavailable
	must(t, r.Publish(t.Context(), pub)) // a server that does not answer is not asked for more
	if len(r.node.calls) > 0 {
		t.Errorf("calls %q", r.node.calls)
	}
	r.node.fail["check"] = backends.ErrDataLoss
	r.node.failOnce("mount", backends.ErrUnavailable)
	if err := r.Publish(t.Context(), pub); !errors.Is(err, backends.ErrUnavailable) {
		t.Error(err)
	}
	delete(r.node.fail, "check")
	must(t, r.Stage(t.Context(), req)) // which is what is left to do when that failed half-way
	second := filepath.Join(r.dir, "pods/2/mount")
	other := pub
	other.Path = second
	stale := 2 // before and after the lock is had
	f.checks = func() error {
		if stale--; stale >= 0 {
			return backends.ErrDataLoss
		}
		return nil
	}
	must(t, r.Publish(t.Context(), other))
	for _, m := range r.Kernel.Mounts() {
		if slices.ContainsFunc(before, func(b mnt.Info) bool { return b.ID == m.ID }) {
			t.Errorf("not mounted anew: %+v", m)
		}
		if m.Point != r.staging && !m.ReadOnly() {
			t.Errorf("not read-only any more: %+v", m)
		}
	}
	if n := len(r.Kernel.Mounts()); n != 3 {
		t.Errorf("%d mounts, want 3: %v", n, r.Kernel.Mounts())
	}
}
