package mounter_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
)

// machine drives one volume with calls, faults, deaths and other people's mounts
// in any order, and looks after each step at what may never happen.
type machine struct {
	*rig
	k       *killer
	targets []string
	uuid    string // of the file system, once a stage said OK
	lost    bool   // a record; from then on only the backend knows what is in use
	wrong   error

	published map[string]mounter.PublishRequest // by target: the last that said OK
	remembers bool                              // the backend, what it was formatted with
	instead   *blockdev.Content                 // what is on the disk, while something else is at its path
}

// inUse is a storage system that does not let go of what is mounted. The engine
// does not ask that of it, unless it was robbed of its records.
func (m *machine) inUse() error {
	for _, i := range m.Kernel.Mounts() {
		if i.Source != "/dev/a" {
			continue
		}
		if !m.lost {
			m.wrong = fmt.Errorf("to be closed while it is mounted at %s", i.Point)
		}
		return backends.ErrInUse
	}
	return nil
}

func (m *machine) path(t *rapid.T) string {
	return rapid.SampledFrom(append([]string{m.staging}, m.targets...)).Draw(t, "path")
}

// call runs one call, with a death in it now and then, and repeats nothing.
func (m *machine) call(t *rapid.T, f func() error) (ok bool) {
	m.k.points, m.k.at, m.k.seen = 0, 0, nil
	if rapid.IntRange(0, 3).Draw(t, "dies") == 0 {
		m.k.at = rapid.IntRange(1, 12).Draw(t, "at")
	}
	where, err := dies(f)
	m.k.at = 0
	t.Logf("answer %v, died at %q", err, where)
	if where != "" {
		if err := m.Restart(); err != nil {
			t.Fatal(err)
		}
		return false
	}
	return err == nil
}

func (m *machine) Stage(t *rapid.T) {
	req := m.stageRequest()
	ro := rapid.IntRange(0, 3).Draw(t, "reader") == 0
	if ro {
		req.Capability.Mode = backends.SingleNodeReader
	}
	if !m.call(t, func() error { return m.Engine.Stage(t.Context(), req) }) {
		return
	}
	m.isVolume(t, m.staging, ro)
	c := m.disk.Content()
	if m.uuid == "" {
		m.uuid = c.UUID
	}
}

func (m *machine) Publish(t *rapid.T) {
	req := m.publishRequest()
	req.Path = rapid.SampledFrom(m.targets).Draw(t, "target")
	req.ReadOnly = rapid.Bool().Draw(t, "readonly")
	if m.call(t, func() error { return m.Engine.Publish(t.Context(), req) }) {
		m.published[req.Path] = req
		m.isVolume(t, m.staging, false)
		m.isVolume(t, req.Path, req.ReadOnly)
	}
}

func (m *machine) Unpublish(t *rapid.T) {
	path := rapid.SampledFrom(m.targets).Draw(t, "target")
	if !m.call(t, func() error {
		return m.Engine.Unpublish(t.Context(), mounter.UnpublishRequest{ID: "v", Path: path})
	}) {
		return
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) || m.mountsAt(path) > 0 {
		t.Fatalf("unpublished, and %s is left: %v", path, err)
	}
}

func (m *machine) Unstage(t *rapid.T) {
	if !m.call(t, func() error { return m.Engine.Unstage(t.Context(), m.unstageRequest()) }) {
		return
	}
	if m.mountsAt(m.staging) > 0 || m.node.isOpen("v") || len(m.Volumes()) > 0 && !m.onlyTargets() {
		t.Fatalf("unstaged, and left: %v, open %v, %v", m.Kernel.Mounts(), m.node.isOpen("v"), m.Volumes())
	}
}

// onlyTargets: what records there are do not speak of the staging path.
func (m *machine) onlyTargets() bool {
	files, err := filepath.Glob(filepath.Join(m.StateDir(), "v1", "stage-*"))
	return err == nil && len(files) == 0
}

func (m *machine) Restarts(t *rapid.T) {
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) Reboots(t *rapid.T) {
	m.Kernel.Reboot()
	m.Restarts(t)
}

func (m *machine) SomebodyMounts(t *rapid.T) {
	path := m.path(t)
	if _, err := os.Lstat(path); err == nil {
		m.Kernel.MountForeign(path)
	}
}

func (m *machine) SomebodyUnmounts(t *rapid.T) { m.Kernel.UnmountForeign(m.path(t)) }

func (m *machine) Fails(t *rapid.T) {
	op := rapid.SampledFrom([]string{"Mkfs", "Mount", "Bind", "Unwind", "Probe", "OpenDevice", "DiskSeq", "MountsAt", "MountsOf", "Verify", "FSSize"}).Draw(t, "operation")
	m.Kernel.Fail(op, 1, fmt.Errorf("%s: input/output error", op))
}

