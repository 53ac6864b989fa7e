package mounter_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mnt"
)

// fickleNode is a backend whose loop devices vanish now and then: what it knows
// is what the kernel shows.
type fickleNode struct{ *loopNode }

func (n fickleNode) OpenVolume(ctx context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	n.forget(req.ID)
	return n.loopNode.OpenVolume(ctx, req)
}

func (n fickleNode) CloseVolume(ctx context.Context, req backends.CloseVolumeRequest) error {
	n.forget(req.ID)
	return n.loopNode.CloseVolume(ctx, req)
}

// forget drops a loop device that somebody detached.
func (n fickleNode) forget(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.loop[id]
	if l == nil {
		return
	}
	dev, ino := n.inode(id)
	if is, err := blockdev.LoopIs(l.Path, dev, ino); err == nil && !is {
		delete(n.loop, id)
	}
}

func (n fickleNode) RecordFormat(ctx context.Context, req backends.RecordFormatRequest) error {
	return loopRecorder(n).RecordFormat(ctx, req)
}

// realVolume is one volume of the model, and what is known of it.
type realVolume struct {
	id, fsType string // "block": raw
	size       int64
	marked     bool // its own ID was written into it
	cut        bool // the end of its file is missing: reading there is an I/O error
}

// realMachine drives volumes on real loop devices and file systems with calls and
// with what other people do to a node.
type realMachine struct {
	*realRig
	node    fickleNode
	volumes []*realVolume
	targets []string
	last    func(*rapid.T) // the last publish, once more
	steps   int
}

const cutBytes = 128 << 10 // within what a probe reads, beyond what these file systems use

func newRealMachine(t testing.TB) *realMachine {
	loops := newLoopNode(t)
	node := fickleNode{loops}
	m := &realMachine{realRig: newRealRig(t, node, loops), node: node, volumes: []*realVolume{
		{id: "e", fsType: "ext4", size: 64 << 20}, {id: "x", fsType: "xfs", size: 320 << 20},
		{id: "b", fsType: "btrfs", size: 256 << 20}, {id: "r", fsType: "block", size: 16 << 20},
	}}
	for _, v := range m.volumes {
		loops.make(v.id, v.size)
	}
	m.targets = []string{"t1", "pods/t2"}
	return m
}

func (m *realMachine) volume(t *rapid.T) *realVolume {
	return rapid.SampledFrom(m.volumes).Draw(t, "volume")
}

func (m *realMachine) target(t *rapid.T, v *realVolume) string {
	return rapid.SampledFrom(m.targets).Draw(t, "target") + "-" + v.id
}

func (v *realVolume) capability(mode backends.AccessMode) backends.Capability {
	c := backends.Capability{Mode: mode, Block: v.fsType == "block"}
	if !c.Block {
		c.FSType = v.fsType
	}
	return c
}

func (m *realMachine) staging(v *realVolume) string { return m.path("staging-" + v.id) }

func (m *realMachine) Stage(t *rapid.T) {
	v := m.volume(t)
	mode := rapid.SampledFrom([]backends.AccessMode{backends.SingleNodeWriter, backends.SingleNodeWriter, backends.SingleNodeReader}).Draw(t, "mode")
	err := m.Engine.Stage(t.Context(), mounter.StageRequest{ID: v.id, Path: m.staging(v), Capability: v.capability(mode)})
	if err != nil {
		return
	}
	if v.fsType == "block" {
		return
	}
	m.holds(t, v, m.staging(v), 1)
	if mode == backends.SingleNodeWriter && !v.marked {
		m.write(t, m.staging(v), v)
	}
}

// write leaves the mark by which the volume is known from now on.
func (m *realMachine) write(t *rapid.T, path string, v *realVolume) {
	if v.fsType != "block" {
		path = filepath.Join(path, "mark")
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_SYNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("volume "+v.id), 0)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	v.marked = true
}

// holds: an OK is what the kernel shows: the volume itself, mounted once.
func (m *realMachine) holds(t *rapid.T, v *realVolume, path string, n int) {
	mounts, err := mnt.At(path)
	if err != nil || len(mounts) != n {
		t.Fatalf("OK, and %s has %d mounts, not %d (%v): %v", path, len(mounts), n, err, mounts)
	}
	if !v.marked {
		return
	}
	if v.fsType != "block" {
		path = filepath.Join(path, "mark")
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatalf("the volume's data is gone: %v", err)
	}
	got := make([]byte, len("volume ")+1)
	_, err = f.ReadAt(got, 0)
	if err := errors.Join(err, f.Close()); err != nil || string(got) != "volume "+v.id {
		t.Fatalf("%s holds %q, and is volume %s: %v", path, got, v.id, err)
	}
}

