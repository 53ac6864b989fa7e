package csidriver

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

const gi = int64(1) << 30

// memory is a backend of both halves in memory. Its hooks run before the method
// does its work; a hook's error is the method's.
type memory struct {
	mu      sync.Mutex
	volumes map[string]*backends.Volume
	made    atomic.Int64 // how often a volume was made

	without func(*backends.ControllerFeatures, *backends.NodeFeatures) // what it gives up
	hook    func(ctx context.Context, method string) error
	answer  func(*backends.Volume) *backends.Volume // replaces what CreateVolume answers
	check   func(backends.CheckVolumeRequest) error
	place   backends.Segments
	limit   int64
	stale   bool
}

// memoryID fits into 128 bytes whatever the name is.
func memoryID(name string) string {
	if len(name) < 100 {
		return "id-" + name
	}
	return fmt.Sprintf("id-%x", sha256.Sum256([]byte(name)))
}

func newMemory() *memory { return &memory{volumes: make(map[string]*backends.Volume)} }

func memoryTraits() backends.Traits {
	return backends.Traits{
		Modes:       []backends.AccessMode{backends.SingleNodeWriter, backends.SingleNodeSingleWriter, backends.SingleNodeMultiWriter, backends.MultiNodeReader},
		Block:       true,
		Filesystem:  true,
		Devices:     true,
		FSTypes:     []string{"ext4", "xfs"},
		Lifecycle:   backends.Persistent,
		SizeMin:     1 << 20,
		SizeMax:     1 << 40,
		SizeStep:    1 << 20,
		SizeDefault: gi,
	}
}

func (m *memory) FilterController(f *backends.ControllerFeatures) { m.filter(f, nil) }
func (m *memory) FilterNode(f *backends.NodeFeatures)             { m.filter(nil, f) }

func (m *memory) filter(c *backends.ControllerFeatures, n *backends.NodeFeatures) {
	if n != nil && m.place == nil {
		n.TopologyReporter = nil
	}
	if m.without == nil {
		return
	}
	m.without(cmp.Or(c, new(backends.ControllerFeatures)), cmp.Or(n, new(backends.NodeFeatures)))
}

func (m *memory) before(ctx context.Context, method string) error {
	if m.hook == nil {
		return nil
	}
	return m.hook(ctx, method)
}