// Loses is a record that is gone, with the driver down.
func (m *machine) Loses(t *rapid.T) {
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(m.StateDir(), "v1", "*.json"))
	if err == nil && len(files) > 0 {
		err = os.Remove(rapid.SampledFrom(files).Draw(t, "record"))
	}
	if err != nil {
		t.Fatal(err)
	}
	m.lost = true
	m.Restarts(t)
}

// Pulls takes the disk out, unless somebody uses it, and puts it back later as
// another instance.
func (m *machine) Pulls(*rapid.T) {
	if len(m.Kernel.Mounts()) == 0 {
		m.disk.Remove()
	}
}

func (m *machine) Inserts(*rapid.T) { m.insert() }

func (m *machine) insert() {
	if c := m.instead; c != nil {
		m.disk.Replace(backends.Identity{Serial: "A"})
		m.disk.SetContent(*c)
		m.instead = nil
	}
	m.disk.Insert()
}

// PublishesAgain repeats a publish while somebody else's mount is on top of it.
func (m *machine) PublishesAgain(t *rapid.T) {
	req, ok := m.published[rapid.SampledFrom(m.targets).Draw(t, "target")]
	if !ok || m.mountsAt(req.Path) != 1 {
		return
	}
	m.Kernel.MountForeign(req.Path)
	if m.call(t, func() error { return m.Engine.Publish(t.Context(), req) }) {
		t.Fatalf("published, and somebody else's mount is on top: %v", m.Kernel.Mounts())
	}
	m.Kernel.UnmountForeign(req.Path)
}

// Swaps stages while another disk, of somebody else's, is at the path of the
// volume's: after a restart of the storage, a device that was called the same before.
func (m *machine) Swaps(t *rapid.T) {
	theirs := blockdev.Content{State: blockdev.Filesystem, Type: "ext4", UUID: "theirs", Clean: true}
	m.stageInstead(t, "B", theirs)
}

// ReadsBlank stages while the volume's own disk reads as if nothing were on it.
// Only a backend that remembers formats can know better.
func (m *machine) ReadsBlank(t *rapid.T) {
	if m.remembers {
		m.stageInstead(t, "A", blockdev.Content{State: blockdev.Blank})
	}
}

// Unreadable stages while the disk cannot be read.
func (m *machine) Unreadable(t *rapid.T) {
	if m.leaves(t) {
		m.Kernel.Fail("Probe", 1, errors.New("Probe: input/output error"))
		m.Stage(t)
	}
}

// leaves ends all use of the volume, as far as it can.
func (m *machine) leaves(t *rapid.T) bool {
	for _, p := range m.targets {
		_ = m.Engine.Unpublish(t.Context(), mounter.UnpublishRequest{ID: "v", Path: p})
	}
	err := m.Engine.Unstage(t.Context(), m.unstageRequest())
	return err == nil && m.uuid != "" && m.instead == nil && len(m.Kernel.Mounts()) == 0
}

func (m *machine) stageInstead(t *rapid.T, serial string, there blockdev.Content) {
	if !m.leaves(t) {
		return
	}
	c := m.disk.Content()
	m.instead = &c
	m.disk.Replace(backends.Identity{Serial: serial})
	m.disk.SetContent(there)
	staged := m.call(t, func() error { return m.Engine.Stage(t.Context(), m.stageRequest()) })
	if staged || m.disk.Content() != there {
		t.Fatalf("what is not the volume was staged (%v), or formatted: %v", staged, m.Kernel.Log())
	}
	m.insert()
}

func (m *machine) CannotClose(*rapid.T) { m.node.failOnce("close", backends.ErrInUse) }
func (m *machine) CannotOpen(t *rapid.T) {
	m.node.failOnce("open", rapid.SampledFrom([]error{backends.ErrPrecondition, errors.New("no answer")}).Draw(t, "error"))
}

// Check is what may never happen.
func (m *machine) Check(t *rapid.T) {
	if c := m.disk.Content(); m.uuid != "" && m.instead == nil && (c.State != blockdev.Filesystem || c.UUID != m.uuid) {
		t.Fatalf("the file system is gone: %s; %v", c, m.Kernel.Log())
	}
	if m.wrong != nil {
		t.Fatal(m.wrong)
	}
	own := map[string]int{}
	for _, i := range m.Kernel.Mounts() {
		if i.Source == "foreign" {
			continue
		}
		if own[i.Point]++; own[i.Point] > 1 {
			t.Fatalf("stacked at %s: %v", i.Point, m.Kernel.Mounts())
		}
		if !m.node.isOpen("v") {
			t.Fatalf("closed while it is mounted at %s", i.Point)
		}
	}
}

