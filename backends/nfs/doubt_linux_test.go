package nfs

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/nfs/internal/tree"
)

// cut ends a call at a step, as a kill of the process does, and starts the next process.
func (f *fixture) cut(at string, call func()) {
	f.Helper()
	hit := false
	f.b.step = func(s string) {
		if s == at {
			hit = true
			runtime.Goexit()
		}
	}
	done := make(chan struct{})
	go func() { defer close(done); call() }()
	<-done
	f.b.wg.Wait()
	if !hit {
		f.Fatalf("step %s was not reached", at)
	}
	o := f.b.o
	f.must(f.b.Close())
	f.b = open(f.T, o)
	f.must(f.b.RecoverController(f.Context()))
	f.b.wg.Wait() // the trash is empty
}

func (f *fixture) inode(p string) uint64 {
	f.Helper()
	fi, err := os.Lstat(f.at(p))
	f.must(err)
	return fi.Sys().(*syscall.Stat_t).Ino
}

// TestInodeOfAnother: the volume that takes the path of one whose deletion, or undoing,
// was cut may have got its inode too, and is left alone.
func TestInodeOfAnother(t *testing.T) {
	for at, begin := range map[string]string{"nfs.make.ready": stateReady, "nfs.make.placed": stateCreating} {
		f := newFixture(t)
		id, err := f.b.VolumeID(request("old"))
		f.must(err)
		f.cut(at, func() { _, _ = f.b.CreateVolume(t.Context(), request("old", paramSubDir, "ns/claim")) })
		f.cut("nfs.forget.unclaimed", func() { _ = f.delete(id) })
		f.create("new", paramSubDir, "ns/claim")
		f.write("ns/claim/data", "precious")
		path := f.at(".csi-csikit", markerPath(keyOf("old")))
		s := &site{root: f.share(), control: ".csi-csikit", step: func(string) {}}
		m, err := s.marker(keyOf("old"))
		f.must(err)
		if m.Inode == f.inode("ns/claim") {
			t.Errorf("%s: the inode was used again while %s names it", begin, path)
		}
		m.Inode = f.inode("ns/claim")
		if m.Target != "" {
			f.must(os.RemoveAll(f.at(m.Target)))
		}
		f.must(s.save(m))
		f.must(f.delete(id))
		f.holds("ns/claim/data", "precious")
	}
}

// TestInodeIsKept: as long as a deletion goes on nothing else gets the inode that its
// marker names, and what is put at its path is somebody's.
func TestInodeIsKept(t *testing.T) {
	f := newFixture(t)
	v := f.create("pv")
	f.write("pv/data", "data")
	was := f.inode("pv")
	f.cut("nfs.unmake.moved", func() { _ = f.delete(v.ID) })
	names, err := filepath.Glob(f.at(".csi-csikit", dirTrash, "*"))
	f.must(err)
	if len(names) != 1 {
		t.Fatalf("%q", names)
	}
	rel, _ := filepath.Rel(f.dir, names[0])
	if f.inode(rel) != was {
		t.Errorf("%s has another inode", rel)
	}
	f.holds(rel+"/data", "")
	f.must(f.delete(v.ID))
	f.litter()
}

func (f *fixture) share() *tree.Root {
	f.Helper()
	r, err := tree.Open(f.dir)
	f.must(err)
	f.Cleanup(func() { _ = r.Close() })
	return r
}

// TestLegacyMeanwhile: a volume that is made below a directory while that is deleted
// keeps both.
func TestLegacyMeanwhile(t *testing.T) {
	for _, at := range []string{"nfs.legacy.marked", "nfs.legacy.claimed"} {
		f := newFixture(t, served(LegacyDelete))
		f.write("ns/old", "old")
		made := false
		f.b.step = func(s string) {
			if s != at {
				return
			}
			f.b.step = nil
			_, err := f.b.CreateVolume(t.Context(), request("pv", paramSubDir, "ns/pv"))
			if made = err == nil; made {
				f.write("ns/pv/data", "precious")
			}
		}
		err := f.delete("nfs.example.com#srv/nfs#ns##")
		if !made {
			f.must(err)
			continue
		}
		f.kind(err, backends.ErrPrecondition)
		f.holds("ns/pv/data", "precious")
		f.holds("ns/old", "old")
		v, err := f.b.FindVolume(t.Context(), request("pv"))
		f.must(err)
		f.must(f.delete(v.ID))
		f.litter()
		f.must(f.delete("nfs.example.com#srv/nfs#ns##"))
		f.holds("ns/old", "")
		f.litter()
	}
}

// TestAdoptedParent: a parent that became a volume is removed with that alone.
func TestAdoptedParent(t *testing.T) {
	f := newFixture(t)
	v := f.create("a", paramSubDir, "x/a")
	f.write("x/theirs", "data")
	f.must(f.delete(v.ID))
	v = f.create("whole", paramSubDir, "x", paramAdopt, "true")
	f.must(os.Remove(f.at("x/theirs")))
	_, err := f.b.CreateVolume(t.Context(), request("b", paramSubDir, "x/b"))
	f.kind(err, backends.ErrIncompatible)
	if _, err := os.Stat(f.at("x")); err != nil {
		t.Errorf("the directory of a volume: %v", err)
	}
	f.must(f.delete(v.ID))
	f.litter()
}

// TestSnapshotOfACutCopy: a copy that goes on has nothing that was deleted meanwhile,
// and one that is to be of one moment does not go on.
func TestSnapshotOfACutCopy(t *testing.T) {
	for _, mode := range []string{consistencyFiles, consistencyVolume} {
		f := newFixture(t)
		v := f.create("pv")
		for _, p := range []string{"pv/a", "pv/dir/b", "pv/dir/c", "pv/gone/d"} {
			f.write(p, "first")
		}
		// The kill is of the copy, which no caller waits for; its user goes on.
		f.b.step = func(s string) {
			if s == "nfs.snap.copied" {
				runtime.Goexit()
			}
		}
		s := f.snapshot("s", v.ID, paramConsistency, mode)
		f.b.wg.Wait()
		f.must(f.b.Close())
		for _, p := range []string{"pv/a", "pv/dir/b", "pv/gone"} {
			f.must(os.RemoveAll(f.at(p)))
		}
		f.write("pv/dir/c", "second")
		f.b = open(t, f.b.o)
		f.must(f.b.RecoverController(t.Context()))
		f.b.wg.Wait()
		if mode == consistencyVolume {
			_, err := f.b.Snapshot(t.Context(), backends.SnapshotRequest{ID: s.ID})
			f.kind(err, backends.ErrNotFound)
			continue
		}
		f.restore(f.ready(s.ID), "restored")
		f.holds("restored/dir/c", "second")
		for _, p := range []string{"a", "dir/b", "gone/d"} {
			f.holds("restored/"+p, "")
		}
	}
}

// TestShareInside: a directory that is a share itself has volumes of its own.
func TestShareInside(t *testing.T) {
	f := newFixture(t, served(LegacyDelete))
	o := testOptions(t)
	o.Shares[0].LocalDir = f.at("team")
	f.must(os.Mkdir(f.at("team"), 0o755))
	g := &fixture{t, open(t, o), f.at("team")}
	g.must(g.b.RecoverController(t.Context()))
	g.create("pv")
	g.write("pv/data", "precious")
	f.kind(f.delete("nfs.example.com#srv/nfs#team##"), backends.ErrPrecondition)
	_, err := f.b.CreateVolume(t.Context(), request("all", paramSubDir, "team", paramAdopt, "true"))
	f.kind(err, backends.ErrIncompatible)
	g.holds("pv/data", "precious")
	f.litter()
}

// TestOrphanedCopy: a retry that is told that its source is gone is the last one, and
// leaves nothing.
func TestOrphanedCopy(t *testing.T) {
	for _, clone := range []bool{false, true} {
		f := newFixture(t)
		v := f.create("pv")
		f.write("pv/data", "data")
		snap := f.ready(f.snapshot("s", v.ID).ID)
		f.cut("nfs.make.filled", func() {
			if clone {
				_, _ = f.b.CloneVolume(t.Context(), *v, request("copy"))
			} else {
				_, _ = f.b.RestoreSnapshot(t.Context(), *snap, request("copy"))
			}
		})
		_, err := f.b.FindVolume(t.Context(), request("copy"))
		f.kind(err, backends.ErrNotFound)
		if names, _ := os.ReadDir(f.at(".csi-csikit", dirNew)); len(names) == 0 {
			t.Error("the copy does not go on")
		}
		f.must(f.b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: snap.ID}))
		f.must(f.delete(v.ID))
		_, err = f.b.FindVolume(t.Context(), request("copy"))
		f.kind(err, backends.ErrNotFound)
		f.litter()
	}
}

// TestTwoProcesses: a controller that lost its lease and goes on does not write into
// what its successor has made, nor forget it.
func TestTwoProcesses(t *testing.T) {
	for _, at := range []string{"nfs.copy.file", "nfs.make.built"} {
		f := newFixture(t)
		v := f.create("pv")
		f.write("pv/data", "of the source")
		f.write("pv/more", "of the source")
		other := open(t, f.b.o)
		var once sync.Once
		f.b.step = func(s string) {
			if s == at {
				once.Do(func() {
					_, err := other.CloneVolume(t.Context(), *v, request("copy"))
					f.kind(err, backends.ErrUnavailable)
					id, err := other.VolumeID(request("copy"))
					f.must(err)
					f.kind(other.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: id}), backends.ErrUnavailable)
				})
			}
		}
		_, err := f.b.CloneVolume(t.Context(), *v, request("copy"))
		f.must(err)
		f.holds("copy/data", "of the source")
		_, err = other.FindVolume(t.Context(), request("copy"))
		f.must(err)
	}
}

