package loopfile

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

func TestMain(m *testing.M) {
	if os.Getenv(envChild) != "" {
		if err := child(); err != nil {
			panic(err)
		}
		return
	}
	testenv.Main(m)
}

// testOptions make a pool in a directory of the test's own.
func testOptions(t testing.TB) Options {
	t.Helper()
	return Options{
		Pool: filepath.Join(t.TempDir(), "pool"), Node: "node-1", Init: true, AllowRootFS: true, Reserve: -1,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// open opens a backend for the length of the test.
func open(t testing.TB, o Options) *Backend {
	t.Helper()
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	if err := b.RecoverController(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func request(name string, size int64, params ...string) backends.CreateVolumeRequest {
	r := backends.CreateVolumeRequest{Name: name, Size: size, Fingerprint: "f1.abc", Parameters: map[string]string{}}
	for i := 0; i+1 < len(params); i += 2 {
		r.Parameters[params[i]] = params[i+1]
	}
	return r
}

func create(t testing.TB, b *Backend, name string, size int64, params ...string) *backends.Volume {
	t.Helper()
	v, err := b.CreateVolume(t.Context(), request(name, size, params...))
	if err != nil {
		t.Fatalf("create %q: %v", name, err)
	}
	return v
}

func remove(t testing.TB, b *Backend, id string) {
	t.Helper()
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: id}); err != nil {
		t.Fatalf("delete %s: %v", id, err)
	}
	b.purges.wait()
}

// entries are the names in a directory of the pool.
func entries(t testing.TB, pool, dir string) []string {
	t.Helper()
	es, err := os.ReadDir(filepath.Join(pool, dir))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

// wantClean says that nothing half-made or half-deleted is in the pool.
func wantClean(t testing.TB, pool string) {
	t.Helper()
	for _, d := range []string{tmpDir, trashDir} {
		if left := entries(t, pool, d); len(left) > 0 {
			t.Errorf("%s holds %q", d, left)
		}
	}
}

// list reads all pages.
func list(t testing.TB, b *Backend, limit int) []string {
	t.Helper()
	var ids []string
	token := ""
	for {
		vols, next, err := b.ListVolumes(t.Context(), backends.ListVolumesRequest{Page: backends.Page{Token: token, Limit: limit}})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vols {
			ids = append(ids, v.ID)
		}
		if token = next; token == "" {
			return ids
		}
	}
}

func imgPath(b *Backend, id string) string {
	_, dir, _ := splitID(id)
	return filepath.Join(b.o.Pool, volumesDir, dir, imgFile)
}

func stat(t testing.TB, path string) os.FileInfo {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi
}

// needThick skips where files cannot be allocated.
func needThick(t testing.TB, o Options) {
	t.Helper()
	f, err := os.Create(filepath.Join(filepath.Dir(o.Pool), "probe"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := allocate(context.Background(), f, 4096); err != nil {
		t.Skipf("missing: a file system that allocates files: %v", err)
	}
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }
