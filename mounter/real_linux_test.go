package mounter_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

// loopNode is a backend of loop devices: volume ID is the file's name.
type loopNode struct {
	t    testing.TB
	dir  string
	mu   sync.Mutex
	loop map[string]*blockdev.Loop
	// format is what the backend says of each volume, and remembers if recording.
	format map[string]backends.FormatState
	fsType map[string]string
}

func newLoopNode(t testing.TB) *loopNode {
	n := &loopNode{t: t, dir: t.TempDir(), loop: map[string]*blockdev.Loop{}, format: map[string]backends.FormatState{}, fsType: map[string]string{}}
	t.Cleanup(func() {
		for id := range n.loop {
			if err := n.CloseVolume(context.Background(), backends.CloseVolumeRequest{ID: id}); err != nil {
				t.Errorf("close %s: %v", id, err)
			}
		}
	})
	return n
}

func (n *loopNode) file(id string) string { return filepath.Join(n.dir, id) }

// make makes the file of a volume.
func (n *loopNode) make(id string, size int64) {
	n.t.Helper()
	f, err := os.OpenFile(n.file(id), os.O_CREATE|os.O_RDWR, 0o600)
	must(n.t, err)
	must(n.t, f.Truncate(size))
	must(n.t, f.Close())
}

// write puts bytes into the file of a volume, behind the back of everything.
func (n *loopNode) write(id string, offset int64, text string) {
	n.t.Helper()
	f, err := os.OpenFile(n.file(id), os.O_RDWR, 0)
	must(n.t, err)
	_, err = f.WriteAt([]byte(text), offset)
	must(n.t, err)
	must(n.t, f.Close())
}

func (n *loopNode) read(id string, offset int64, size int) string {
	n.t.Helper()
	f, err := os.Open(n.file(id))
	must(n.t, err)
	b := make([]byte, size)
	_, err = f.ReadAt(b, offset)
	must(n.t, err)
	must(n.t, f.Close())
	return string(b)
}

func (n *loopNode) inode(id string) (dev, ino uint64) {
	var st unix.Stat_t
	must(n.t, unix.Stat(n.file(id), &st))
	return st.Dev, st.Ino
}

func (n *loopNode) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.loop[req.ID]
	if l == nil {
		f, err := os.OpenFile(n.file(req.ID), os.O_RDWR, 0)
		if err != nil {
			return nil, backends.VolumeNotFound(req.ID)
		}
		l, err = blockdev.AttachLoop(ctx, f, blockdev.AttachOptions{Name: req.ID})
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		n.loop[req.ID] = l
	}
	dev, ino := n.inode(req.ID)
	return &backends.Source{Device: &backends.Device{
		Path: l.Path, Identity: backends.Identity{BackingDev: dev, BackingIno: ino},
		Format: n.format[req.ID], FSType: n.fsType[req.ID],
	}, State: []byte(l.Path)}, nil
}

func (n *loopNode) CloseVolume(ctx context.Context, req backends.CloseVolumeRequest) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.loop[req.ID]
	if l == nil {
		return nil
	}
	dev, ino := n.inode(req.ID)
	if err := blockdev.DetachLoop(ctx, l.Path, dev, ino); err != nil {
		return err
	}
	delete(n.loop, req.ID)
	return nil
}

func (n *loopNode) NodeExpandVolume(_ context.Context, req backends.NodeExpandVolumeRequest) error {
	l := n.loop[req.ID]
	dev, ino := n.inode(req.ID)
	return blockdev.ResizeLoop(l.Path, dev, ino)
}

// loopRecorder is a loopNode that remembers formats.
type loopRecorder struct{ *loopNode }

func (n loopRecorder) RecordFormat(_ context.Context, req backends.RecordFormatRequest) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.format[req.ID], n.fsType[req.ID] = req.Format, req.FSType
	return nil
}

// realRig is an engine on this machine.
type realRig struct {
	*mounter.Engine
	t     testing.TB
	node  *loopNode
	dir   string
	state string
}

