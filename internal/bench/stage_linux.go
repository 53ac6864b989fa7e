package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
	mountutils "k8s.io/mount-utils"
	utilexec "k8s.io/utils/exec"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
)

// disk is a sparse file behind a loop device: a volume.
type disk struct {
	path string
	loop *blockdev.Loop
}

// newDisk makes and attaches a disk.
func newDisk(ctx context.Context, path string, size int64) (*disk, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = f.Truncate(size)
	d := &disk{path: path}
	if err == nil {
		d.loop, err = blockdev.AttachLoop(ctx, f, blockdev.AttachOptions{})
	}
	return d, errors.Join(err, f.Close())
}

func (d *disk) close(ctx context.Context) error {
	return errors.Join(blockdev.DetachLoop(ctx, d.loop.Path, d.loop.Dev, d.loop.Ino), os.Remove(d.path))
}

// disks are the backend of the node engine: volumes that are attached already.
type disks struct {
	mu   sync.Mutex
	byID map[string]*disk
}

func (s *disks) set(id string, d *disk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[id] = d
}

func (s *disks) OpenVolume(_ context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.byID[req.ID]
	if d == nil {
		return nil, backends.VolumeNotFound(req.ID)
	}
	return &backends.Source{Device: &backends.Device{
		Path: d.loop.Path, Identity: backends.Identity{BackingDev: d.loop.Dev, BackingIno: d.loop.Ino},
	}}, nil
}

func (s *disks) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

// stageRig stages volumes by csikit, by mount-utils and by hand, all on disks
// alike in one directory.
type stageRig struct {
	dir, path string
	size      int64
	engine    *mounter.Engine
	disks     *disks
	utils     *mountutils.SafeFormatAndMount //nolint:forbidigo // what csikit is compared with
	disk      *disk
}

func newStageRig(ctx context.Context, c config, dir string) (*stageRig, error) {
	r := &stageRig{dir: filepath.Join(dir, "stage"), size: c.size, disks: &disks{byID: make(map[string]*disk)}}
	r.path = filepath.Join(r.dir, "path")
	if err := os.MkdirAll(r.path, 0o755); err != nil {
		return nil, err
	}
	var err error
	if r.engine, err = mounter.New(r.disks, &mounter.Options{StateDir: filepath.Join(r.dir, "state"), AllowVolatileState: true}); err != nil {
		return nil, err
	}
	quietUtils()
	r.utils = mountutils.NewSafeFormatAndMount(mountutils.New(""), utilexec.New()) //nolint:forbidigo // likewise
	return r, r.engine.Start(ctx)
}

func (r *stageRig) close() error { return errors.Join(r.engine.Close(), os.RemoveAll(r.dir)) }

func (r *stageRig) attach(ctx context.Context) (err error) {
	r.disk, err = newDisk(ctx, filepath.Join(r.dir, "disk"), r.size)
	r.disks.set("v", r.disk)
	return err
}

func (r *stageRig) detach(ctx context.Context) error { return r.disk.close(ctx) }

func (r *stageRig) stage(ctx context.Context, fs string) error {
	return r.engine.Stage(ctx, mounter.StageRequest{
		ID: "v", Path: r.path, Capability: backends.Capability{Mode: backends.SingleNodeWriter, FSType: fs},
	})
}

func (r *stageRig) unstage(ctx context.Context) error {
	err := r.engine.Unstage(ctx, mounter.UnstageRequest{ID: "v", Path: r.path})
	return errors.Join(err, os.MkdirAll(r.path, 0o755))
}

func (r *stageRig) formatAndMount(fs string) error {
	//nolint:forbidigo // what csikit is compared with, on a disk that does not fail
	return r.utils.FormatAndMount(r.disk.loop.Path, r.path, fs, nil)
}

// mkfsArgs are for the file system as the engine makes it.
var mkfsArgs = map[string][]string{"ext4": {"-q", "-F", "-m0"}, "xfs": {"-q", "-f"}}

func (r *stageRig) mkfs(ctx context.Context, fs string) error {
	out, err := exec.CommandContext(ctx, "mkfs."+fs, append(mkfsArgs[fs], r.disk.loop.Path)...).CombinedOutput() //nolint:gosec // its own names
	if err != nil {
		return fmt.Errorf("mkfs.%s: %w\n%s", fs, err, out)
	}
	return nil
}

func (r *stageRig) mount(fs string) error { return unix.Mount(r.disk.loop.Path, r.path, fs, 0, "") }
func (r *stageRig) unmount() error        { return unix.Unmount(r.path, unix.UMOUNT_NOFOLLOW) }

// stages measures fresh and repeated stages.
func stages(ctx context.Context, c config, dir string) (*table, error) {
	r, err := newStageRig(ctx, c, dir)
	if err != nil {
		return nil, err
	}
	t := &table{title: fmt.Sprintf("stage, %d MiB loop device", c.size>>20)}
	for _, fs := range []string{"ext4", "xfs"} {
		fresh, err := r.fresh(ctx, c, fs)
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		again, err := r.again(ctx, c, fs)
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		t.rows = append(t.rows, fresh, again)
	}
	parts, err := r.parts(ctx, c)
	if err == nil {
		t.rows = append(t.rows, parts...)
	}
	return t, errors.Join(err, r.close())
}

var (
	freshGoals = map[string]goal{"ext4": atMost(nanoseconds, 4.5e6, -1)}
	againGoals = map[string]goal{"ext4": atMost(nanoseconds, 0.6e6, -1), "xfs": atMost(nanoseconds, 2e6, -1)}
)

func (r *stageRig) fresh(ctx context.Context, c config, fs string) (*row, error) {
	attach := func() error { return r.attach(ctx) }
	done := func() error { return errors.Join(r.unmount(), r.detach(ctx)) }
	return contest(ctx, c, &row{item: fs + ", fresh", goal: freshGoals[fs]},
		contender{"csikit", paired{attach, func() error { return r.stage(ctx, fs) }, func() error {
			return errors.Join(r.unstage(ctx), r.detach(ctx))
		}}},
		contender{"mount-utils", paired{attach, func() error { return r.formatAndMount(fs) }, done}},
		contender{"mkfs and mount(2)", paired{attach, func() error { return errors.Join(r.mkfs(ctx, fs), r.mount(fs)) }, done}})
}

func (r *stageRig) again(ctx context.Context, c config, fs string) (*row, error) {
	if err := r.attach(ctx); err != nil {
		return nil, err
	}
	err := r.stage(ctx, fs)
	if err == nil {
		err = r.unstage(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, r.detach(ctx))
	}
	row, err := contest(ctx, c, &row{item: fs + ", clean, again", goal: againGoals[fs]},
		contender{"csikit", paired{op: func() error { return r.stage(ctx, fs) }, after: func() error { return r.unstage(ctx) }}},
		contender{"mount-utils", paired{op: func() error { return r.formatAndMount(fs) }, after: r.unmount}},
		contender{"mount(2)", paired{op: func() error { return r.mount(fs) }, after: r.unmount}})
	return row, errors.Join(err, r.detach(ctx))
}
