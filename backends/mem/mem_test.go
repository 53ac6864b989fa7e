package mem

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mountertest"
)

func open(t testing.TB, o *Options) *Backend {
	t.Helper()
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func create(t testing.TB, b *Backend, name string) *backends.Volume {
	t.Helper()
	v, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: name, Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func snap(t testing.TB, b *Backend, name, volume string) *backends.Snapshot {
	t.Helper()
	s, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: name, VolumeID: volume})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWithout(t *testing.T) {
	whole := open(t, &Options{Store: NewStore(&StoreOptions{Devices: true}), Node: "n"})
	if f := backends.DetectNode(whole); f.NodeExpander == nil || f.FormatRecorder == nil {
		t.Error("a node with devices expands and records none")
	}
	for _, tt := range []struct {
		name string
		gone func(backends.ControllerFeatures, backends.NodeFeatures, backends.Traits) bool
	}{
		{"Attacher", func(c backends.ControllerFeatures, _ backends.NodeFeatures, t backends.Traits) bool {
			return c.Attacher == nil && c.PublishedNodesLister == nil && c.VolumeLister != nil && !t.AttachReadOnly
		}},
		{"Snapshotter", func(c backends.ControllerFeatures, _ backends.NodeFeatures, t backends.Traits) bool {
			return c.Snapshotter == nil && c.SnapshotLister == nil && c.GroupSnapshotter == nil && c.ChangedBlockTracker == nil && !t.SnapshotTopology
		}},
		{"TopologyReporter", func(_ backends.ControllerFeatures, n backends.NodeFeatures, t backends.Traits) bool {
			return n.TopologyReporter == nil && t.TopologyKeys == nil
		}},
		{"EphemeralProvisioner", func(_ backends.ControllerFeatures, n backends.NodeFeatures, t backends.Traits) bool {
			return n.EphemeralProvisioner == nil && t.Lifecycle == backends.Persistent
		}},
		{"Modifier", func(c backends.ControllerFeatures, _ backends.NodeFeatures, t backends.Traits) bool {
			return c.Modifier == nil && !slices.ContainsFunc(t.Parameters, func(p backends.Parameter) bool { return p.Mutable })
		}},
	} {
		b := open(t, &Options{Node: "n", Without: []string{tt.name}})
		if !tt.gone(backends.DetectController(b), backends.DetectNode(b), b.Traits()) {
			t.Errorf("%s is not gone", tt.name)
		}
		if tt.gone(backends.DetectController(whole), backends.DetectNode(whole), whole.Traits()) {
			t.Errorf("%s was never there", tt.name)
		}
	}
	if _, err := New(&Options{Without: []string{"Attacker"}}); err == nil || !strings.Contains(err.Error(), "Attacher") {
		t.Errorf("an unknown ability: %v", err)
	}
}

// TestHalf: what was cut short is half-made for all to see, until it is made,
// deleted, or recovered.
func TestHalf(t *testing.T) {
	for name, finish := range map[string]func(*Backend, backends.CreateVolumeRequest, string) error{
		"again": func(b *Backend, req backends.CreateVolumeRequest, _ string) error {
			_, err := b.CreateVolume(context.Background(), req)
			return err
		},
		"delete": func(b *Backend, _ backends.CreateVolumeRequest, id string) error {
			return b.DeleteVolume(context.Background(), backends.DeleteVolumeRequest{ID: id})
		},
		"recover": func(b *Backend, _ backends.CreateVolumeRequest, _ string) error {
			return b.RecoverController(context.Background())
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, ctx := open(t, nil), t.Context()
			b.Inject(Fault{Method: "CreateVolume", At: Midway, Times: 1, Err: errors.New("killed")})
			req := backends.CreateVolumeRequest{Name: "v", Size: 1 << 20}
			if _, err := b.CreateVolume(ctx, req); err == nil {
				t.Fatal("not cut short")
			}
			id := idOf(volumePrefix, "v")
			if _, err := b.Volume(ctx, backends.VolumeRequest{ID: id}); !errors.Is(err, backends.ErrUnavailable) {
				t.Errorf("volume: %v", err)
			}
			if _, err := b.FindVolume(ctx, req); !errors.Is(err, backends.ErrNotFound) {
				t.Errorf("find: %v", err)
			}
			b = open(t, &Options{Store: b.Store()})
			if err := finish(b, req, id); err != nil {
				t.Fatal(err)
			}
			_, err := b.Volume(ctx, backends.VolumeRequest{ID: id})
			if want := name == "again"; (err == nil) != want || b.Store().Empty() == want {
				t.Errorf("in the end: %v", err)
			}
		})
	}
}

