package mounter_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
	"github.com/csikit/csikit/mounter/mountertest"
)

// liar is a kernel whose calls say that they worked.
type liar struct {
	*mountertest.Kernel
	unwind, mkfs, grow bool // do nothing
	readOnly           bool // bind and mount writable, whatever is asked for
	bind, mount        func(target string) error
}

func (l *liar) Unwind(path string) (int, error) {
	if l.unwind {
		return 1, nil
	}
	return l.Kernel.Unwind(path)
}

func (l *liar) Mkfs(ctx context.Context, d mounter.Device, fsType string, o []string) error {
	if l.mkfs {
		return nil
	}
	return l.Kernel.Mkfs(ctx, d, fsType, o)
}

func (l *liar) Grow(ctx context.Context, d mounter.Device, fsType, path string) error {
	if l.grow {
		return nil
	}
	return l.Kernel.Grow(ctx, d, fsType, path)
}

func (l *liar) Bind(source, target string, o mnt.BindOptions) error {
	if l.bind != nil {
		return l.bind(target)
	}
	o.ReadOnly = o.ReadOnly && !l.readOnly
	return l.Kernel.Bind(source, target, o)
}

func (l *liar) BindDevice(d mounter.Device, target string, o mnt.BindOptions) error {
	if l.bind != nil {
		return l.bind(target)
	}
	return l.Kernel.BindDevice(d, target, o)
}

func (l *liar) Mount(ctx context.Context, m mounter.MountRequest) error {
	if l.mount != nil {
		return l.mount(m.Target)
	}
	m.ReadOnly = m.ReadOnly && !l.readOnly
	return l.Kernel.Mount(ctx, m)
}

func (l *liar) OpenDevice(ctx context.Context, path string) (mounter.Device, error) {
	d, err := l.Kernel.OpenDevice(ctx, path)
	if err != nil || !l.readOnly {
		return d, err
	}
	return stubborn{d}, nil
}

// stubborn is a device that stays as it is.
type stubborn struct{ mounter.Device }

func (stubborn) SetReadOnly(bool) error { return nil }

func newLiarRig(t *testing.T) (*rig, *liar) {
	l := &liar{Kernel: mountertest.NewKernel()}
	n := newNode()
	r := &rig{t: t, node: n, dir: t.TempDir()}
	r.Engine = mountertest.New(t, n, &mountertest.Options{Kernel: l.Kernel, Adjust: func(o *mounter.Options) { o.Kernel = l }})
	r.disk = l.AddDisk("/dev/a", gib, backends.Identity{Serial: "A"})
	n.sources["v"] = &backends.Source{Device: &backends.Device{Path: "/dev/a", Identity: backends.Identity{Serial: "A"}}}
	r.staging, r.target = filepath.Join(r.dir, "staging"), filepath.Join(r.dir, "target")
	return r, l
}

// TestLyingKernel: an OK is what the kernel shows, not what it answered.
func TestLyingKernel(t *testing.T) {
	unavailable := func(t *testing.T, err error) { t.Helper(); wantKind(t, err, backends.ErrUnavailable) }
	t.Run("unmount", func(t *testing.T) {
		r, l := newLiarRig(t)
		r.stage()
		r.publish()
		l.unwind = true
		unavailable(t, r.Unpublish(t.Context(), r.unpublishRequest()))
		l.unwind = false
		r.unpublish()
		l.unwind = true
		unavailable(t, r.Unstage(t.Context(), r.unstageRequest()))
		if !r.node.isOpen("v") {
			t.Error("closed while it is mounted")
		}
	})
	t.Run("mkfs", func(t *testing.T) {
		r, l := newLiarRig(t)
		l.mkfs = true
		unavailable(t, r.Stage(t.Context(), r.stageRequest()))
		if len(r.Kernel.Mounts()) != 0 {
			t.Error("mounted")
		}
	})
	t.Run("mount nothing", func(t *testing.T) {
		r, l := newLiarRig(t)
		l.mount = func(string) error { return nil }
		unavailable(t, r.Stage(t.Context(), r.stageRequest()))
	})
	t.Run("mount something else", func(t *testing.T) {
		r, l := newLiarRig(t)
		l.mount = func(target string) error { l.MountForeign(target); return nil }
		unavailable(t, r.Stage(t.Context(), r.stageRequest()))
		if len(r.Kernel.Mounts()) != 0 {
			t.Error("what this call mounted is left")
		}
		l.mount = nil
		r.stage()
	})
	t.Run("mount writable", func(t *testing.T) {
		r, l := newLiarRig(t)
		r.disk.SetContent(blockdev.Content{State: blockdev.Filesystem, Type: "ext4", Size: gib, Clean: true})
		l.readOnly = true
		req := r.stageRequest()
		req.Capability.Mode = backends.MultiNodeReader
		unavailable(t, r.Stage(t.Context(), req))
		if len(r.Kernel.Mounts()) != 0 {
			t.Error("what this call mounted is left")
		}
	})
	t.Run("bind nothing", func(t *testing.T) {
		r, l := newLiarRig(t)
		r.stage()
		l.bind = func(string) error { return nil }
		unavailable(t, r.Publish(t.Context(), r.publishRequest()))
	})
	t.Run("bind something else", func(t *testing.T) {
		r, l := newLiarRig(t)
		r.stage()
		l.bind = func(target string) error { l.MountForeign(target); return nil }
		unavailable(t, r.Publish(t.Context(), r.publishRequest()))
		if r.mountsAt(r.target) != 0 {
			t.Error("what this call bound is left")
		}
	})
	t.Run("bind writable", func(t *testing.T) {
		r, l := newLiarRig(t)
		r.stage()
		l.readOnly = true
		req := r.publishRequest()
		req.ReadOnly = true
		unavailable(t, r.Publish(t.Context(), req))
		if r.mountsAt(r.target) != 0 {
			t.Error("what this call bound is left")
		}
	})
	t.Run("block", func(t *testing.T) {
		r, l := newLiarRig(t)
		st, pub := r.stageRequest(), r.publishRequest()
		st.Capability.Block, pub.Capability.Block = true, true
		must(t, r.Stage(t.Context(), st))
		l.bind = func(target string) error { l.MountForeign(target); return nil }
		unavailable(t, r.Publish(t.Context(), pub))
		l.bind, l.readOnly, pub.ReadOnly = nil, true, true
		unavailable(t, r.Publish(t.Context(), pub))
		if r.mountsAt(r.target) != 0 {
			t.Error("what this call bound is left")
		}
	})
	t.Run("grow", func(t *testing.T) {
		r, l := newLiarRig(t)
		r.stage()
		r.disk.Resize(2 * gib)
		l.grow = true
		_, err := r.Expand(t.Context(), mounter.ExpandRequest{ID: "v", Path: r.staging})
		unavailable(t, err)
	})
}

// TestTurnedReadOnly: a file system that found errors is not what was asked for.
func TestTurnedReadOnly(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.publish()
	r.Kernel.TurnReadOnly(r.staging)
	wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrUnavailable)
	req := r.publishRequest()
	req.Path += "-2"
	wantKind(t, r.Publish(t.Context(), req), backends.ErrUnavailable)
	_, err := r.Expand(t.Context(), mounter.ExpandRequest{ID: "v", Path: r.staging})
	wantKind(t, err, backends.ErrPrecondition)
	r.Kernel.TurnReadOnly(r.target)
	wantKind(t, r.Publish(t.Context(), r.publishRequest()), backends.ErrUnavailable)
	r.unpublish()
	r.unstage()
	r.clean()
}

// TestMountedByHandAfterReboot: what somebody mounted is not staged until stage
// has looked at it.
func TestMountedByHandAfterReboot(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.publish()
	r.Kernel.Reboot()
	must(t, r.Restart())
	if files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", "publish-*")); err != nil || len(files) != 0 {
		t.Errorf("records of targets left: %v, %v", files, err)
	}
	r.mountByHand(r.staging)
	wantKind(t, r.Publish(t.Context(), r.publishRequest()), backends.ErrPrecondition)
	r.stage()
	r.publish()
	if r.mountsAt(r.staging) != 1 {
		t.Errorf("mounts %v", r.Kernel.Mounts())
	}
}

func (r *rig) mountByHand(path string) {
	r.t.Helper()
	must(r.t, os.MkdirAll(path, 0o700))
	d, err := r.Kernel.OpenDevice(r.t.Context(), "/dev/a")
	must(r.t, err)
	must(r.t, r.Kernel.Mount(r.t.Context(), mounter.MountRequest{Device: d, FSType: r.disk.Content().Type, Target: path}))
}

// TestMountedElsewhere: a device is not taken away from somebody who mounted it.
func TestMountedElsewhere(t *testing.T) {
	r := newRig(t, nil)
	r.disk.SetContent(blockdev.Content{State: blockdev.Filesystem, Type: "xfs", Size: gib, Clean: true})
	r.mountByHand(filepath.Join(r.dir, "by hand"))
	wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrUnavailable) // asks for ext4
	if !r.node.isOpen("v") {
		t.Error("closed while somebody has it mounted")
	}
	r.Kernel.UnmountForeign(filepath.Join(r.dir, "by hand"))
	r.unstage()
	r.clean()
}

// TestForeignWithoutRecord: another device at the staging path is not adopted.
func TestForeignWithoutRecord(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	must(t, r.Close())
	files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", "*.json"))
	must(t, err)
	for _, f := range files {
		must(t, os.Remove(f))
	}
	must(t, r.Restart())
	r.Kernel.AddDisk("/dev/b", gib, backends.Identity{Serial: "B"})
	r.node.sources["v"].Device = &backends.Device{Path: "/dev/b", Identity: backends.Identity{Serial: "B"}}
	wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
	if r.mkfs() != 1 || r.mountsAt(r.staging) != 1 {
		t.Errorf("log %v", r.Kernel.Log())
	}
}

// TestPublishedFromAnotherDevice: the volume came back on another device, and the
// target still shows the old one.
func TestPublishedFromAnotherDevice(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.publish()
	r.Kernel.UnmountForeign(r.staging)
	d := r.Kernel.AddDisk("/dev/b", gib, backends.Identity{Serial: "A"})
	d.SetContent(r.disk.Content())
	r.node.sources["v"].Device = &backends.Device{Path: "/dev/b", Identity: backends.Identity{Serial: "A"}}
	r.stage()
	wantKind(t, r.Publish(t.Context(), r.publishRequest()), backends.ErrIncompatible)
	r.unpublish()
	r.publish()
}

// TestCutShortStays: as long as the volume is open the record of an mkfs that was
// cut short stays, whatever the backend says in between.
func TestCutShortStays(t *testing.T) {
	r := newRig(t, nil)
	r.Kernel.Fail("Mkfs", 1, errors.New("killed"))
	wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrUnavailable)
	r.node.fail["open"] = backends.ErrPrecondition
	wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrUnavailable)
	delete(r.node.fail, "open")
	r.stage()
}
