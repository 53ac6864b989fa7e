package nfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
)

// testOptions is a share that is a directory.
func testOptions(t testing.TB) Options {
	t.Helper()
	return Options{
		Shares:   []Share{{Name: "share", LocalDir: t.TempDir()}},
		StateDir: filepath.Join(t.TempDir(), "state"), Init: true,
	}
}

// open opens a backend, and closes it at the end of the test.
func open(t testing.TB, o Options) *Backend {
	t.Helper()
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sync.OnceFunc(func() { _ = b.Close() }))
	return b
}

// fixture is a backend on a share that is a directory.
type fixture struct {
	*testing.T
	b   *Backend
	dir string // the share's root
}

func newFixture(t *testing.T, change ...func(*Options)) *fixture {
	t.Helper()
	o := testOptions(t)
	for _, c := range change {
		c(&o)
	}
	f := &fixture{t, open(t, o), o.Shares[0].LocalDir}
	f.must(f.b.RecoverController(f.Context()))
	return f
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// request asks for a volume with parameters key, value, …
func request(name string, params ...string) backends.CreateVolumeRequest {
	req := backends.CreateVolumeRequest{
		Name: name, Parameters: map[string]string{},
		Owner: backends.Owner{PVC: "claim", PVCNamespace: "space", PV: name},
	}
	for i := 0; i+1 < len(params); i += 2 {
		req.Parameters[params[i]] = params[i+1]
	}
	return req
}

func (f *fixture) create(name string, params ...string) *backends.Volume {
	f.Helper()
	v, err := f.b.CreateVolume(f.Context(), request(name, params...))
	f.must(err)
	return v
}

func (f *fixture) delete(id string) error {
	return f.b.DeleteVolume(f.Context(), backends.DeleteVolumeRequest{ID: id})
}

// at is a path of the share.
func (f *fixture) at(p ...string) string { return filepath.Join(append([]string{f.dir}, p...)...) }

func (f *fixture) write(p, content string) {
	f.Helper()
	f.must(os.MkdirAll(filepath.Dir(f.at(p)), 0o755))
	f.must(os.WriteFile(f.at(p), []byte(content), 0o644))
}

// holds fails the test unless a file of the share has this content; "": is not there.
func (f *fixture) holds(p, want string) {
	f.Helper()
	b, err := os.ReadFile(f.at(p))
	switch {
	case want == "" && !os.IsNotExist(err):
		f.Errorf("%s is there: %q, %v", p, b, err)
	case want != "" && string(b) != want:
		f.Errorf("%s holds %q (%v), want %q", p, b, err, want)
	}
}

func (f *fixture) kind(err, want error) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Errorf("got %v, want %v", err, want)
	}
}

// root lists the root of the share without drivers' directories.
func (f *fixture) root() []string {
	f.Helper()
	entries, err := os.ReadDir(f.dir)
	f.must(err)
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), controlPrefix) {
			names = append(names, e.Name())
		}
	}
	return names
}

// litter fails the test when the driver's directory has anything, save what is named.
func (f *fixture) litter(but ...string) {
	f.Helper()
	eventually(f, "the trash is empty", func() bool {
		names, err := os.ReadDir(f.at(".csi-csikit", dirTrash))
		return err == nil && len(names) == 0
	})
	f.must(filepath.WalkDir(f.at(".csi-csikit"), func(p string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(f.at(".csi-csikit"), p)
		switch {
		case err != nil:
			return err
		case slices.ContainsFunc(but, func(b string) bool { return rel == b || strings.HasPrefix(rel, b+"/") }):
			if d.IsDir() {
				return filepath.SkipDir
			}
		case !d.IsDir() && rel != shareFile || d.IsDir() && strings.Contains(rel, "/"):
			f.Errorf("%s is left", rel)
		}
		return nil
	}))
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after a minute", what)
		}
	}
}

func (f *fixture) snapshot(name, volume string, params ...string) *backends.Snapshot {
	f.Helper()
	req := backends.CreateSnapshotRequest{Name: name, VolumeID: volume, Parameters: request("", params...).Parameters}
	s, err := f.b.CreateSnapshot(f.Context(), req)
	f.must(err)
	return s
}

// ready waits for a snapshot to be ready.
func (f *fixture) ready(id string) *backends.Snapshot {
	f.Helper()
	var s *backends.Snapshot
	eventually(f, "snapshot "+id+" is ready", func() (done bool) {
		var err error
		s, err = f.b.Snapshot(context.WithoutCancel(f.Context()), backends.SnapshotRequest{ID: id})
		f.must(err)
		return s.Ready
	})
	return s
}

func (f *fixture) restore(snap *backends.Snapshot, name string, params ...string) *backends.Volume {
	f.Helper()
	v, err := f.b.RestoreSnapshot(f.Context(), *snap, request(name, params...))
	f.must(err)
	return v
}
