package nfs

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

// served is a share with a server's name: handles of csi-driver-nfs speak of it.
func served(policy Legacy) func(*Options) {
	return func(o *Options) {
		o.Shares[0].Server, o.Shares[0].Export, o.Legacy = "nfs.example.com", "/srv/nfs", policy
	}
}

// TestLegacyVolumes: what csi-driver-nfs made is used as it is, and deleted only when
// that was said.
func TestLegacyVolumes(t *testing.T) {
	const id = "nfs.example.com#srv/nfs#pvc-1##"
	for _, policy := range []Legacy{LegacyRefuse, LegacyUse, LegacyDelete} {
		f := newFixture(t, served(policy))
		f.write("pvc-1/data", "data")
		v, err := f.b.Volume(t.Context(), backends.VolumeRequest{ID: id})
		if policy == LegacyRefuse {
			f.kind(err, backends.ErrPrecondition) // not "not found": it is there
			f.kind(f.delete(id), backends.ErrPrecondition)
			f.holds("pvc-1/data", "data")
			continue
		}
		f.must(err)
		s, sub, err := f.b.locate(id, v.Context)
		if err != nil || sub != "pvc-1" || s.source(sub) != "nfs.example.com:/srv/nfs/pvc-1" {
			t.Errorf("%v %s %v", s, sub, err)
		}
		snap := f.ready(f.snapshot("s", id).ID)
		f.restore(snap, "restored")
		f.holds("restored/data", "data")
		err = f.delete(id)
		if policy == LegacyUse {
			f.kind(err, backends.ErrPrecondition)
			f.holds("pvc-1/data", "data")
			f.must(f.delete("nfs.example.com#srv/nfs#pvc-1##retain"))
			f.holds("pvc-1/data", "data")
			continue
		}
		f.must(err)
		f.holds("pvc-1/data", "")
		f.kind(f.delete(id), backends.ErrNotFound)
	}
}

// TestLegacyHandles: each form that csi-driver-nfs has written is its directory.
func TestLegacyHandles(t *testing.T) {
	for id, dir := range map[string]string{
		"nfs.example.com#srv/nfs#pvc-1":                       "pvc-1",
		"nfs.example.com#srv/nfs#pvc-1#":                      "pvc-1",
		"nfs.example.com#srv/nfs#pvc-1##":                     "pvc-1",
		"nfs.example.com#srv/nfs#ns/claim#pvc-1#":             "ns/claim",
		"nfs.example.com#srv/nfs#ns//claim#pvc-1#":            "ns/claim",
		"nfs.example.com#srv//nfs#ns///claim#pvc-1#Delete":    "ns/claim",
		"nfs.example.com#srv/nfs#${pvc.metadata.name}#pvc-1#": "${pvc.metadata.name}",
		"nfs.example.com/srv/nfs/pvc-1":                       "pvc-1",
	} {
		f := newFixture(t, served(LegacyDelete))
		f.write(dir+"/data", "data")
		f.write("other/data", "precious")
		v, err := f.b.Volume(t.Context(), backends.VolumeRequest{ID: id})
		f.must(err)
		for _, context := range []map[string]string{v.Context, {"server": "nfs.example.com", "share": "/srv/nfs", "subDir": dir}, nil} {
			s, sub, err := f.b.locate(id, context)
			if err != nil || s.source(sub) != "nfs.example.com:/srv/nfs/"+dir {
				t.Errorf("%s: %s, %q, %v", id, s, sub, err)
			}
		}
		f.must(f.delete(id))
		f.holds(dir+"/data", "")
		f.kind(f.delete(id), backends.ErrNotFound)
		f.holds("other/data", "precious")
	}
	f := newFixture(t, served(LegacyUse))
	s, sub, err := f.b.locate("x", map[string]string{"server": "nfs.example.com", "share": "/srv/nfs", "subDir": "/ns//claim/"})
	if err != nil || s.source(sub) != "nfs.example.com:/srv/nfs/ns/claim" {
		t.Errorf("%s, %q, %v", s, sub, err)
	}
}

// TestLegacyDefault: a handle that does not say what becomes of the volume leaves it to
// the driver, as with csi-driver-nfs.
func TestLegacyDefault(t *testing.T) {
	f := newFixture(t, served(LegacyDelete), func(o *Options) { o.OnDelete = onDeleteRetain })
	f.write("pvc-1/data", "data")
	f.must(f.delete("nfs.example.com#srv/nfs#pvc-1##"))
	f.holds("pvc-1/data", "data")
}