func newRealRig(t testing.TB, node backends.Node, loops *loopNode) *realRig {
	t.Helper()
	testenv.Root(t)
	r := &realRig{t: t, node: loops, dir: t.TempDir()}
	r.state = filepath.Join(r.dir, "state")
	r.start(node)
	t.Cleanup(func() {
		// What a failed test leaves mounted.
		mounts, err := mnt.List()
		must(t, err)
		for _, m := range slices.Backward(mounts) {
			if strings.HasPrefix(m.Point, r.dir+"/") {
				if _, err := mnt.Unwind(m.Point); err != nil {
					t.Error(err)
				}
			}
		}
		must(t, r.Close())
	})
	return r
}

func (r *realRig) start(node backends.Node) {
	r.t.Helper()
	e, err := mounter.New(node, &mounter.Options{StateDir: r.state, AllowVolatileState: true})
	must(r.t, err)
	must(r.t, e.Start(r.t.Context()))
	r.Engine = e
}

func (r *realRig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *realRig) stageReq(id, fsType string) mounter.StageRequest {
	return mounter.StageRequest{ID: id, Path: r.path("staging-" + id), Capability: backends.Capability{Mode: backends.SingleNodeWriter, FSType: fsType}}
}

func (r *realRig) publishReq(id, target string) mounter.PublishRequest {
	return mounter.PublishRequest{
		ID: id, StagingPath: r.path("staging-" + id), Path: r.path(target), Capability: backends.Capability{Mode: backends.SingleNodeWriter},
	}
}

func (r *realRig) stage(id, fsType string) {
	r.t.Helper()
	must(r.t, r.Stage(r.t.Context(), r.stageReq(id, fsType)))
}

func (r *realRig) publish(id, target string) {
	r.t.Helper()
	must(r.t, r.Publish(r.t.Context(), r.publishReq(id, target)))
}

func (r *realRig) unpublish(id, target string) {
	r.t.Helper()
	must(r.t, r.Unpublish(r.t.Context(), mounter.UnpublishRequest{ID: id, Path: r.path(target)}))
}

func (r *realRig) unstage(id string) {
	r.t.Helper()
	must(r.t, r.Unstage(r.t.Context(), mounter.UnstageRequest{ID: id, Path: r.path("staging-" + id)}))
}

func (r *realRig) isMount(name string) bool {
	r.t.Helper()
	is, err := mnt.IsMountPoint(r.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	must(r.t, err)
	return is
}

// gone fails unless nothing of the volume is left on the node.
func (r *realRig) gone(id string) {
	r.t.Helper()
	if v := r.Volumes(); len(v) > 0 {
		r.t.Errorf("records left: %v", v)
	}
	dev, ino := r.node.inode(id)
	loops, err := blockdev.LoopOf(dev, ino)
	must(r.t, err)
	if len(loops) > 0 {
		r.t.Errorf("loop devices left: %v", loops)
	}
	if r.isMount("staging-" + id) {
		r.t.Error("still staged")
	}
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

const mib = 1 << 20

// TestRealLifecycle walks a volume of each type through its life.
func TestRealLifecycle(t *testing.T) {
	for _, fsType := range []string{"ext2", "ext3", "ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			testenv.Tool(t, "mkfs."+fsType)
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			n.make("v", 320*mib)
			r.stage("v", fsType)
			r.stage("v", fsType)
			r.publish("v", "t1")
			r.publish("v", "t1")
			must(t, os.WriteFile(r.path("t1/file"), []byte("data"), 0o600))
			ro := r.publishReq("v", "t2")
			ro.ReadOnly = true
			must(t, r.Publish(t.Context(), ro))
			if err := os.WriteFile(r.path("t2/file"), []byte("x"), 0o600); !errors.Is(err, unix.EROFS) {
				t.Errorf("write through the read-only target: %v", err)
			}
			st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("t1")})
			must(t, err)
			if st.Total < 100*mib || st.Total > 320*mib || st.Used <= 0 {
				t.Errorf("stats %+v", st)
			}
			// The driver restarts.
			must(t, r.Close())
			r.start(n)
			r.stage("v", fsType)
			r.publish("v", "t1")
			err = r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: r.path("staging-v")})
			wantKind(t, err, backends.ErrInUse)
			r.unpublish("v", "t2")
			r.unpublish("v", "t1")
			r.unstage("v")
			r.gone("v")
			r.stage("v", "")
			b, err := os.ReadFile(r.path("staging-v/file"))
			if err != nil || string(b) != "data" {
				t.Errorf("read back %q, %v", b, err)
			}
			r.unstage("v")
			r.gone("v")
		})
	}
}

