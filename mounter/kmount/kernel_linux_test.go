package kmount_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/mount-utils"
	"k8s.io/utils/exec"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/kmount"
	"github.com/csikit/csikit/mounter/mnt"
	"github.com/csikit/csikit/mounter/mountertest"
)

// sources is a backend whose volumes are given.
type sources struct {
	mu   sync.Mutex
	all  map[string]*backends.Source
	open map[string]bool
}

func (s *sources) OpenVolume(_ context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[req.ID] == nil {
		return nil, backends.VolumeNotFound(req.ID)
	}
	s.open[req.ID] = true
	return s.all[req.ID], nil
}

func (s *sources) CloseVolume(_ context.Context, req backends.CloseVolumeRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, req.ID)
	return nil
}

// life is an engine over a mount.Interface.
type life struct {
	*mounter.Engine
	t       *testing.T
	dir     string
	sources *sources
	options mounter.Options
}

func newLife(t *testing.T, dir string, m mount.Interface, o *kmount.KernelOptions) *life {
	kernel, err := kmount.OverInterface(m, o)
	must(t, err)
	l := &life{t: t, dir: dir, sources: &sources{all: map[string]*backends.Source{}, open: map[string]bool{}}, options: mounter.Options{
		StateDir: filepath.Join(dir, "state"), AllowVolatileState: true, Kernel: kernel, Logger: slog.New(slog.DiscardHandler),
	}}
	l.start()
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

func (l *life) start() {
	l.t.Helper()
	e, err := mounter.New(l.sources, &l.options)
	must(l.t, err)
	must(l.t, e.Start(l.t.Context()))
	l.Engine = e
}

func (l *life) path(name string) string { return filepath.Join(l.dir, name) }

// cycle takes a volume through its life, every call twice and one restart.
func (l *life) cycle(id string, block, readOnly bool) {
	t, ctx := l.t, l.t.Context()
	t.Helper()
	capability := backends.Capability{Mode: backends.SingleNodeMultiWriter, Block: block}
	staging, target, second := l.path("staging-"+id), l.path("pods/a/"+id), l.path("pods/b/"+id)
	publish := func(path string, ro bool) error {
		return l.Publish(ctx, mounter.PublishRequest{ID: id, StagingPath: staging, Path: path, Capability: capability, ReadOnly: ro})
	}
	for range 2 {
		must(t, l.Stage(ctx, mounter.StageRequest{ID: id, Path: staging, Capability: capability}))
	}
	must(t, publish(target, readOnly))
	must(t, l.Close())
	l.start()
	must(t, publish(target, readOnly))
	if err := publish(target, !readOnly); !errors.Is(err, backends.ErrIncompatible) {
		t.Errorf("%s: published otherwise: %v", id, err)
	}
	must(t, publish(second, readOnly))
	if err := l.Unstage(ctx, mounter.UnstageRequest{ID: id, Path: staging}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("%s: unstage while published: %v", id, err)
	}
	for _, path := range []string{second, second} {
		must(t, l.Unpublish(ctx, mounter.UnpublishRequest{ID: id, Path: path}))
	}
	must(t, publish(target, readOnly)) // the other one went
	for range 2 {
		must(t, l.Unpublish(ctx, mounter.UnpublishRequest{ID: id, Path: target}))
	}
	for range 2 {
		must(t, l.Unstage(ctx, mounter.UnstageRequest{ID: id, Path: staging}))
	}
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: target: %v", id, err)
	}
	if v := l.Volumes(); len(v) > 0 || l.sources.open[id] {
		t.Errorf("%s: left: %v, open %v", id, v, l.sources.open)
	}
}

