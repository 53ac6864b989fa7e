package nfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
)

// TestSnapshotIsFinal: one that is whole is never written again, whoever asks for it
// again, and its time is the same.
func TestSnapshotIsFinal(t *testing.T) {
	f := newFixture(t)
	v := f.create("pv")
	f.write("pv/data", "before")
	s := f.ready(f.snapshot("s", v.ID).ID)
	f.write("pv/data", "after")
	_, err := f.b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID})
	f.kind(err, backends.ErrExists)
	again, err := f.b.FindSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID})
	f.must(err)
	if !again.Created.Equal(s.Created) || !again.Ready {
		t.Errorf("%+v, was %+v", again, s)
	}
	f.must(f.delete(v.ID))
	f.restore(s, "restored")
	f.holds("restored/data", "before")
	f.must(f.b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}))
	f.holds("restored/data", "before")
}

// TestSnapshotInBackground: it is not ready while it is copied, its volume stays until
// then, and the next process ends the copy.
func TestSnapshotInBackground(t *testing.T) {
	f := newFixture(t)
	v := f.create("pv")
	for i := range 50 {
		f.write(fmt.Sprintf("pv/d%d/f", i), "content")
	}
	gate := make(chan struct{})
	var once sync.Once
	f.b.step = func(at string) {
		if at == "nfs.copy.file" {
			once.Do(func() { <-gate })
		}
	}
	s := f.snapshot("s", v.ID)
	if s.Ready {
		t.Error("ready, and not copied")
	}
	f.kind(f.delete(v.ID), backends.ErrInUse)
	_, err := f.b.RestoreSnapshot(t.Context(), *s, request("early"))
	f.kind(err, backends.ErrUnavailable)
	f.holds("early/d1/f", "")
	// The process ends: what is copied stays for the next.
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f.b.Close()
	}()
	eventually(f, "the copy is told to end", func() bool { return f.b.ctx.Err() != nil })
	close(gate)
	<-done
	g := &fixture{t, open(t, f.b.o), f.dir}
	f.kind(g.delete(v.ID), backends.ErrInUse) // before anything has gone on
	g.must(g.b.RecoverController(t.Context()))
	if now := g.ready(s.ID); !now.Created.Equal(s.Created) {
		t.Errorf("created %v, was %v", now.Created, s.Created)
	}
	g.must(g.delete(v.ID))
	g.restore(s, "restored")
	g.holds("restored/d49/f", "content")
}

// TestSnapshotConsistency: with consistency=volume there is no snapshot of a volume
// that was written to meanwhile, and nothing of it is left.
func TestSnapshotConsistency(t *testing.T) {
	f := newFixture(t)
	v := f.create("pv")
	for i := range 20 {
		f.write(fmt.Sprintf("pv/f%d", i), "content")
	}
	var busy atomic.Bool // the purge behind the call reads step, too
	busy.Store(true)
	f.b.step = func(at string) {
		if at == "nfs.copy.file" && busy.Load() {
			f.write("pv/new", "written")
		}
	}
	_, err := f.b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{
		Name: "s", VolumeID: v.ID, Parameters: map[string]string{paramConsistency: consistencyVolume},
	})
	f.kind(err, backends.ErrUnavailable)
	_, err = f.b.FindSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID})
	f.kind(err, backends.ErrNotFound)
	busy.Store(false)
	s := f.ready(f.snapshot("s", v.ID, paramConsistency, consistencyVolume).ID)
	f.must(f.b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}))
	f.must(f.delete(v.ID))
	f.litter()
}

// TestSnapshotMoment: consistency=volume is of the moment at which it was asked for, and
// not of that at which its copy has begun.
func TestSnapshotMoment(t *testing.T) {
	f := newFixture(t)
	v := f.create("pv")
	f.write("pv/a", "first")
	var wrote atomic.Bool
	f.b.step = func(at string) {
		if at == "nfs.snap.made" && wrote.CompareAndSwap(false, true) {
			time.Sleep(20 * time.Millisecond) // the clock of the file system ticks
			f.write("pv/a", "later")
		}
	}
	_, err := f.b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{
		Name: "s", VolumeID: v.ID, Parameters: map[string]string{paramConsistency: consistencyVolume},
	})
	f.kind(err, backends.ErrUnavailable)
	s := f.ready(f.snapshot("s", v.ID, paramConsistency, consistencyVolume).ID)
	f.restore(s, "restored")
	f.holds("restored/a", "later")
}

// TestSourceMovedAway: a copy of what was moved away, and emptied there, while it was
// copied is no snapshot and no clone, whatever stands in its place.
func TestSourceMovedAway(t *testing.T) {
	const old = "nfs.example.com#srv/nfs#pv##"
	for _, what := range []string{"snapshot", "legacy snapshot", "clone", "restore"} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t, served(LegacyUse))
			id := old
			if what != "legacy snapshot" {
				id = f.create("pv").ID
			}
			for i := range 40 {
				f.write(fmt.Sprintf("pv/d%d/f", i), "content")
			}
			source, req := "pv", backends.CreateSnapshotRequest{Name: "s", VolumeID: id}
			var snap *backends.Snapshot
			if what == "restore" {
				snap = f.ready(f.snapshot("s", id).ID)
				source = filepath.Join(".csi-csikit", dirData, keyOf("s"))
			}
			var once sync.Once
			f.b.step = func(at string) {
				if at == "nfs.copy.file" {
					once.Do(func() {
						f.must(os.Rename(f.at(source), f.at("away")))
						for i := range 40 {
							f.must(os.RemoveAll(f.at(fmt.Sprintf("away/d%d/f", i))))
						}
						f.must(os.MkdirAll(f.at(source, "theirs"), 0o755))
					})
				}
			}
			var err error
			switch what {
			case "clone":
				_, err = f.b.CloneVolume(t.Context(), backends.Volume{ID: id}, request("copy"))
			case "restore":
				_, err = f.b.RestoreSnapshot(t.Context(), *snap, request("copy"))
			default:
				if snap, err = f.b.CreateSnapshot(t.Context(), req); err == nil && !snap.Ready {
					err = backends.ErrUnavailable
				}
			}
			f.kind(err, backends.ErrUnavailable)
			if _, err := f.b.FindVolume(t.Context(), request("copy")); !errors.Is(err, backends.ErrNotFound) {
				t.Errorf("a copy of what was moved away: %v", err)
			}
			f.b.wg.Wait()
		})
	}
}

// TestLegacySnapshotPending: whichever handle names the directory, it is not deleted
// while a snapshot of it is copied.
func TestLegacySnapshotPending(t *testing.T) {
	f := newFixture(t, served(LegacyDelete))
	f.write("ns/claim/data", "data")
	gate := make(chan struct{})
	var once sync.Once
	f.b.step = func(at string) {
		if at == "nfs.copy.file" {
			once.Do(func() { <-gate })
		}
	}
	s := f.snapshot("s", "nfs.example.com#srv/nfs#ns/claim#pvc-1#")
	for _, id := range []string{"nfs.example.com#srv/nfs#ns/claim#pvc-1#", "nfs.example.com#srv/nfs#ns//claim#pvc-1#", "nfs.example.com#srv/nfs#ns/claim##archive"} {
		f.kind(f.delete(id), backends.ErrInUse)
	}
	close(gate)
	f.restore(f.ready(s.ID), "restored")
	f.holds("restored/data", "data")
	f.must(f.delete("nfs.example.com#srv/nfs#ns//claim#pvc-1#"))
}

// TestSweepGroups: what was half written of a group goes at the next start, too.
func TestSweepGroups(t *testing.T) {
	f := newFixture(t)
	f.must(os.Mkdir(f.at(".csi-csikit", dirGroups), 0o700))
	half, whole := f.at(".csi-csikit", setPath(keyOf("g")))+".abcdefgh", f.at(".csi-csikit", setPath(keyOf("g")))
	f.must(os.WriteFile(half, []byte("{"), 0o600))
	f.must(os.WriteFile(whole, []byte("{}"), 0o600))
	f.again()
	if _, err := os.Stat(half); !os.IsNotExist(err) {
		t.Error(err)
	}
	if _, err := os.Stat(whole); err != nil {
		t.Error(err)
	}
}

// TestRestoreKeepsOwners, of the volume's root too, unless the class says otherwise.
func TestRestoreKeepsOwners(t *testing.T) {
	f := newFixture(t)
	v := f.create("pv", paramPermissions, "2775")
	f.write("pv/bin", "x")
	f.must(os.Chmod(f.at("pv/bin"), 0o755|os.ModeSetuid))
	s := f.ready(f.snapshot("s", v.ID).ID)
	f.restore(s, "same")
	f.restore(s, "other", paramPermissions, "0700")
	_, err := f.b.CloneVolume(t.Context(), *v, request("clone"))
	f.must(err)
	for p, want := range map[string]os.FileMode{
		"same": 0o775 | os.ModeSetgid, "other": 0o700, "clone": 0o775 | os.ModeSetgid,
		"same/bin": 0o755 | os.ModeSetuid, "clone/bin": 0o755 | os.ModeSetuid,
	} {
		if fi, err := os.Stat(f.at(p)); err != nil || fi.Mode()&^os.ModeDir != want {
			t.Errorf("%s: %v, %v, want %v", p, fi.Mode(), err, want)
		}
	}
}

// hookScript makes snapshots by cp, below "snaps" of the share, and notes quotas.
const hookScript = `#!/bin/sh
set -e
op=$1; shift
paths=
for a in "$@"; do
	case $a in
	dir=*) dir=${a#dir=} ;;
	name=*) name=${a#name=} ;;
	size=*) size=${a#size=} ;;
	path=*) path=${a#path=}; paths="$paths $path" ;;
	esac
done
case $op in
quota) echo "$path $size" >> "$dir/quotas" ;;
snapshot)
	test ! -e "$dir/broken"
	sep=
	test -d "$dir/snaps/$name" || {
		mkdir -p "$dir/snaps/$name.tmp"
		for p in $paths; do cp -a "$dir/$p" "$dir/snaps/$name.tmp/"; done
		mv "$dir/snaps/$name.tmp" "$dir/snaps/$name"
	}
	printf '{"created":"%s","paths":{' "$(date -u -r "$dir/snaps/$name" +%Y-%m-%dT%H:%M:%SZ)"
	for p in $paths; do printf '%s"%s":"snaps/%s/%s"' "$sep" "$p" "$name" "$p"; sep=,; done
	echo '}}' ;;
delete-snapshot) rm -rf "$dir/snaps/$name" ;;
esac
`

