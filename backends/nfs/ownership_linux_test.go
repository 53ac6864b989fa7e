package nfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

// TestForeignDirectory: a directory that is there is not adopted unasked, and not
// removed by the undoing either.
func TestForeignDirectory(t *testing.T) {
	f := newFixture(t)
	f.write("theirs/data", "precious")
	_, err := f.b.CreateVolume(t.Context(), request("pv", paramSubDir, "theirs"))
	f.kind(err, backends.ErrIncompatible)
	f.holds("theirs/data", "precious")
	f.litter()
	v := f.create("pv", paramSubDir, "theirs", paramAdopt, "true")
	f.holds("theirs/data", "precious")
	f.must(f.delete(v.ID))
	f.holds("theirs/data", "")
	f.litter()
}

// TestForeignEmptyDirectory: rename(2) would replace it.
func TestForeignEmptyDirectory(t *testing.T) {
	f := newFixture(t)
	f.must(os.Mkdir(f.at("theirs"), 0o710))
	_, err := f.b.CreateVolume(t.Context(), request("pv", paramSubDir, "theirs"))
	f.kind(err, backends.ErrIncompatible)
	if fi, err := os.Stat(f.at("theirs")); err != nil || fi.Mode().Perm() != 0o710 {
		t.Errorf("%v, %v", fi, err)
	}
}

// TestReplacedDirectory: what stands where a volume was, and is not it, stays.
func TestReplacedDirectory(t *testing.T) {
	f := newFixture(t)
	victim := t.TempDir()
	f.must(os.WriteFile(filepath.Join(victim, "data"), []byte("precious"), 0o644))
	for name, replace := range map[string]func(){
		"directory": func() { f.write("directory/data", "precious") },
		"symlink":   func() { f.must(os.Symlink(victim, f.at("symlink"))) },
		"file":      func() { f.write("file", "precious") },
	} {
		v := f.create(name)
		f.must(os.Rename(f.at(name), f.at(name+"-away")))
		replace()
		f.kind(f.delete(v.ID), backends.ErrPrecondition)
		if _, err := os.Lstat(f.at(name)); err != nil {
			t.Error(err)
		}
		h, err := f.b.VolumeHealth(t.Context(), backends.VolumeRequest{ID: v.ID})
		f.must(err)
		if len(h) != 1 || h[0].Reason != reasonForeign {
			t.Errorf("%s: health %+v", name, h)
		}
		f.must(os.RemoveAll(f.at(name)))
		f.must(os.Rename(f.at(name+"-away"), f.at(name)))
		f.must(f.delete(v.ID))
	}
	if b, err := os.ReadFile(filepath.Join(victim, "data")); string(b) != "precious" {
		t.Error(err)
	}
}

// TestOnePathOneVolume: two volumes are not at one path, nor one in the other.
func TestOnePathOneVolume(t *testing.T) {
	f := newFixture(t)
	a := f.create("a", paramSubDir, "x/y")
	f.write("x/y/data", "of a")
	for _, p := range []string{"x/y", "x/y/z", "x/y/z/w", "x"} {
		for _, adopt := range []string{"false", "true"} {
			_, err := f.b.CreateVolume(t.Context(), request("b", paramSubDir, p, paramAdopt, adopt))
			f.kind(err, backends.ErrIncompatible)
		}
	}
	f.holds("x/y/data", "of a")
	f.must(f.delete(a.ID))
	f.litter()
	f.must(f.delete(f.create("b", paramSubDir, "x").ID))
}

// TestParents: what was made is removed, by rmdir, with the last volume; what was
// there stays.
func TestParents(t *testing.T) {
	f := newFixture(t)
	f.must(os.Mkdir(f.at("there"), 0o755))
	one := f.create("one", paramSubDir, "there/${pvc.metadata.namespace}/deep/${pv.metadata.name}")
	two := f.create("two", paramSubDir, "there/${pvc.metadata.namespace}/deep/${pv.metadata.name}")
	f.must(f.delete(one.ID))
	if _, err := os.Stat(f.at("there/space/deep/two")); err != nil {
		t.Error(err)
	}
	f.write("there/space/file", "somebody's")
	f.must(f.delete(two.ID))
	f.holds("there/space/file", "somebody's")
	if _, err := os.Stat(f.at("there/space/deep")); !os.IsNotExist(err) {
		t.Errorf("the parent that we made: %v", err)
	}
	f.must(os.Remove(f.at("there/space/file")))
	three := f.create("three", paramSubDir, "there/space/three")
	f.must(f.delete(three.ID))
	if got := f.root(); !slices.Equal(got, []string{"there"}) {
		t.Errorf("%q is left", got)
	}
	f.litter()
}

// TestArchive: unique, at one step, and nobody's to delete from then on.
func TestArchive(t *testing.T) {
	f := newFixture(t)
	for _, content := range []string{"first", "second"} {
		v := f.create("pv", paramSubDir, "ns/claim", paramOnDelete, "archive")
		f.write("ns/claim/data", content)
		f.must(f.delete(v.ID))
		f.kind(f.delete(v.ID), backends.ErrNotFound)
	}
	var got []string
	for _, name := range f.root() {
		if !strings.HasPrefix(name, "archived-ns-claim-") {
			t.Errorf("%q is left", name)
		}
		b, _ := os.ReadFile(f.at(name, "data"))
		got = append(got, string(b))
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("archived is %q", got)
	}
	f.litter(dirKept)
}