// isVolume: an OK is what the kernel shows.
func (m *machine) isVolume(t *rapid.T, path string, readOnly bool) {
	mounts, err := m.Kernel.MountsAt(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(mounts) == 0 || mounts[0].Source != "/dev/a" || mounts[0].ReadOnly() != readOnly && path != m.staging {
		t.Fatalf("OK, and %s holds %+v", path, mounts)
	}
}

// TestModel: whatever happens, data lives, an OK is true, and in the end nothing
// is left.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// Everything but the disk is the test's own; the directories go with t.
		remembers, wrap := rapid.Bool().Draw(rt, "recorder"), (func(*node) backends.Node)(nil)
		if remembers {
			wrap = asRecorder
		}
		r, k := newCrashRig(t, 0, wrap)
		m := &machine{rig: r, k: k, remembers: remembers, published: map[string]mounter.PublishRequest{}, targets: []string{filepath.Join(r.dir, "t1"), filepath.Join(r.dir, "pods/t2")}}
		r.node.inUse = m.inUse
		rt.Repeat(map[string]func(*rapid.T){
			"stage": m.Stage, "publish": m.Publish, "unpublish": m.Unpublish, "unstage": m.Unstage,
			"stage 2": m.Stage, "publish 2": m.Publish,
			"restart": m.Restarts, "reboot": m.Reboots, "somebody mounts": m.SomebodyMounts, "somebody unmounts": m.SomebodyUnmounts,
			"fault": m.Fails, "lose a record": m.Loses, "pull": m.Pulls, "insert": m.Inserts, "swap": m.Swaps, "reads blank": m.ReadsBlank, "unreadable": m.Unreadable, "publish again": m.PublishesAgain,
			"cannot close": m.CannotClose, "cannot open": m.CannotOpen, "": m.Check,
		})
		m.end(rt)
	})
}

// end undoes everything, as a CO does that does not give up.
func (m *machine) end(t *rapid.T) {
	for _, i := range m.Kernel.Mounts() {
		if i.Source == "foreign" {
			m.Kernel.UnmountForeign(i.Point) // nothing is ever put on top of one
		}
	}
	m.insert()
	var all error
	for range 20 { // faults that are still pending
		all = nil
		for _, p := range m.targets {
			all = errors.Join(all, m.Engine.Unpublish(t.Context(), mounter.UnpublishRequest{ID: "v", Path: p}))
		}
		all = errors.Join(all, m.Engine.Unstage(t.Context(), m.unstageRequest()))
		if all == nil {
			break
		}
	}
	if left := m.Kernel.Mounts(); len(left) > 0 || m.node.isOpen("v") || len(m.Volumes()) > 0 {
		t.Fatalf("left: %v, open %v, %v: %v", left, m.node.isOpen("v"), m.Volumes(), all)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestConcurrent: many calls for one volume, and for others, at once.
func TestConcurrent(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	var wg sync.WaitGroup
	for i := range 8 {
		id := "v"
		if i >= 4 {
			id = fmt.Sprint("w", i)
			path := "/dev/" + id
			r.Kernel.AddDisk(path, gib, backends.Identity{Serial: id})
			r.node.mu.Lock() // the first volumes' calls run already
			r.node.sources[id] = &backends.Source{Device: &backends.Device{Path: path, Identity: backends.Identity{Serial: id}}}
			r.node.mu.Unlock()
		}
		staging, target := r.staging+id, filepath.Join(r.dir, fmt.Sprint("t", i))
		wg.Go(func() {
			st, pub := r.stageRequest(), r.publishRequest()
			st.ID, st.Path, pub.ID, pub.StagingPath, pub.Path = id, staging, id, staging, target
			for range 10 {
				// One call may meet another's unstage; what counts is the end.
				_ = r.Stage(ctx, st)
				_ = r.Publish(ctx, pub)
				_, _ = r.Stats(ctx, mounter.StatsRequest{ID: id, Path: target})
				_, _ = r.Expand(ctx, mounter.ExpandRequest{ID: id, Path: target})
				if err := r.Unpublish(ctx, mounter.UnpublishRequest{ID: id, Path: target}); err != nil {
					t.Error(err)
				}
				if err := r.Unstage(ctx, mounter.UnstageRequest{ID: id, Path: staging}); err != nil && !errors.Is(err, backends.ErrInUse) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, id := range r.Volumes() {
		must(t, r.Unstage(ctx, mounter.UnstageRequest{ID: id, Path: r.staging + id}))
	}
	r.clean()
	if n := r.mkfs(); n != 5 {
		t.Errorf("mkfs ran %d times for 5 volumes", n)
	}
}
