package mounter_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
	wait  time.Duration // Options.StatsTimeout
}

// within has the engine wait for so long, and no longer, for what does not answer. The
// callers of a test have all the time: on a busy machine a short context ends before
// an engine that does as it should.
func (r *realRig) within(d time.Duration, node backends.Node) {
	r.t.Helper()
	must(r.t, r.Close())
	r.wait = d
	r.start(node)
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

// newRealVolume is an engine with one loop device, volume v.
func newRealVolume(t testing.TB, size int64) (*loopNode, *realRig) {
	t.Helper()
	n := newLoopNode(t)
	r := newRealRig(t, n, n)
	n.make("v", size)
	return n, r
}

// holds fails unless a file in the working directory has this content.
func (r *realRig) holds(name, want string) {
	r.t.Helper()
	if b, err := os.ReadFile(r.path(name)); string(b) != want {
		r.t.Errorf("%s: read back %q, %v", name, b, err)
	}
}

func (r *realRig) start(node backends.Node) {
	r.t.Helper()
	e, err := mounter.New(node, &mounter.Options{StateDir: r.state, AllowVolatileState: true, StatsTimeout: r.wait})
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