func (m *memory) Volume(ctx context.Context, req backends.VolumeRequest) (*backends.Volume, error) {
	if err := m.before(ctx, "Volume"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.volumes[req.ID]; ok {
		return v, nil
	}
	return nil, backends.VolumeNotFound(req.ID)
}

func (m *memory) FindVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	if err := m.before(ctx, "FindVolume"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.volumes[memoryID(req.Name)]; ok {
		return v, nil
	}
	return nil, backends.VolumeNotFound(req.Name)
}

func (m *memory) CreateVolume(ctx context.Context, req backends.CreateVolumeRequest) (*backends.Volume, error) {
	m.made.Add(1)
	if err := m.before(ctx, "CreateVolume"); err != nil {
		return nil, err
	}
	v := &backends.Volume{ID: memoryID(req.Name), Name: req.Name, Capacity: req.Size, Fingerprint: req.Fingerprint, Context: map[string]string{"pool": "a"}}
	if m.place != nil {
		v.Topology = []backends.Segments{m.place}
	}
	m.mu.Lock()
	m.volumes[v.ID] = v
	m.mu.Unlock()
	if m.answer != nil {
		return m.answer(v), nil
	}
	return v, nil
}

func (m *memory) DeleteVolume(ctx context.Context, req backends.DeleteVolumeRequest) error {
	if err := m.before(ctx, "DeleteVolume"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.volumes[req.ID]; !ok {
		return backends.VolumeNotFound(req.ID)
	}
	delete(m.volumes, req.ID)
	return nil
}

func (m *memory) VolumeID(req backends.CreateVolumeRequest) (string, error) {
	return memoryID(req.Name), nil
}

func (m *memory) CheckVolume(_ context.Context, req backends.CheckVolumeRequest) error {
	if m.check == nil {
		return nil
	}
	return m.check(req)
}

func (m *memory) ExpandVolume(ctx context.Context, req backends.ExpandVolumeRequest) (int64, error) {
	if err := m.before(ctx, "ExpandVolume"); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	grown := *m.volumes[req.ID]
	grown.Capacity = req.Size
	m.volumes[req.ID] = &grown
	return req.Size, nil
}

func (m *memory) ListVolumes(ctx context.Context, req backends.ListVolumesRequest) ([]*backends.Volume, string, error) {
	if err := m.before(ctx, "ListVolumes"); err != nil {
		return nil, "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.volumes[req.Page.Token]; req.Page.Token != "" && !ok && m.stale {
		return nil, "", backends.ErrStaleToken
	}
	var all []*backends.Volume
	for _, v := range m.volumes {
		if v.ID > req.Page.Token {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b *backends.Volume) int { return strings.Compare(a.ID, b.ID) })
	if len(all) <= req.Page.Limit {
		return all, "", nil
	}
	return all[:req.Page.Limit], all[req.Page.Limit-1].ID, nil
}

func (m *memory) Capacity(ctx context.Context, _ backends.CapacityRequest) (backends.Capacity, error) {
	return backends.Capacity{Available: 5 * gi}, m.before(ctx, "Capacity")
}

func (m *memory) RecoverController(ctx context.Context) error { return m.before(ctx, "Recover") }
func (m *memory) Probe(ctx context.Context) error             { return m.before(ctx, "Probe") }

func (m *memory) OpenVolume(context.Context, backends.OpenVolumeRequest) (*backends.Source, error) {
	return nil, backends.ErrUnsupported
}
func (m *memory) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

func (m *memory) NodeTopology(context.Context) (backends.Segments, error) { return m.place, nil }
func (m *memory) MaxVolumes(context.Context) (int64, error)               { return m.limit, nil }

var (
	_ backends.VolumeIDer       = (*memory)(nil)
	_ backends.VolumeChecker    = (*memory)(nil)
	_ backends.Expander         = (*memory)(nil)
	_ backends.VolumeLister     = (*memory)(nil)
	_ backends.CapacityReporter = (*memory)(nil)
	_ backends.Recoverer        = (*memory)(nil)
	_ backends.Prober           = (*memory)(nil)
	_ backends.TopologyReporter = (*memory)(nil)
	_ backends.AttachLimiter    = (*memory)(nil)
)

// fakeEngine keeps what is staged and published, and mounts nothing.
type fakeEngine struct {
	mu    sync.Mutex
	paths map[string]string // path -> volume
	ill   map[string][]backends.Health
	hang  func(id string) // what figures and health wait for; nil ok
	hook  func(ctx context.Context, method string) error
	last  any // the last request

	rebooted bool // since all was staged
}

func newFakeEngine() *fakeEngine { return &fakeEngine{paths: make(map[string]string)} }

func (e *fakeEngine) do(ctx context.Context, method string, req any, change func()) error {
	if e.hook != nil {
		if err := e.hook(ctx, method); err != nil {
			return err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last = req
	if change != nil {
		change()
	}
	return nil
}

func (e *fakeEngine) Start(ctx context.Context) error { return e.do(ctx, "Start", nil, nil) }
func (e *fakeEngine) Close() error                    { return nil }

func (e *fakeEngine) Stage(ctx context.Context, r mounter.StageRequest) error {
	return e.do(ctx, "Stage", r, func() { e.paths[r.Path] = r.ID })
}

func (e *fakeEngine) Unstage(ctx context.Context, r mounter.UnstageRequest) error {
	return e.do(ctx, "Unstage", r, func() { delete(e.paths, r.Path) })
}

func (e *fakeEngine) Publish(ctx context.Context, r mounter.PublishRequest) error {
	return e.do(ctx, "Publish", r, func() { e.paths[r.Path] = r.ID })
}

func (e *fakeEngine) Unpublish(ctx context.Context, r mounter.UnpublishRequest) error {
	return e.do(ctx, "Unpublish", r, func() { delete(e.paths, r.Path) })
}

func (e *fakeEngine) Expand(ctx context.Context, r mounter.ExpandRequest) (int64, error) {
	return r.Range.Required, e.do(ctx, "Expand", r, nil)
}

func (e *fakeEngine) Stats(ctx context.Context, r mounter.StatsRequest) (*mounter.Stats, error) {
	if err := e.do(ctx, "Stats", r, nil); err != nil {
		return nil, err
	}
	e.wait(r.ID)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.paths[r.Path] != r.ID {
		return nil, fmt.Errorf("%s: %w", r.Path, backends.VolumeNotFound(r.ID))
	}
	return &mounter.Stats{VolumeStats: backends.VolumeStats{Total: 10, Used: 4, Available: 6, Inodes: 5, InodesUsed: 2, InodesFree: 3}}, nil
}

func (e *fakeEngine) wait(id string) {
	if e.hang != nil {
		e.hang(id)
	}
}

func (e *fakeEngine) Health(ctx context.Context, r mounter.HealthRequest) ([]backends.Health, error) {
	if err := e.do(ctx, "Health", r, nil); err != nil {
		return nil, err
	}
	e.wait(r.ID)
	if _, used := e.InUse(r.ID); !used {
		return nil, backends.VolumeNotFound(r.ID)
	}
	return e.ill[r.ID], nil
}

func (e *fakeEngine) InUse(id string) (string, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for path, owner := range e.paths {
		if owner == id {
			return path, true
		}
	}
	return "", false
}

// Release forgets the paths that a reboot left.
func (e *fakeEngine) Release(ctx context.Context, id string) error {
	return e.do(ctx, "Release", id, func() {
		for path, owner := range e.paths {
			if owner == id && e.rebooted {
				delete(e.paths, path)
			}
		}
	})
}

func (e *fakeEngine) reboot() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rebooted = true
}

func (e *fakeEngine) OwnID(id string) string { return strings.Replace(id, "csi-", "own-", 1) }

func (e *fakeEngine) State(id string) []byte { return []byte("state of " + id) }