// TestRealPublishTwiceUnpublishOnce: the bug that deletes users' files
// elsewhere.
func TestRealPublishTwiceUnpublishOnce(t *testing.T) {
	n := newLoopNode(t)
	r := newRealRig(t, n, n)
	n.make("v", 64*mib)
	r.stage("v", "ext4")
	r.publish("v", "t")
	must(t, os.WriteFile(r.path("t/file"), []byte("data"), 0o600))
	r.publish("v", "t")
	must(t, mnt.Bind(r.path("staging-v"), r.path("t"), mnt.BindOptions{})) // as others stack
	r.unpublish("v", "t")
	if r.isMount("t") {
		t.Error("still mounted")
	}
	if _, err := os.Lstat(r.path("t")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("target left: %v", err)
	}
	if b, err := os.ReadFile(r.path("staging-v/file")); string(b) != "data" {
		t.Errorf("data is gone: %q %v", b, err)
	}
	r.unstage("v")
	r.gone("v")
}

// TestRealUnreadableDevice: a device that cannot be read is not blank. The error
// is the kernel's: the file behind the loop device is cut while it is attached.
func TestRealUnreadableDevice(t *testing.T) {
	for name, left := range map[string]int64{"all of it": 0, "the tail": 60 * mib} {
		t.Run(name, func(t *testing.T) {
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			n.make("v", 64*mib)
			r.stage("v", "ext4")
			must(t, os.WriteFile(r.path("staging-v/file"), []byte("data"), 0o600))
			r.unstage("v")
			_, err := n.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: "v"})
			must(t, err)
			must(t, os.Truncate(n.file("v"), left))
			err = r.Stage(t.Context(), r.stageReq("v", "ext4"))
			wantKind(t, err, backends.ErrUnavailable)
			if !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), n.loop["v"].Path) {
				t.Errorf("the error says neither EIO nor the device: %v", err)
			}
			if r.isMount("staging-v") {
				t.Error("mounted")
			}
			if st, err := os.Stat(n.file("v")); err != nil || st.Size() != left {
				t.Errorf("something was written: %v, %v", st, err)
			}
			if left > 0 { // the disk recovers, and nothing is lost
				must(t, os.Truncate(n.file("v"), 64*mib))
				r.stage("v", "ext4")
				if b, err := os.ReadFile(r.path("staging-v/file")); string(b) != "data" {
					t.Errorf("read back %q, %v", b, err)
				}
			}
			r.unstage("v")
			r.gone("v")
		})
	}
}

// TestRealForeignData: data anywhere that is looked at, without a signature or
// with a foreign one, is never formatted.
func TestRealForeignData(t *testing.T) {
	for name, offset := range map[string]int64{"head": 4096, "tail": 64*mib - 512} {
		t.Run(name, func(t *testing.T) {
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			n.make("v", 64*mib)
			n.write("v", offset, "somebody's data")
			for _, fsType := range []string{"ext4", "xfs", ""} {
				err := r.Stage(t.Context(), r.stageReq("v", fsType))
				wantKind(t, err, backends.ErrPrecondition)
				if !strings.Contains(err.Error(), fmt.Sprint(offset)) || !strings.Contains(err.Error(), "wipefs") {
					t.Errorf("the error does not say where, or how to go on: %v", err)
				}
			}
			if got := n.read("v", offset, 15); got != "somebody's data" {
				t.Errorf("read back %q", got)
			}
			r.gone("v")
		})
	}
}