// TestTwoProcessesSnapshot: a snapshot is copied by one process, and deleted by none
// meanwhile.
func TestTwoProcessesSnapshot(t *testing.T) {
	f := newFixture(t)
	v := f.create("pv")
	f.write("pv/data", "data")
	other := open(t, f.b.o)
	var once sync.Once
	f.b.step = func(s string) {
		if s == "nfs.snap.copied" {
			once.Do(func() {
				id, err := other.SnapshotID(backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID})
				f.must(err)
				f.kind(other.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: id}), backends.ErrUnavailable)
			})
		}
	}
	s := f.ready(f.snapshot("s", v.ID).ID)
	f.must(other.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}))
}

// TestShareGoesAway: Init prepares a share that was never used, and not the directory
// beneath one that is not mounted any more.
func TestShareGoesAway(t *testing.T) {
	f := newFixture(t)
	v := f.create("pv")
	f.must(os.Rename(f.dir, f.dir+"-away"))
	f.must(os.Mkdir(f.dir, 0o755))
	_, err := f.b.FindVolume(t.Context(), request("other"))
	f.kind(err, backends.ErrUnavailable)
	_, err = f.b.CreateVolume(t.Context(), request("other"))
	f.kind(err, backends.ErrUnavailable)
	f.kind(f.delete(v.ID), backends.ErrUnavailable)
	if names := f.root(); len(names) > 0 {
		t.Errorf("%q", names)
	}
	f.must(os.Remove(f.dir))
	f.must(os.Rename(f.dir+"-away", f.dir))
	f.must(f.delete(v.ID))
}

// TestSwappedInBetween: what somebody puts at a volume's place between the look at it and
// its move is not deleted, and not emptied either if the process is killed right after.
func TestSwappedInBetween(t *testing.T) {
	for _, killed := range []bool{false, true} {
		for _, onDelete := range []string{onDeleteDelete, onDeleteArchive} {
			f := newFixture(t)
			v := f.create("pv", paramOnDelete, onDelete)
			f.write("pv/data", "of the volume")
			swap := func(at string) {
				if at == "nfs.unmake.looked" {
					f.must(os.Rename(f.at("pv"), f.at("away")))
					f.write("pv/data", "precious")
				}
			}
			if killed {
				hit := false
				f.b.step = func(at string) {
					if swap(at); at == "nfs.unmake.renamed" {
						hit = true
						runtime.Goexit()
					}
				}
				done := make(chan struct{})
				go func() { defer close(done); _ = f.delete(v.ID) }()
				<-done
				f.again() // empties the trash
				f.b.wg.Wait()
				if !hit {
					t.Fatal("not killed")
				}
			} else {
				f.b.step = swap
			}
			f.kind(f.delete(v.ID), backends.ErrUnavailable)
			f.b.wg.Wait()
			f.b.step = nil
			f.holds("pv/data", "precious")
			f.holds("away/data", "of the volume")
			f.must(f.delete(v.ID)) // the volume is not there any more
			f.holds("pv/data", "precious")
			f.litter(dirKept)
		}
	}
}

// TestTwoInstallations: neither has a volume inside of the other's, or takes that over.
func TestTwoInstallations(t *testing.T) {
	f := newFixture(t, served(LegacyDelete))
	o := f.b.o
	o.Installation = "other"
	other := &fixture{t, open(t, o), f.dir}
	other.must(other.b.RecoverController(t.Context()))
	other.create("pv", paramSubDir, "team/pv")
	other.write("team/pv/data", "precious")
	other.must(os.MkdirAll(f.at("team/pv/inner"), 0o755))
	for _, sub := range []string{"team", "team/pv", "team/pv/inner", "team/pv/new", "team/pv/new/deep"} {
		for _, adopt := range []string{"false", "true"} {
			_, err := f.b.CreateVolume(t.Context(), request("mine", paramSubDir, sub, paramAdopt, adopt))
			f.kind(err, backends.ErrIncompatible)
		}
		if err := f.delete("nfs.example.com#srv/nfs#" + sub + "#pvc-1#"); !errors.Is(err, backends.ErrPrecondition) && !errors.Is(err, backends.ErrNotFound) {
			t.Errorf("%s: %v", sub, err)
		}
		f.holds("team/pv/data", "precious")
	}
	v := f.create("mine", paramSubDir, "team/mine")
	f.must(f.delete(v.ID))
	f.litter()
}

// TestRecordsAreGone: without the directory of all markers no volume is "not found".
func TestRecordsAreGone(t *testing.T) {
	f := newFixture(t)
	v := f.create("pv")
	s := f.ready(f.snapshot("s", v.ID).ID)
	f.must(os.Rename(f.at(".csi-csikit", dirVolumes), f.at("v-away")))
	f.must(os.Rename(f.at(".csi-csikit", dirSnapshots), f.at("s-away")))
	f.kind(f.delete(v.ID), backends.ErrUnavailable)
	_, err := f.b.FindVolume(t.Context(), request("pv"))
	f.kind(err, backends.ErrUnavailable)
	f.kind(f.b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}), backends.ErrUnavailable)
	f.must(os.Rename(f.at("v-away"), f.at(".csi-csikit", dirVolumes)))
	f.must(os.Rename(f.at("s-away"), f.at(".csi-csikit", dirSnapshots)))
	f.must(f.b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}))
	f.must(f.delete(v.ID))
}