func withHook(t testing.TB) func(*Options) {
	t.Helper()
	return func(o *Options) {
		path := t.TempDir() + "/hook"
		if err := os.WriteFile(path, []byte(hookScript), 0o755); err != nil {
			t.Fatal(err)
		}
		o.Hook, o.HookSnapshots, o.Quota = []string{path}, true, QuotaHook
	}
}

// TestHook: snapshots and quotas are the server's own.
func TestHook(t *testing.T) {
	f := newFixture(t, withHook(t))
	req := request("pv")
	req.Size = 1 << 20
	v, err := f.b.CreateVolume(t.Context(), req)
	f.must(err)
	f.write("pv/data", "before")
	s := f.snapshot("s", v.ID)
	if !s.Ready || s.Size != 1<<20 {
		t.Errorf("%+v", s)
	}
	f.write("pv/data", "after")
	req = request("restored")
	req.Size = 1 << 20
	_, err = f.b.RestoreSnapshot(t.Context(), *s, req)
	f.must(err)
	f.holds("restored/data", "before")
	size, err := f.b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 2 << 20})
	if err != nil || size != 2<<20 {
		t.Errorf("%d, %v", size, err)
	}
	f.must(f.b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}))
	f.holds("snaps/csi-"+keyOf("s")+"/pv/data", "")
	f.must(f.delete(v.ID))
	f.holds("quotas", "pv 1048576\nrestored 1048576\npv 2097152\npv 0\n")
}

// TestHookFails: what it began is ended by the next call, and is not listed until then.
func TestHookFails(t *testing.T) {
	f := newFixture(t, withHook(t))
	v := f.create("pv")
	f.write("broken", "yes")
	req := backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID}
	_, err := f.b.CreateSnapshot(t.Context(), req)
	f.kind(err, backends.ErrUnavailable)
	_, err = f.b.FindSnapshot(t.Context(), req)
	f.kind(err, backends.ErrNotFound)
	f.kind(f.delete(v.ID), backends.ErrInUse)
	f.must(os.Remove(f.at("broken")))
	s, err := f.b.CreateSnapshot(t.Context(), req)
	f.must(err)
	if !s.Ready {
		t.Errorf("%+v", s)
	}
	f.must(f.delete(v.ID))
}

// TestHookLies: where a snapshot is said to be is looked at, and stays on the share.
func TestHookLies(t *testing.T) {
	for _, path := range []string{"../outside", "/etc", "nowhere", "link"} {
		f := newFixture(t, func(o *Options) {
			at := t.TempDir() + "/hook"
			f := `#!/bin/sh
echo '{"created":"2020-01-01T00:00:00Z","paths":{"pv":"` + path + `"}}'
`
			if err := os.WriteFile(at, []byte(f), 0o755); err != nil {
				t.Fatal(err)
			}
			o.Hook, o.HookSnapshots = []string{at}, true
		})
		f.must(os.Symlink("/etc", f.at("link")))
		v := f.create("pv")
		if s, err := f.b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID}); err == nil {
			t.Errorf("%s: %+v", path, s)
		}
	}
}

// TestHookGroup: one call for all volumes.
func TestHookGroup(t *testing.T) {
	f := newFixture(t, withHook(t))
	var ids []string
	for _, name := range []string{"a", "b"} {
		ids = append(ids, f.create(name).ID)
		f.write(name+"/data", "of "+name)
	}
	slices.Sort(ids)
	req := backends.CreateGroupSnapshotRequest{Name: "g", VolumeIDs: ids}
	g, err := f.b.CreateGroupSnapshot(t.Context(), req)
	f.must(err)
	if len(g.Snapshots) != 2 || !g.Snapshots[0].Ready || !g.Snapshots[0].Created.Equal(g.Snapshots[1].Created) {
		t.Errorf("%+v", g)
	}
	f.kind(f.b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: g.Snapshots[0].ID}), backends.ErrPrecondition)
	found, err := f.b.FindGroupSnapshot(t.Context(), req)
	if err != nil || found.ID != g.ID {
		t.Errorf("%+v, %v", found, err)
	}
	f.must(f.b.DeleteGroupSnapshot(t.Context(), backends.DeleteGroupSnapshotRequest{ID: g.ID}))
	f.kind(f.b.DeleteGroupSnapshot(t.Context(), backends.DeleteGroupSnapshotRequest{ID: g.ID}), backends.ErrNotFound)
	f.holds("snaps/csi-"+keyOf("g")+"/a/data", "")
}