// TestFakeMounter: the engine over mount-utils' fake, without root.
func TestFakeMounter(t *testing.T) {
	fake := mount.NewFakeMounter(nil)
	base := mountertest.NewKernel()
	l := newLife(t, t.TempDir(), fake, &kmount.KernelOptions{Base: base})
	disk := base.AddDisk("/dev/fake0", 64*mib, backends.Identity{Serial: "s0"})
	device := &backends.Device{Path: "/dev/fake0", Identity: backends.Identity{Serial: "s0"}}
	l.sources.all = map[string]*backends.Source{
		"dir": {Dir: mkdir(t, l.dir, "volumes/dir")}, "disk": {Device: device}, "raw": {Device: device},
		"nfs": {Mount: &backends.Mount{Source: "server:/x", FSType: "nfs", Remote: true}},
	}
	for _, ro := range []bool{false, true} {
		l.cycle("dir", false, ro)
		l.cycle("disk", false, ro)
		l.cycle("nfs", false, ro)
	}
	l.cycle("raw", true, false)
	if c := disk.Content(); c.Type != "ext4" {
		t.Errorf("the disk holds %v", c)
	}
	if list, err := fake.List(); len(list) > 0 || err != nil {
		t.Error(list, err)
	}
	if acts := fake.GetLog(); !slices.Contains(acts, mount.FakeAction{
		Action: mount.FakeActionMount, Target: l.path("staging-disk"), Source: "/dev/fake0", FSType: "ext4",
	}) {
		t.Error(acts)
	}
	if n := len(base.Mounts()); n != 0 {
		t.Errorf("%d mounts past the interface", n)
	}
}

// TestFakeMounterForeign: what somebody else mounted is seen through the interface
// and left alone.
func TestFakeMounterForeign(t *testing.T) {
	dir := t.TempDir()
	fake := mount.NewFakeMounter(nil)
	l := newLife(t, dir, fake, &kmount.KernelOptions{Base: mountertest.NewKernel()})
	l.sources.all["v"] = &backends.Source{Dir: mkdir(t, dir, "volumes/v")}
	staging := mkdir(t, dir, "staging")
	must(t, fake.Mount(mkdir(t, dir, "other"), staging, "", []string{"bind"}))
	err := l.Stage(t.Context(), mounter.StageRequest{ID: "v", Path: staging, Capability: backends.Capability{Mode: backends.SingleNodeWriter}})
	if !errors.Is(err, backends.ErrPrecondition) {
		t.Error(err)
	}
	if list, _ := fake.List(); len(list) != 1 {
		t.Error(list)
	}
}

// TestRealMounters: the engine over mount-utils' own mounter, and over ours behind
// its interface, on real devices.
func TestRealMounters(t *testing.T) {
	for name, m := range map[string]func(*testing.T) mount.Interface{
		"mount-utils": func(*testing.T) mount.Interface { return mount.NewWithoutSystemd("") },
		"kmount":      func(t *testing.T) mount.Interface { return newMounter(t, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			testenv.Root(t)
			loops := newLoops(t)
			l := newLife(t, tempDir(t), m(t), nil)
			dev, ino := uint64(0), uint64(0)
			path := loops.device("disk", 64*mib)
			dev, ino = loops.inode("disk")
			device := &backends.Device{Path: path, Identity: backends.Identity{BackingDev: dev, BackingIno: ino}}
			l.sources.all = map[string]*backends.Source{
				"dir": {Dir: mkdir(t, l.dir, "volumes a/dir")}, "disk": {Device: device}, "tmpfs": {Mount: &backends.Mount{Source: "tmpfs", FSType: "tmpfs"}},
			}
			for _, ro := range []bool{false, true} {
				l.cycle("dir", false, ro)
				l.cycle("disk", false, ro)
				l.cycle("tmpfs", false, ro)
			}
			l.sources.all["raw"] = &backends.Source{Device: device}
			l.cycle("raw", true, false)
		})
	}
}

// recorder is an exec.Interface that tells what was run.
type recorder struct {
	exec.Interface
	mu  sync.Mutex
	ran []string
}

func (r *recorder) CommandContext(ctx context.Context, cmd string, args ...string) exec.Cmd {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ran = append(r.ran, cmd+" "+strings.Join(args, " "))
	return r.Interface.CommandContext(ctx, cmd, args...)
}

