package mounter_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
	"github.com/csikit/csikit/mounter/mountertest"
)

// node is a backend of one source for each volume.
type node struct {
	mu      sync.Mutex
	sources map[string]*backends.Source
	calls   []string
	open    map[string]int
	states  map[string][]byte   // what CloseVolume was given
	fail    map[string]error    // by method
	once    map[string]error    // by method, for one call
	inUse   func() error        // what keeps the volume open; nil ok
	changed func(method string) // after the effect; a panic in it is a driver that dies
}

func newNode() *node {
	return &node{sources: map[string]*backends.Source{}, open: map[string]int{}, states: map[string][]byte{}, fail: map[string]error{}, once: map[string]error{}}
}

func (n *node) failOnce(method string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.once[method] = err
}

// failing is the error of this call of a method.
func (n *node) failing(method string) error {
	if err := n.once[method]; err != nil {
		delete(n.once, method)
		return err
	}
	return n.fail[method]
}

func (n *node) note(format string, args ...any) {
	n.calls = append(n.calls, fmt.Sprintf(format, args...))
}

func (n *node) OpenVolume(_ context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.note("open %s", req.ID)
	if err := n.failing("open"); err != nil {
		return nil, err
	}
	src := n.sources[req.ID]
	if src == nil {
		return nil, backends.VolumeNotFound(req.ID)
	}
	n.open[req.ID]++
	n.after("OpenVolume")
	c := *src
	return &c, nil
}

func (n *node) CloseVolume(_ context.Context, req backends.CloseVolumeRequest) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.note("close %s", req.ID)
	if err := n.failing("close"); err != nil {
		return err
	}
	if n.inUse != nil {
		if err := n.inUse(); err != nil {
			return err
		}
	}
	n.open[req.ID] = 0
	n.states[req.ID] = req.State
	n.after("CloseVolume")
	return nil
}

func (n *node) after(method string) {
	if n.changed != nil {
		n.changed(method)
	}
}

func (n *node) log() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.calls)
}

func (n *node) isOpen(id string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open[id] > 0
}

// recorder is a node whose storage remembers formats.
type recorder struct {
	*node
	formats []backends.RecordFormatRequest
}

func (r *recorder) RecordFormat(_ context.Context, req backends.RecordFormatRequest) error {
	r.note("format %s %s %s", req.ID, req.Format, req.FSType)
	if err := r.fail["format "+req.Format.String()]; err != nil {
		return err
	}
	r.formats = append(r.formats, req)
	d := r.sources[req.ID].Device
	d.Format, d.FSType = req.Format, req.FSType
	r.after("RecordFormat")
	return nil
}

// full is a node with everything that the engine asks for.
type full struct {
	*recorder
	expand    func(backends.NodeExpandVolumeRequest) error
	recovered []backends.OpenVolume
	targets   []backends.TargetRequest
}

func (f *full) NodeExpandVolume(_ context.Context, req backends.NodeExpandVolumeRequest) error {
	f.note("expand %s", req.ID)
	if f.expand != nil {
		return f.expand(req)
	}
	return nil
}

func (f *full) RecoverNode(_ context.Context, open []backends.OpenVolume) error {
	f.recovered = open
	return nil
}

func (f *full) PrepareTarget(_ context.Context, req backends.TargetRequest) error {
	f.targets = append(f.targets, req)
	return f.fail["prepare"]
}

var (
	_ backends.FormatRecorder = (*recorder)(nil)
	_ backends.NodeExpander   = (*full)(nil)
	_ backends.NodeRecoverer  = (*full)(nil)
	_ backends.TargetPreparer = (*full)(nil)
)

// rig is an engine over a fake kernel with one disk, volume "v".
type rig struct {
	t testing.TB
	*mountertest.Engine
	node            *node
	disk            *mountertest.Disk
	dir             string
	staging, target string
}

const gib = 1 << 30

// newRig starts an engine; wrap turns the plain node into one that can do more.
func newRig(t testing.TB, wrap func(*node) backends.Node) *rig {
	t.Helper()
	n := newNode()
	var b backends.Node = n
	if wrap != nil {
		b = wrap(n)
	}
	r := &rig{t: t, node: n, dir: t.TempDir()}
	r.Engine = mountertest.New(t, b, nil)
	r.disk = r.Kernel.AddDisk("/dev/a", gib, backends.Identity{Serial: "A"})
	n.sources["v"] = &backends.Source{
		Device: &backends.Device{Path: "/dev/a", Identity: backends.Identity{Serial: "A"}}, State: []byte("state of v"),
	}
	r.staging, r.target = filepath.Join(r.dir, "staging"), filepath.Join(r.dir, "pods/1/mount")
	return r
}

func (r *rig) stageRequest() mounter.StageRequest {
	return mounter.StageRequest{ID: "v", Path: r.staging, Capability: backends.Capability{Mode: backends.SingleNodeWriter, FSType: "ext4"}}
}

func (r *rig) publishRequest() mounter.PublishRequest {
	return mounter.PublishRequest{ID: "v", StagingPath: r.staging, Path: r.target, Capability: r.stageRequest().Capability}
}

func (r *rig) stage()     { r.t.Helper(); must(r.t, r.Stage(r.t.Context(), r.stageRequest())) }
func (r *rig) publish()   { r.t.Helper(); must(r.t, r.Publish(r.t.Context(), r.publishRequest())) }
func (r *rig) unpublish() { r.t.Helper(); must(r.t, r.Unpublish(r.t.Context(), r.unpublishRequest())) }
func (r *rig) unstage()   { r.t.Helper(); must(r.t, r.Unstage(r.t.Context(), r.unstageRequest())) }

func (r *rig) unstageRequest() mounter.UnstageRequest {
	return mounter.UnstageRequest{ID: "v", Path: r.staging}
}

func (r *rig) unpublishRequest() mounter.UnpublishRequest {
	return mounter.UnpublishRequest{ID: "v", Path: r.target}
}

func (r *rig) mkfs() int {
	n := 0
	for _, l := range r.Kernel.Log() {
		if len(l) > 5 && l[:5] == "mkfs." {
			n++
		}
	}
	return n
}

func (r *rig) mountsAt(path string) int {
	n := 0
	for _, m := range r.Kernel.Mounts() {
		if m.Point == path {
			n++
		}
	}
	return n
}

// clean fails when anything is left.
func (r *rig) clean() {
	r.t.Helper()
	if m := r.Kernel.Mounts(); len(m) > 0 {
		r.t.Errorf("mounts left: %+v", m)
	}
	if v := r.Volumes(); len(v) > 0 {
		r.t.Errorf("volumes left: %v", v)
	}
	if r.node.isOpen("v") {
		r.t.Error("volume left open")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("got error %v, want kind %q", err, kind)
	}
}

func mntBind() mnt.BindOptions { return mnt.BindOptions{} }