// TestRealOtherType: what is on disk stays, whatever is asked for.
func TestRealOtherType(t *testing.T) {
	n := newLoopNode(t)
	r := newRealRig(t, n, n)
	n.make("v", 320*mib)
	r.stage("v", "ext4")
	must(t, os.WriteFile(r.path("staging-v/file"), []byte("data"), 0o600))
	r.unstage("v")
	err := r.Stage(t.Context(), r.stageReq("v", "xfs"))
	wantKind(t, err, backends.ErrPrecondition)
	if s := err.Error(); !strings.Contains(s, "ext4") || !strings.Contains(s, "xfs") {
		t.Errorf("the error does not say both: %v", err)
	}
	r.gone("v")
	r.stage("v", "")
	if b, _ := os.ReadFile(r.path("staging-v/file")); string(b) != "data" {
		t.Errorf("read back %q", b)
	}
	r.unstage("v")
}

// TestRealWrongDevice: the right path with another disk behind it.
func TestRealWrongDevice(t *testing.T) {
	n := newLoopNode(t)
	r := newRealRig(t, swapped{n}, n)
	n.make("v", 64*mib)
	n.make("other", 64*mib)
	err := r.Stage(t.Context(), r.stageReq("v", "ext4"))
	wantKind(t, err, backends.ErrPrecondition)
	if _, ok := errors.AsType[*blockdev.MismatchError](err); !ok {
		t.Errorf("got %v", err)
	}
	if r.isMount("staging-v") {
		t.Error("mounted")
	}
	if got := n.read("other", 1024, 512); strings.Trim(got, "\x00") != "" {
		t.Error("the other disk was written to")
	}
}

// swapped is a backend whose udev link went stale.
type swapped struct{ *loopNode }

func (s swapped) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	src, err := s.loopNode.OpenVolume(ctx, req)
	if err != nil {
		return nil, err
	}
	other, err := s.loopNode.OpenVolume(ctx, backends.OpenVolumeRequest{ID: "other"})
	if err != nil {
		return nil, err
	}
	src.Device.Path = other.Device.Path
	return src, nil
}

// TestRealDoneIsNeverFormatted: the backend says that there was a file system.
func TestRealDoneIsNeverFormatted(t *testing.T) {
	n := newLoopNode(t)
	r := newRealRig(t, loopRecorder{n}, n)
	n.make("v", 64*mib)
	n.format["v"], n.fsType["v"] = backends.FormatDone, "ext4"
	wantKind(t, r.Stage(t.Context(), r.stageReq("v", "ext4")), backends.ErrPrecondition)
	n.format["v"], n.fsType["v"] = backends.FormatNever, ""
	n.write("v", 8192, "the last tenant's")
	r.stage("v", "ext4")
	if n.format["v"] != backends.FormatDone || n.fsType["v"] != "ext4" {
		t.Errorf("recorded %s %s", n.format["v"], n.fsType["v"])
	}
	r.unstage("v")
	r.gone("v")
}

// TestRealReadOnlyMode mounts read-only, and the device shows no write.
func TestRealReadOnlyMode(t *testing.T) {
	n := newLoopNode(t)
	r := newRealRig(t, n, n)
	n.make("v", 64*mib)
	req := r.stageReq("v", "ext4")
	req.Capability.Mode = backends.MultiNodeReader
	wantKind(t, r.Stage(t.Context(), req), backends.ErrPrecondition) // blank
	r.gone("v")
	run(t, "mkfs.ext4", "-q", "-F", n.file("v"))
	must(t, r.Stage(t.Context(), req))
	if err := os.WriteFile(r.path("staging-v/file"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v", err)
	}
	r.unstage("v")
}

// TestRealGrowAtStage: a device that is bigger than its file system is used
// whole.
func TestRealGrowAtStage(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			testenv.Tool(t, "mkfs."+fsType)
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			n.make("v", 320*mib)
			r.stage("v", fsType)
			must(t, os.WriteFile(r.path("staging-v/file"), []byte("data"), 0o600))
			r.unstage("v")
			must(t, os.Truncate(n.file("v"), 640*mib))
			r.stage("v", fsType)
			st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("staging-v")})
			must(t, err)
			if st.Total < 480*mib {
				t.Errorf("%d bytes after growing", st.Total)
			}
			if b, _ := os.ReadFile(r.path("staging-v/file")); string(b) != "data" {
				t.Errorf("read back %q", b)
			}
			r.unstage("v")
		})
	}
}

