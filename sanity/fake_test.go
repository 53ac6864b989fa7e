package sanity

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/mounter"
)

// storage is a backend in memory, and a node engine that makes files where a
// real one mounts: enough for every spec of the capabilities it has.
type storage struct {
	mu        sync.Mutex
	volumes   map[string]*backends.Volume
	paths     map[string]string // staged and published paths: their volume
	onCreate  func(ctx context.Context, req backends.CreateVolumeRequest) error
	onPublish func(path string) error
	notReady  bool
}

func newStorage() *storage {
	return &storage{volumes: map[string]*backends.Volume{}, paths: map[string]string{}}
}

// config is a test of s: csi-sanity's, for the checks see what the engine below
// leaves out.
func (s *storage) config() Config {
	return Config{
		Only: []string{csiSanity},
		Driver: csidriver.Config{
			Name: "fake.csi.example.com", Version: "1", Controller: controller{s}, Node: node{},
			Traits: backends.Traits{
				Modes:      []backends.AccessMode{backends.SingleNodeWriter},
				Filesystem: true, Block: true, Devices: true, FSTypes: []string{"xfs"},
				Lifecycle: backends.Persistent, SizeMax: 1 << 40, SizeDefault: 1 << 30, SizeStep: 1 << 20,
			},
		},
		Options: &csidriver.Options{Engine: engine{s}},
	}
}

type controller struct{ *storage }

func (s controller) Probe(context.Context) error {
	if s.notReady {
		return backends.ErrNotReady
	}
	return nil
}

func (s controller) Volume(_ context.Context, r backends.VolumeRequest) (*backends.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.volumes[r.ID]; v != nil {
		return v, nil
	}
	return nil, backends.VolumeNotFound(r.ID)
}

func (s controller) FindVolume(_ context.Context, r backends.CreateVolumeRequest) (*backends.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.volumes {
		if v.Name == r.Name {
			return v, nil
		}
	}
	return nil, backends.VolumeNotFound(r.Name)
}

func (s controller) CreateVolume(ctx context.Context, r backends.CreateVolumeRequest) (*backends.Volume, error) {
	if s.onCreate != nil {
		if err := s.onCreate(ctx, r); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &backends.Volume{ID: "v" + strconv.Itoa(len(s.volumes)) + r.Name[:min(len(r.Name), 64)], Name: r.Name, Capacity: r.Size, Fingerprint: r.Fingerprint}
	s.volumes[v.ID] = v
	return v, nil
}

func (s controller) DeleteVolume(_ context.Context, r backends.DeleteVolumeRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.volumes, r.ID)
	return nil
}

func (s controller) ExpandVolume(_ context.Context, r backends.ExpandVolumeRequest) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := *s.volumes[r.ID]
	v.Capacity = max(v.Capacity, r.Size)
	s.volumes[r.ID] = &v
	return v.Capacity, nil
}

func (s controller) ListVolumes(_ context.Context, r backends.ListVolumesRequest) ([]*backends.Volume, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := slices.Sorted(maps.Keys(s.volumes))
	from, ok := 0, true
	if r.Page.Token != "" {
		from, ok = slices.BinarySearch(ids, r.Page.Token)
	}
	if !ok {
		return nil, "", backends.ErrStaleToken
	}
	var vols []*backends.Volume
	for _, id := range ids[from:] {
		if len(vols) == r.Page.Limit {
			return vols, id, nil
		}
		vols = append(vols, s.volumes[id])
	}
	return vols, "", nil
}

// node is what a driver has; the engine below never asks it.
type node struct{}

func (node) OpenVolume(context.Context, backends.OpenVolumeRequest) (*backends.Source, error) {
	return nil, backends.ErrUnsupported
}
func (node) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

type engine struct{ *storage }

func (engine) State(string) []byte    { return nil }
func (engine) OwnID(id string) string { return id }

func (engine) Start(context.Context) error { return nil }
func (engine) Close() error                { return nil }

func (s engine) set(path, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths[path] = id
	if id == "" {
		delete(s.paths, path)
	}
}

func (s engine) at(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paths[path]
}

func (s engine) Stage(_ context.Context, r mounter.StageRequest) error {
	s.set(r.Path, r.ID)
	return nil
}

func (s engine) Unstage(_ context.Context, r mounter.UnstageRequest) error {
	s.set(r.Path, "")
	return nil
}

func (s engine) Publish(_ context.Context, r mounter.PublishRequest) error {
	if s.onPublish != nil {
		if err := s.onPublish(r.Path); err != nil {
			return err
		}
	}
	err := os.MkdirAll(filepath.Dir(r.Path), 0o750)
	if err == nil && r.Capability.Block {
		err = os.WriteFile(r.Path, nil, 0o600)
	} else if err == nil {
		err = os.MkdirAll(r.Path, 0o750)
	}
	s.set(r.Path, r.ID)
	return err
}

func (s engine) Unpublish(_ context.Context, r mounter.UnpublishRequest) error {
	if err := os.Remove(r.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.set(r.Path, "")
	return nil
}

func (s engine) Expand(_ context.Context, r mounter.ExpandRequest) (int64, error) {
	if s.at(r.Path) != r.ID {
		return 0, backends.VolumeNotFound(r.ID)
	}
	return max(r.Range.Required, 1), nil
}

func (s engine) Stats(_ context.Context, r mounter.StatsRequest) (*mounter.Stats, error) {
	if s.at(r.Path) != r.ID {
		return nil, backends.VolumeNotFound(r.ID)
	}
	return &mounter.Stats{VolumeStats: backends.VolumeStats{Total: 1 << 30, Used: 1, Available: 1<<30 - 1}}, nil
}

func (s engine) Health(_ context.Context, r mounter.HealthRequest) ([]backends.Health, error) {
	if _, used := s.InUse(r.ID); !used {
		return nil, backends.VolumeNotFound(r.ID)
	}
	return nil, nil
}

func (s engine) Release(context.Context, string) error { return nil }

func (s engine) InUse(id string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path, v := range s.paths {
		if v == id {
			return path, true
		}
	}
	return "", false
}