// TestLegacySnapshots: those of csi-driver-nfs are tar files, which this driver leaves
// alone, and does not call deleted.
func TestLegacySnapshots(t *testing.T) {
	for _, policy := range []Legacy{LegacyRefuse, LegacyDelete} {
		f := newFixture(t, served(policy))
		const id = "nfs.example.com#srv/nfs#snapshot-1#snapshot-1#pvc-1"
		f.write("snapshot-1/pvc-1.tar.gz", "precious")
		f.kind(f.b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: id}), backends.ErrPrecondition)
		_, err := f.b.Snapshot(t.Context(), backends.SnapshotRequest{ID: id})
		f.kind(err, backends.ErrPrecondition)
		f.kind(f.b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: "snapshot-1"}), backends.ErrNotFound)
		f.holds("snapshot-1/pvc-1.tar.gz", "precious")
	}
}

// TestLegacyArchive: what the handle says.
func TestLegacyArchive(t *testing.T) {
	f := newFixture(t, served(LegacyDelete))
	f.write("ns/pvc/data", "data")
	id := "nfs.example.com#srv/nfs#ns/pvc#pvc-1#archive"
	f.must(f.delete(id))
	f.kind(f.delete(id), backends.ErrNotFound)
	f.holds("ns/pvc/data", "")
	found := false
	for _, name := range f.root() {
		if strings.HasPrefix(name, "archived-ns-pvc-") {
			f.holds(name+"/data", "data")
			found = true
		}
	}
	if !found {
		t.Errorf("%q", f.root())
	}
	if _, err := os.Stat(f.at("ns")); err != nil {
		t.Errorf("a parent that we did not make: %v", err)
	}
}

// TestLegacyIsNoWayRound: a handle that speaks of a path of our volumes deletes none.
func TestLegacyIsNoWayRound(t *testing.T) {
	f := newFixture(t, served(LegacyDelete))
	f.create("a", paramSubDir, "x/y")
	f.write("x/y/data", "precious")
	f.must(os.Symlink("x", f.at("link")))
	for _, sub := range []string{"x/y", "x", "x/y/inner", "link/y", "link"} {
		f.must(os.MkdirAll(f.at("x/y/inner"), 0o755))
		if err := f.delete("nfs.example.com#srv/nfs#" + sub + "##"); err == nil {
			t.Errorf("%s was deleted", sub)
		}
		f.holds("x/y/data", "precious")
	}
}

// noHandles are of nobody: csi-driver-nfs has not made a volume by such names.
var noHandles = []string{
	"nothing", "a#b", "#srv/nfs#a##", " #srv/nfs#a##", "nfs.example.com#srv/nfs#a\x00b##", "-o#srv/nfs#a##", "../a/b", "/a/b", "..#srv#a##",
	"nfs example#srv#a##", "nfs.example.com/x#srv#a##", "n1#share#..", "n1#share#..##purge", "n1#share#" + strings.Repeat("A", 26), "s1#share#" + keyOf("a"),
}

// unsafeHandles may be of volumes of csi-driver-nfs, and lead, or may lead, elsewhere:
// CVE-2026-3864, and its relatives; names with a # in them; all of a share; and what is
// not known of that driver.
var unsafeHandles = []string{
	"nfs.example.com#srv/nfs#..##", "nfs.example.com#srv/nfs#../other##", "nfs.example.com#srv/nfs#a/../../b##",
	"nfs.example.com#srv/nfs#a/..##", "nfs.example.com#srv/nfs#.##", "nfs.example.com#srv/nfs###", "nfs.example.com#srv/nfs##pvc-1#",
	"nfs.example.com#srv/nfs#/etc##", "nfs.example.com#srv/nfs#//##", "nfs.example.com#srv/nfs#a/##",
	"nfs.example.com#srv/nfs#a\\..\\b##", "nfs.example.com#srv/nfs#a\nb##", "nfs.example.com#srv/nfs# a##",
	"nfs.example.com#srv/../etc#a##", "nfs.example.com#..#a##", "nfs.example.com,exec=x#srv#a##", "nfs1,nfs2#srv#a##",
	"nfs.example.com#srv/nfs#a##purge", "nfs.example.com#srv/nfs#a#b#delete#c", "nfs.example.com#srv/nfs#a#b#pvc-1#", "nfs.example.com#srv/nfs#a#../b#delete",
	"nfs.example.com#srv/nfs#.csi-csikit/v##", "nfs.example.com#srv/nfs#.CSI-csikit##", "nfs.example.com#srv/nfs#a//../b#pvc-1#",
	"nfs.example.com/srv/nfs/..", "nfs.example.com/srv/../a", "nfs.example.com/share##", "n1#srv#..#pvc-1#delete",
}

// TestBadHandles: what is nobody's is not found, and what may be somebody's is neither
// touched nor forgotten, whether or not this driver takes such volumes over.
func TestBadHandles(t *testing.T) {
	for _, policy := range []Legacy{LegacyRefuse, LegacyUse, LegacyDelete} {
		f := newFixture(t, served(policy), func(o *Options) { o.AnyShare = true })
		f.write("a/data", "precious")
		f.write("etc/data", "precious")
		for kind, ids := range map[error][]string{backends.ErrNotFound: noHandles, backends.ErrPrecondition: unsafeHandles} {
			for _, id := range ids {
				want := kind
				if policy == LegacyRefuse && !surelyLegacy(id) {
					want = backends.ErrNotFound
				}
				f.kind(f.delete(id), want)
				_, err := f.b.Volume(t.Context(), backends.VolumeRequest{ID: id})
				f.kind(err, want)
				_, _, err = f.b.locate(id, nil)
				f.kind(err, want)
			}
		}
		f.holds("a/data", "precious")
		f.holds("etc/data", "precious")
	}
	f := newFixture(t)
	for _, sub := range []string{"..", "../x", "a/../b", "a/./b", ".csi-csikit", ".csi-csikit/v", "/..", "a//b", "a\x00", "${pvc.metadata.uid}", "${pv.metadata.name", strings.Repeat("a/", 40) + "a"} {
		_, err := f.b.CreateVolume(t.Context(), request("pv", paramSubDir, sub))
		f.kind(err, backends.ErrInvalid)
	}
	req := request("pv", paramSubDir, "${pvc.metadata.name}")
	req.Owner.PVC = "../etc"
	_, err := f.b.CreateVolume(t.Context(), req)
	f.kind(err, backends.ErrInvalid)
}

// FuzzHandle: a handle that is accepted names a path below its share, and reads the
// same again.
func FuzzHandle(f *testing.F) {
	for _, id := range append(noHandles, unsafeHandles...) {
		f.Add(id)
	}
	f.Add("nfs.example.com#srv//nfs#ns//claim#pvc-1#")
	f.Add("nfs.example.com#srv/nfs#ns/pvc#pvc-1#archive")
	f.Add("nfs.example.com/srv/nfs/pvc-1")
	f.Add("n1#share#" + keyOf("pv"))
	f.Add("n1#10.0.0.1:/srv#" + keyOf("pv"))
	f.Fuzz(func(t *testing.T, id string) {
		h, err := parseHandle(id)
		if err != nil {
			if errors.Is(err, errNoHandle) == errors.Is(err, backends.ErrPrecondition) {
				t.Errorf("%q: %v", id, err)
			}
			return
		}
		if !h.legacy() {
			if h.String() != id || !keyRule.MatchString(h.key) {
				t.Errorf("%q reads as %q", id, h)
			}
			return
		}
		if checkSubDir(h.subDir) != nil {
			t.Errorf("%q is at %q", id, h.subDir)
		}
		inside(t, h.subDir)
	})
}

// FuzzSubDir: whatever a class and a claim say, the volume is below its share.
func FuzzSubDir(f *testing.F) {
	f.Add("${pvc.metadata.namespace}/${pvc.metadata.name}", "claim", "space")
	f.Add("../${pv.metadata.name}", "..", ".")
	f.Add("${pvc.metadata.name}${pvc.metadata.namespace}", ".", ".")
	f.Add("$${pvc.metadata.name}", "{", "}")
	f.Fuzz(func(t *testing.T, template, claim, space string) {
		dir, err := expandSubDir(template, "pv", backends.Owner{PVC: claim, PVCNamespace: space})
		if err == nil {
			inside(t, dir)
		}
		inside(t, defaultSubDir(claim))
	})
}

// inside fails the test unless p is a path below a share, and nothing of a driver's.
func inside(t *testing.T, p string) {
	t.Helper()
	depth := 0
	for i, c := range strings.Split(p, "/") {
		switch {
		case c == "" || c == "." || c == ".." || strings.ContainsAny(c, "\x00\n\\"):
			t.Errorf("%q has the component %q", p, c)
		case i == 0 && strings.HasPrefix(c, controlPrefix):
			t.Errorf("%q is a driver's", p)
		}
		depth++
	}
	if depth == 0 || len(p) > maxSubDir || strings.HasPrefix(p, "/") {
		t.Errorf("%q", p)
	}
}