// TestRealExpand grows while published, or says that the next stage will.
func TestRealExpand(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			testenv.Tool(t, "mkfs."+fsType)
			n := newLoopNode(t)
			r := newRealRig(t, n, n)
			n.make("v", 320*mib)
			r.stage("v", fsType)
			r.publish("v", "t")
			req := mounter.ExpandRequest{ID: "v", Path: r.path("t"), Range: backends.CapacityRange{Required: 640 * mib}}
			_, err := r.Expand(t.Context(), req)
			wantKind(t, err, backends.ErrOutOfRange)
			must(t, os.Truncate(n.file("v"), 640*mib))
			size, err := r.Expand(t.Context(), req)
			if errors.Is(err, backends.ErrPrecondition) && fsType == "ext4" {
				t.Logf("no online growth here: %v", err)
				r.unpublish("v", "t")
				r.unstage("v")
				r.stage("v", fsType)
				r.publish("v", "t")
				size, err = r.Expand(t.Context(), req)
			}
			must(t, err)
			if size != 640*mib {
				t.Errorf("size %d", size)
			}
			st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("t")})
			must(t, err)
			if st.Total < 480*mib {
				t.Errorf("%d bytes after growing", st.Total)
			}
			again, err := r.Expand(t.Context(), req)
			if err != nil || again != size {
				t.Errorf("again: %d, %v", again, err)
			}
			r.unpublish("v", "t")
			r.unstage("v")
			r.gone("v")
		})
	}
}

// TestRealBlock: raw block volumes, and what read-only means for them.
func TestRealBlock(t *testing.T) {
	n := newLoopNode(t)
	r := newRealRig(t, n, n)
	n.make("v", 16*mib)
	block := backends.Capability{Mode: backends.SingleNodeMultiWriter, Block: true}
	st := r.stageReq("v", "")
	st.Capability = block
	must(t, r.Stage(t.Context(), st))
	if r.isMount("staging-v") {
		t.Error("something is mounted at the staging path")
	}
	pub := r.publishReq("v", "dev/t1")
	pub.Capability = block
	must(t, r.Publish(t.Context(), pub))
	must(t, r.Publish(t.Context(), pub))
	f, err := os.OpenFile(r.path("dev/t1"), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("data"), 0)
	must(t, errors.Join(err, f.Sync(), f.Close()))
	if got := n.read("v", 0, 4); got != "data" {
		t.Errorf("read back %q", got)
	}
	mixed := pub
	mixed.Path, mixed.ReadOnly = r.path("dev/t2"), true
	wantKind(t, r.Publish(t.Context(), mixed), backends.ErrPrecondition)
	stats, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("dev/t1")})
	must(t, err)
	if !stats.Block || stats.Total != 16*mib {
		t.Errorf("stats %+v", stats)
	}
	must(t, os.Symlink(n.loop["v"].Path, r.path("kubelets-map")))
	if _, err = r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("kubelets-map")}); err != nil {
		t.Errorf("stats at kubelet's own path: %v", err)
	}
	must(t, os.Truncate(n.file("v"), 32*mib))
	size, err := r.Expand(t.Context(), mounter.ExpandRequest{ID: "v", Path: pub.Path, Range: backends.CapacityRange{Required: 32 * mib}})
	if err != nil || size != 32*mib {
		t.Errorf("expand: %d, %v", size, err)
	}
	r.unpublish("v", "dev/t1")
	must(t, r.Publish(t.Context(), mixed))
	if f, err := os.OpenFile(mixed.Path, os.O_RDWR, 0); err == nil {
		_, err = f.WriteAt([]byte("oops"), 0)
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("write to the read-only device: %v", err)
		}
		must(t, f.Close())
	}
	r.unpublish("v", "dev/t2")
	must(t, r.Publish(t.Context(), pub)) // writable again
	r.unpublish("v", "dev/t1")
	if _, err := os.Lstat(r.path("dev/t1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("target left: %v", err)
	}
	r.unstage("v")
	r.gone("v")
}
