package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
	"github.com/csikit/csikit/sanity"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func open(t *testing.T) backend {
	t.Helper()
	return openIn(t, t.TempDir())
}

func openIn(t testing.TB, path string) backend {
	t.Helper()
	dir, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	})
	return backend{root}
}

func create(t *testing.T, b backend, name string) string {
	t.Helper()
	v, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return v.ID
}

func TestFind(t *testing.T) {
	b, ctx := open(t), t.Context()
	for _, name := range []string{"a", "../a", "A", "\u00e4/\n", strings.Repeat("n", 128)} {
		req := backends.CreateVolumeRequest{Name: name}
		if _, err := b.FindVolume(ctx, req); !errors.Is(err, backends.ErrNotFound) {
			t.Errorf("%q is there already: %v", name, err)
		}
		id := create(t, b, name)
		if v, err := b.FindVolume(ctx, req); err != nil || v.ID != id {
			t.Errorf("%q: %v, %v", name, v, err)
		}
		if _, err := b.OpenVolume(ctx, backends.OpenVolumeRequest{ID: id}); err != nil {
			t.Errorf("open %q: %v", name, err)
		}
	}
}

func TestUnknown(t *testing.T) {
	b, ctx := open(t), t.Context()
	inside := create(t, b, "v") + "/x"
	if err := b.root.Mkdir(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"d-1", "..", ".", "/", "d-/../..", inside, "old-d-1"} {
		want := backends.VolumeNotFound(id).Error()
		if _, err := b.Volume(ctx, backends.VolumeRequest{ID: id}); err == nil || err.Error() != want {
			t.Errorf("%q: %v", id, err)
		}
		if err := b.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: id}); err == nil || err.Error() != want {
			t.Errorf("delete %q: %v", id, err)
		}
		if _, err := b.OpenVolume(ctx, backends.OpenVolumeRequest{ID: id}); err == nil || err.Error() != want {
			t.Errorf("open %q: %v", id, err)
		}
	}
}

// TestIllDisk: a disk that does not answer has lost no volume.
func TestIllDisk(t *testing.T) {
	b := open(t)
	id := create(t, b, "v")
	if err := b.root.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Volume(t.Context(), backends.VolumeRequest{ID: id}); err == nil || errors.Is(err, backends.ErrNotFound) {
		t.Errorf("volume: %v", err)
	}
}

func TestDelete(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the mount table is read from Linux's /proc")
	}
	b, ctx := open(t), t.Context()
	id := create(t, b, "v")
	if err := b.root.WriteFile(id+"/file", []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: id}); err != nil {
		t.Error(err)
	}
	empty(t, b)
}

// TestKilledInDelete: what was begun to be removed is not seen, and the next
// start removes it.
func TestKilledInDelete(t *testing.T) {
	b, ctx := open(t), t.Context()
	id := create(t, b, "v")
	if err := b.root.Rename(id, "old-"+id); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Volume(ctx, backends.VolumeRequest{ID: id}); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("a volume half removed: %v", err)
	}
	if err := b.RecoverController(ctx); err != nil {
		t.Error(err)
	}
	empty(t, b)
}

func empty(t *testing.T, b backend) {
	t.Helper()
	left, err := os.ReadDir(b.root.Name())
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestDeleteNeverThroughAMount: neither where the volume is nor below it.
func TestDeleteNeverThroughAMount(t *testing.T) {
	testenv.Root(t)
	b, ctx := open(t), t.Context()
	other := t.TempDir()
	precious := filepath.Join(other, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, below := range []string{"", "below"} {
		id := create(t, b, "v"+below)
		point := filepath.Join(b.root.Name(), id, below)
		if err := os.MkdirAll(point, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := mnt.Bind(other, point, mnt.BindOptions{}); err != nil {
			t.Fatal(err)
		}
		err := b.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: id})
		if _, uerr := mnt.Unmount(point); uerr != nil {
			t.Fatal(uerr)
		}
		if !errors.Is(err, backends.ErrInUse) {
			t.Errorf("delete: %v", err)
		}
		if _, err := os.Stat(precious); err != nil {
			t.Fatal(err)
		}
		if err := b.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: id}); err != nil {
			t.Error(err)
		}
	}
	empty(t, b)
}

func TestSanity(t *testing.T) {
	testenv.Root(t)
	b := open(t)
	engine, err := mounter.New(b, &mounter.Options{StateDir: filepath.Join(t.TempDir(), "state"), AllowVolatileState: true})
	if err != nil {
		t.Fatal(err)
	}
	sanity.Run(t, sanity.Config{
		Host:      "yes",
		Driver:    csidriver.Config{Name: "minimal.csikit.dev", Traits: traits, Controller: b, Node: b},
		Options:   &csidriver.Options{NodeID: "node-1", Engine: engine},
		SkipsFile: filepath.Join("testdata", "sanity-skips.txt"),
	})
	empty(t, b)
}

// TestSmall: the point of this example.
func TestSmall(t *testing.T) {
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), "\n"); n >= 120 {
		t.Errorf("main.go has %d lines", n)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"endpoint", "root", "node-id", "state-dir"} {
		if !strings.Contains(string(source), `"`+f+`"`) || !strings.Contains(string(readme), "| `-"+f+"` |") {
			t.Errorf("-%s is not in main.go and README.md", f)
		}
	}
}