func (m *realMachine) Publish(t *rapid.T) {
	v := m.volume(t)
	path, ro := m.path(m.target(t, v)), rapid.Bool().Draw(t, "readonly")
	m.last = func(t *rapid.T) { m.publishAt(t, v, path, ro) }
	m.last(t)
}

func (m *realMachine) publishAt(t *rapid.T, v *realVolume, path string, ro bool) {
	err := m.Engine.Publish(t.Context(), mounter.PublishRequest{
		ID: v.id, StagingPath: m.staging(v), Path: path, ReadOnly: ro, Capability: v.capability(backends.SingleNodeWriter),
	})
	if err != nil {
		return
	}
	m.holds(t, v, path, 1)
	if ro {
		m.refusesWrites(t, v, path)
	} else {
		m.write(t, path, v)
	}
}

func (m *realMachine) PublishesAgain(t *rapid.T) {
	if m.last != nil {
		m.last(t)
	}
}

func (m *realMachine) refusesWrites(t *rapid.T, v *realVolume, path string) {
	flags := os.O_WRONLY
	if v.fsType != "block" {
		path, flags = filepath.Join(path, "new"), os.O_WRONLY|os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return
	}
	_, err = f.WriteAt([]byte("overwritten"), 0) // the node of a read-only device opens
	if err := errors.Join(err, f.Sync()); err == nil {
		t.Errorf("published read-only, and %s can be written", path)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func (m *realMachine) Unpublish(t *rapid.T) {
	v := m.volume(t)
	path := m.path(m.target(t, v))
	if m.Engine.Unpublish(t.Context(), mounter.UnpublishRequest{ID: v.id, Path: path}) == nil {
		m.gonePath(t, path)
	}
}

func (m *realMachine) gonePath(t *rapid.T, path string) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("unpublished, and %s is left (%v)", path, err)
	}
}

func (m *realMachine) Unstage(t *rapid.T) {
	v := m.volume(t)
	if m.Engine.Unstage(t.Context(), mounter.UnstageRequest{ID: v.id, Path: m.staging(v)}) != nil {
		return
	}
	if mounts, err := mnt.At(m.staging(v)); err != nil && !errors.Is(err, fs.ErrNotExist) || len(mounts) > 0 {
		t.Fatalf("unstaged, and %s has mounts %v (%v)", m.staging(v), mounts, err)
	}
	if l := m.loops(t, v); len(l) > 0 {
		t.Fatalf("unstaged, and loop devices are left: %v", l)
	}
}