// TestExec: the tools run by the given exec.Interface and get a path that means
// something elsewhere, and their exit codes mean what they do with csikit's runner.
func TestExec(t *testing.T) {
	testenv.Root(t)
	loops := newLoops(t)
	r := &recorder{Interface: exec.New()}
	l := newLife(t, tempDir(t), newMounter(t, nil), &kmount.KernelOptions{Exec: r})
	path := loops.device("disk", 64*mib)
	device := &backends.Device{Path: path, Identity: backends.Identity{Unverified: "a test"}}
	l.sources.all["disk"] = &backends.Source{Device: device}
	device.MkfsOptions = []string{"--no-such-option"}
	req := mounter.StageRequest{ID: "disk", Path: l.path("staging"), Capability: backends.Capability{Mode: backends.SingleNodeWriter}}
	err := l.Stage(t.Context(), req)
	if !errors.Is(err, backends.ErrUnavailable) || !strings.Contains(err.Error(), "no-such-option") && !strings.Contains(err.Error(), "invalid option") {
		t.Errorf("failing mkfs: %v", err)
	}
	device.MkfsOptions = nil
	must(t, l.Stage(t.Context(), req))
	must(t, l.Unstage(t.Context(), mounter.UnstageRequest{ID: "disk", Path: req.Path}))
	if len(r.ran) != 2 || !strings.HasPrefix(r.ran[1], "mkfs.ext4 ") || !strings.HasSuffix(r.ran[1], " "+path) {
		t.Errorf("ran %q", r.ran)
	}
}

// TestKernelRefuses what cannot go through the interface.
func TestKernelRefuses(t *testing.T) {
	base := mountertest.NewKernel()
	if _, err := kmount.OverInterface(nil, nil); !errors.Is(err, backends.ErrInvalid) {
		t.Error(err)
	}
	if _, err := kmount.OverInterface(mount.NewFakeMounter(nil), &kmount.KernelOptions{Base: base, Exec: exec.New()}); !errors.Is(err, backends.ErrInvalid) {
		t.Error(err)
	}
	fake := mount.NewFakeMounter(nil)
	k, err := kmount.OverInterface(fake, &kmount.KernelOptions{Base: base})
	must(t, err)
	for _, r := range []mounter.MountRequest{
		{Source: "//s/x", FSType: "cifs", Target: t.TempDir(), Env: backends.NewSecrets(map[string]string{"PASSWD": "x"})},
		{Source: "//s/x", FSType: "cifs", Target: t.TempDir(), Files: map[string]backends.Secret{"credentials": backends.NewSecret("x")}},
	} {
		if err := k.Mount(t.Context(), r); !errors.Is(err, backends.ErrUnsupported) {
			t.Error(err)
		}
	}
	if err := k.Mount(t.Context(), mounter.MountRequest{Source: "s:/x", FSType: "nfs", Target: t.TempDir(), IDMap: []backends.IDMap{{Count: 1}}}); !errors.Is(err, backends.ErrUnsupported) {
		t.Error(err)
	}
	if err := k.Bind(t.TempDir(), t.TempDir(), mnt.BindOptions{Owners: &mnt.Owners{}}); !errors.Is(err, backends.ErrUnsupported) {
		t.Error(err)
	}
	if err := k.Mount(t.Context(), mounter.MountRequest{Source: "/dev/fake", FSType: "xfs", Target: t.TempDir(), Copy: true}); !errors.Is(err, backends.ErrPrecondition) {
		t.Error(err)
	}
	if list, _ := fake.List(); len(list) > 0 {
		t.Error(list)
	}
}

// TestCorruptedThroughInterface: a mounter that returns ENOTCONN speaks of a mount.
func TestCorruptedThroughInterface(t *testing.T) {
	dir := t.TempDir()
	fake := mount.NewFakeMounter(nil)
	fake.MountCheckErrors = map[string]error{dir: &os.PathError{Op: "stat", Path: dir, Err: unix.ENOTCONN}}
	k, err := kmount.OverInterface(fake, &kmount.KernelOptions{Base: mountertest.NewKernel()})
	must(t, err)
	if is, err := k.IsMountPoint(dir); !is || err != nil {
		t.Error(is, err)
	}
	if n, err := k.Unwind(dir); n != 1 || err != nil { // the fake forgets the error then
		t.Error(n, err)
	}
}