// TestRetain: the directory stays, and is nobody's.
func TestRetain(t *testing.T) {
	f := newFixture(t)
	v := f.create("pv", paramOnDelete, "retain")
	f.write("pv/data", "kept")
	f.must(f.delete(v.ID))
	f.holds("pv/data", "kept")
	f.kind(f.delete(v.ID), backends.ErrNotFound)
	_, err := f.b.CreateVolume(t.Context(), request("pv"))
	f.kind(err, backends.ErrIncompatible)
	f.holds("pv/data", "kept")
	f.litter(dirKept)
}

// TestPermissions: they are the volume's, and not the export's.
func TestPermissions(t *testing.T) {
	f := newFixture(t)
	f.must(os.Chmod(f.dir, 0o711))
	f.create("default")
	f.create("set", paramPermissions, "02770", paramSubDir, "p/set")
	for p, want := range map[string]os.FileMode{
		"": 0o711, "default": 0o755, "p": 0o755, "p/set": 0o770 | os.ModeSetgid,
	} {
		if fi, err := os.Stat(f.at(p)); err != nil || fi.Mode()&^os.ModeDir != want {
			t.Errorf("%q: %v, %v, want %v", p, fi.Mode(), err, want)
		}
	}
}

// TestShareThatIsGone: a share without our directory is a disk that is not mounted,
// and nothing on it is "not found".
func TestShareThatIsGone(t *testing.T) {
	f := newFixture(t)
	v := f.create("pv")
	s := f.snapshot("s", v.ID)
	f.must(f.b.Close())
	f.must(os.Rename(f.dir, f.dir+"-away"))
	f.must(os.Mkdir(f.dir, 0o755))
	o := f.b.o
	o.Init = false
	b := open(t, o)
	f.must(b.RecoverController(t.Context()))
	_, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID})
	f.kind(err, backends.ErrUnavailable)
	f.kind(b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}), backends.ErrUnavailable)
	_, err = b.FindVolume(t.Context(), request("pv"))
	f.kind(err, backends.ErrUnavailable)
	_, err = b.CreateVolume(t.Context(), request("new"))
	f.kind(err, backends.ErrUnavailable)
	_, _, err = b.ListVolumes(t.Context(), backends.ListVolumesRequest{Page: backends.Page{Limit: 10}})
	f.kind(err, backends.ErrUnavailable)
	f.kind(b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}), backends.ErrUnavailable)
	if names, _ := os.ReadDir(f.dir); len(names) > 0 {
		t.Errorf("%v was made there", names)
	}
}

// TestMovedShare: on another file system inodes are others, and volumes are the same.
func TestMovedShare(t *testing.T) {
	f := newFixture(t)
	v := f.create("pv", paramSubDir, "ns/pv")
	f.write("ns/pv/data", "data")
	f.must(f.b.Close())
	moved := filepath.Join(t.TempDir(), "moved")
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", f.dir, moved).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	o := f.b.o
	o.Shares = slices.Clone(o.Shares)
	o.Shares[0].LocalDir = moved
	g := &fixture{t, open(t, o), moved}
	if h, err := g.b.VolumeHealth(t.Context(), backends.VolumeRequest{ID: v.ID}); err != nil || len(h) > 0 {
		t.Errorf("%v, %v", h, err)
	}
	g.must(g.delete(v.ID))
	g.litter(dirParents)
	f.holds("ns/pv/data", "data")
}

// TestDamagedMarker: torn, foreign and newer markers are neither volumes nor none.
func TestDamagedMarker(t *testing.T) {
	f := newFixture(t)
	v, other := f.create("pv"), f.create("other")
	path := f.at(".csi-csikit", markerPath(keyOf("pv")))
	whole, err := os.ReadFile(path)
	f.must(err)
	for what, content := range map[string]string{
		"torn":    string(whole[:len(whole)/2]),
		"empty":   "",
		"foreign": strings.Replace(string(whole), `"name": "pv"`, `"name": "else"`, 1),
		"astray":  strings.Replace(string(whole), `"subDir": "pv"`, `"subDir": "../pv"`, 1),
		"newer":   strings.Replace(string(whole), `"version": 1`, `"version": 2, "more": true`, 1),
	} {
		f.must(os.WriteFile(path, []byte(content), 0o600))
		want := backends.ErrUnavailable
		if what == "newer" {
			want = backends.ErrPrecondition
		}
		_, err := f.b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID})
		f.kind(err, want)
		f.kind(f.delete(v.ID), want)
		vols, _, err := f.b.ListVolumes(t.Context(), backends.ListVolumesRequest{Page: backends.Page{Limit: 10}})
		f.must(err)
		if len(vols) != 2 {
			t.Errorf("%s: %d volumes are listed", what, len(vols))
		}
		if _, err := os.Stat(f.at("pv")); err != nil {
			t.Error(err)
		}
	}
	f.must(os.WriteFile(path, whole, 0o600))
	f.must(f.delete(v.ID))
	f.must(f.delete(other.ID))
	f.litter()
}