func (m *realMachine) loops(t *rapid.T, v *realVolume) []blockdev.Loop {
	dev, ino := m.node.inode(v.id)
	l, err := blockdev.LoopOf(dev, ino)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (m *realMachine) Stats(t *rapid.T) {
	v := m.volume(t)
	_, _ = m.Engine.Stats(t.Context(), mounter.StatsRequest{ID: v.id, Path: m.path(m.target(t, v))})
}

func (m *realMachine) Restarts(t *rapid.T) {
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m.start(m.node)
}

func (m *realMachine) anyPath(t *rapid.T) string {
	v := m.volume(t)
	if rapid.Bool().Draw(t, "staging") {
		return m.staging(v)
	}
	return m.path(m.target(t, v))
}

func (m *realMachine) SomebodyMounts(t *rapid.T) {
	path := m.anyPath(t)
	if st, err := os.Stat(path); err != nil || !st.IsDir() {
		return
	}
	if err := unix.Mount("foreign", path, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
}

func (m *realMachine) SomebodyUnmounts(t *rapid.T) {
	_ = unix.Unmount(m.anyPath(t), unix.MNT_DETACH) // there may be nothing
}

// Detaches takes the device of a volume away that nobody has mounted.
func (m *realMachine) Detaches(t *rapid.T) {
	v := m.volume(t)
	if m.isUsed(t, v) {
		return
	}
	for _, l := range m.loops(t, v) {
		if err := blockdev.DetachLoop(context.Background(), l.Path, l.Dev, l.Ino); err != nil {
			t.Fatal(err)
		}
	}
}

func (m *realMachine) isUsed(t *rapid.T, v *realVolume) bool {
	all, err := mnt.List()
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(all, func(i mnt.Info) bool {
		return i.Source != "foreign" && strings.HasPrefix(i.Point, m.dir+"/") && strings.HasSuffix(i.Point, "-"+v.id)
	})
}

// Fails cuts the end of a volume's file off, so that the kernel answers EIO there.
func (m *realMachine) Fails(t *rapid.T) {
	if v := m.volume(t); !m.isUsed(t, v) {
		m.truncate(t, v, v.size-cutBytes)
	}
}

func (m *realMachine) Mends(t *rapid.T) {
	v := m.volume(t)
	m.truncate(t, v, v.size)
}

func (m *realMachine) truncate(t *rapid.T, v *realVolume, size int64) {
	if err := os.Truncate(m.node.file(v.id), size); err != nil {
		t.Fatal(err)
	}
	v.cut = size < v.size
}

func (m *realMachine) Check(t *rapid.T) {
	m.steps++
	all, err := mnt.List()
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]int{}
	for _, i := range all {
		if i.Source == "foreign" || !strings.HasPrefix(i.Point, m.dir+"/") {
			continue
		}
		if own[i.Point]++; own[i.Point] > 1 {
			t.Fatalf("stacked at %s", i.Point)
		}
	}
}

// end undoes everything, as a CO does that does not give up, and counts.
func (m *realMachine) end(t *rapid.T) {
	all, err := mnt.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range slices.Backward(all) {
		if i.Source == "foreign" && strings.HasPrefix(i.Point, m.dir+"/") {
			if err := unix.Unmount(i.Point, 0); err != nil {
				t.Fatalf("%s: %v", i.Point, err)
			}
		}
	}
	for _, v := range m.volumes {
		m.truncate(t, v, v.size)
		for _, target := range m.targets {
			path := m.path(target + "-" + v.id)
			if err := m.Engine.Unpublish(t.Context(), mounter.UnpublishRequest{ID: v.id, Path: path}); err != nil {
				t.Fatal(err)
			}
			m.gonePath(t, path)
		}
		if err := m.Engine.Unstage(t.Context(), mounter.UnstageRequest{ID: v.id, Path: m.staging(v)}); err != nil {
			t.Fatal(err)
		}
		if l := m.loops(t, v); len(l) > 0 {
			t.Fatalf("loop devices left: %v", l)
		}
		if err := os.Remove(m.staging(v)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if left := m.Volumes(); len(left) > 0 || m.mounts(t) > 0 {
		t.Fatalf("left: records of %v, %d mounts", left, m.mounts(t))
	}
}

func (m *realMachine) mounts(t *rapid.T) (n int) {
	all, err := mnt.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if strings.HasPrefix(i.Point, m.dir+"/") {
			n++
		}
	}
	return n
}

// descriptors are the files that this process has open, by what they are.
func descriptors(t testing.TB) map[string]int {
	t.Helper()
	open := map[string]int{}
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, fd := range fds {
		name, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && !strings.Contains(name, ":[") && !strings.HasPrefix(name, "/proc/") {
			open[name]++
		}
	}
	return open
}

func children(t testing.TB) string {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	must(t, err)
	var all []byte
	for _, f := range files {
		b, _ := os.ReadFile(f) // a thread may have ended
		all = append(all, b...)
	}
	return string(all)
}

// oneWalk is the test as one walk of many sees it: cleanups run when the walk ends.
type oneWalk struct {
	testing.TB
	cleanups []func()
}

func (w *oneWalk) Cleanup(f func()) { w.cleanups = append(w.cleanups, f) }

func (w *oneWalk) end() {
	for _, f := range slices.Backward(w.cleanups) {
		f()
	}
}

// TestRealModel: on real devices too data lives, an OK is true, and in the end
// there are no mounts, loop devices, records, descriptors and processes left.
// Run with -rapid.checks=1000 for a longer walk.
func TestRealModel(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs")
	steps := 0
	rapid.Check(t, func(rt *rapid.T) {
		w := &oneWalk{TB: t}
		defer w.end()
		m := newRealMachine(w)
		before := descriptors(t)
		rt.Repeat(map[string]func(*rapid.T){
			"stage": m.Stage, "stage 2": m.Stage, "publish": m.Publish, "publish 2": m.Publish, "publish again": m.PublishesAgain,
			"unpublish": m.Unpublish, "unstage": m.Unstage, "stats": m.Stats, "restart": m.Restarts,
			"somebody mounts": m.SomebodyMounts, "somebody unmounts": m.SomebodyUnmounts,
			"detach": m.Detaches, "fail": m.Fails, "mend": m.Mends, "": m.Check,
		})
		m.end(rt)
		if after := descriptors(t); !maps.Equal(before, after) {
			rt.Fatalf("descriptors before %v and after %v", before, after)
		}
		if c := children(t); c != "" {
			rt.Fatalf("processes left: %s", c)
		}
		steps += m.steps
	})
	t.Logf("%d steps", steps)
}