func TestBlocks(t *testing.T) {
	b := open(t, nil)
	s, v := b.Store(), create(t, b, "v")
	data := bytes.Repeat([]byte("data"), 3000)
	if err := s.WriteAt(v.ID, data, 5000); err != nil {
		t.Fatal(err)
	}
	before := snap(t, b, "before", v.ID)
	if err := s.WriteAt(v.ID, []byte("more"), 100_000); err != nil {
		t.Fatal(err)
	}
	after := snap(t, b, "after", v.ID)
	for _, tt := range []struct {
		req  backends.ChangedBlocksRequest
		want []int64
	}{
		{backends.ChangedBlocksRequest{Target: before.ID}, []int64{4096, 8192, 12288, 16384}},
		{backends.ChangedBlocksRequest{Target: before.ID, Offset: 8195}, []int64{8192, 12288, 16384}},
		{backends.ChangedBlocksRequest{Base: before.ID, Target: after.ID}, []int64{98304}},
	} {
		m, err := b.ChangedBlocks(t.Context(), tt.req)
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		for block, err := range m.Blocks {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, block.Offset)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%+v: %v, want %v", tt.req, got, tt.want)
		}
	}
	got := make([]byte, len(data))
	restored, err := b.RestoreSnapshot(t.Context(), *before, backends.CreateVolumeRequest{Name: "r", Size: 1 << 21})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ReadAt(restored.ID, got, 5000); err != nil || !bytes.Equal(got, data) {
		t.Errorf("restored: %v, same %v", err, bytes.Equal(got, data))
	}
	if err := s.WriteAt(v.ID, data, v.Capacity-1); err == nil {
		t.Error("written beyond the end")
	}
}

// TestDirectories: files go with snapshots, clones and groups.
func TestDirectories(t *testing.T) {
	store := NewStore(&StoreOptions{Dir: t.TempDir()})
	b, ctx := open(t, &Options{Store: store, Node: "n", Without: []string{"Attacher"}}), t.Context()
	v := create(t, b, "v")
	write := func(text string) {
		t.Helper()
		src, err := b.OpenVolume(ctx, backends.OpenVolumeRequest{ID: v.ID})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src.Dir, "file"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	s := snap(t, b, "s", v.ID)
	g, err := b.CreateGroupSnapshot(ctx, backends.CreateGroupSnapshotRequest{Name: "g", VolumeIDs: []string{v.ID}})
	if err != nil {
		t.Fatal(err)
	}
	write("two")
	req := func(name string) backends.CreateVolumeRequest {
		return backends.CreateVolumeRequest{Name: name, Size: 1 << 20}
	}
	restored, err1 := b.RestoreSnapshot(ctx, *s, req("r"))
	member, err2 := b.RestoreSnapshot(ctx, g.Snapshots[0], req("m"))
	clone, err3 := b.CloneVolume(ctx, *v, req("c"))
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{restored.ID: "one", member.ID: "one", clone.ID: "two", v.ID: "two"} {
		got, err := os.ReadFile(filepath.Join(store.dir(id), "file"))
		if err != nil || string(got) != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	if err := b.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("deleted while open: %v", err)
	}
}

// TestEngine: a volume of each kind through the node engine.
func TestEngine(t *testing.T) {
	for name, o := range map[string]*StoreOptions{"directories": {Dir: t.TempDir()}, "devices": {Devices: true}} {
		t.Run(name, func(t *testing.T) {
			b, ctx, dir := open(t, &Options{Store: NewStore(o), Node: "n"}), t.Context(), t.TempDir()
			v := create(t, b, "v")
			mount := backends.Capability{Mode: backends.SingleNodeWriter}
			pub, err := b.AttachVolume(ctx, backends.AttachVolumeRequest{ID: v.ID, NodeID: "n", Capability: mount})
			if err != nil {
				t.Fatal(err)
			}
			e := mountertest.New(t, b, &mountertest.Options{FSTypes: b.Traits().FSTypes})
			stage, pod := filepath.Join(dir, "stage"), filepath.Join(dir, "pod")
			for range 2 {
				err := errors.Join(
					e.Stage(ctx, mounter.StageRequest{ID: v.ID, Path: stage, Capability: mount, Context: v.Context, PublishContext: pub}),
					e.Publish(ctx, mounter.PublishRequest{ID: v.ID, StagingPath: stage, Path: pod, Capability: mount}))
				if err != nil {
					t.Fatal(err)
				}
			}
			if got := b.Store().Open("n"); !slices.Equal(got, []string{v.ID}) {
				t.Errorf("open: %v", got)
			}
			for range 2 {
				err := errors.Join(e.Unpublish(ctx, mounter.UnpublishRequest{ID: v.ID, Path: pod}),
					e.Unstage(ctx, mounter.UnstageRequest{ID: v.ID, Path: stage}))
				if err != nil {
					t.Fatal(err)
				}
			}
			if got := b.Store().Open("n"); len(got) > 0 {
				t.Errorf("still open: %v", got)
			}
		})
	}
}
