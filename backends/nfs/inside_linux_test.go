package nfs

import (
	"bytes"
	"os"
	"regexp"
	"testing"

	"github.com/csikit/csikit/backends"
)

// TestOthersShareInside: a directory that another installation uses as a share is not taken
// over, nor deleted with what lies there.
func TestOthersShareInside(t *testing.T) {
	f := newFixture(t, served(LegacyDelete))
	f.must(os.MkdirAll(f.at("team"), 0o755))
	o := f.b.o
	o.Installation, o.Shares = "other", []Share{{Name: "team", LocalDir: f.at("team")}}
	other := &fixture{t, open(t, o), f.at("team")}
	other.must(other.b.RecoverController(t.Context()))
	other.create("pv")
	other.write("pv/data", "precious")
	_, err := f.b.CreateVolume(t.Context(), request("mine", paramSubDir, "team", paramAdopt, "true"))
	f.kind(err, backends.ErrIncompatible)
	f.kind(f.delete("nfs.example.com#srv/nfs#team#pvc-1#"), backends.ErrPrecondition)
	other.holds("pv/data", "precious")
	f.litter()
}

// TestKeptInside: what was retained does not go with a directory above it.
func TestKeptInside(t *testing.T) {
	f := newFixture(t, served(LegacyDelete))
	v := f.create("pv", paramSubDir, "team/pv", paramOnDelete, onDeleteRetain)
	f.write("team/pv/data", "precious")
	f.must(f.delete(v.ID))
	_, err := f.b.CreateVolume(t.Context(), request("mine", paramSubDir, "team", paramAdopt, "true"))
	f.kind(err, backends.ErrIncompatible)
	f.kind(f.delete("nfs.example.com#srv/nfs#team#pvc-1#"), backends.ErrPrecondition)
	f.holds("team/pv/data", "precious")
	f.must(os.RemoveAll(f.at("team/pv"))) // by its owner
	f.must(f.delete("nfs.example.com#srv/nfs#team#pvc-1#"))
	f.litter(dirKept, dirParents)
}

// TestParentAdopted: a directory that was made for a volume inside is left alone, however
// empty, once it is a volume of another installation.
func TestParentAdopted(t *testing.T) {
	f := newFixture(t)
	o := f.b.o
	o.Installation = "other"
	other := &fixture{t, open(t, o), f.dir}
	other.must(other.b.RecoverController(t.Context()))
	v := f.create("pv", paramSubDir, "team/pv")
	f.write("team/file", "of somebody")
	f.must(f.delete(v.ID))
	other.create("theirs", paramSubDir, "team", paramAdopt, "true")
	f.must(os.Remove(f.at("team/file")))
	_, err := f.b.CreateVolume(t.Context(), request("next", paramSubDir, "team/next"))
	f.kind(err, backends.ErrIncompatible)
	if _, err := os.Lstat(f.at("team")); err != nil {
		t.Error(err)
	}
}

// TestCopiedShare: on a share that was copied inodes say nothing, and what stands at a
// volume's path may be another installation's by now.
func TestCopiedShare(t *testing.T) {
	f := newFixture(t)
	o := f.b.o
	o.Installation = "other"
	other := &fixture{t, open(t, o), f.dir}
	other.must(other.b.RecoverController(t.Context()))
	v := f.create("pv")
	f.must(os.Rename(f.at("pv"), f.at("away")))
	other.create("theirs", paramSubDir, "pv")
	other.write("pv/data", "precious")
	record := f.at(".csi-csikit", markerPath(keyOf("pv")))
	text, err := os.ReadFile(record)
	f.must(err)
	copied := regexp.MustCompile(`"root": \d+`).ReplaceAll(text, []byte(`"root": 1`))
	if bytes.Equal(copied, text) {
		t.Fatalf("no root: %s", text)
	}
	f.must(os.WriteFile(record, copied, 0o600))
	f.must(f.delete(v.ID))
	other.holds("pv/data", "precious")
	f.litter()
}

// TestNoInstallation: a file, or a link, with such a name is nobody's installation.
func TestNoInstallation(t *testing.T) {
	f := newFixture(t)
	f.write(controlPrefix+"notes", "of the administrator")
	f.must(os.Symlink("/etc", f.at(controlPrefix+"link")))
	f.must(os.MkdirAll(f.at("old", controlPrefix+"dir"), 0o755))
	f.write("old/"+controlPrefix+"file", "of the administrator")
	f.must(f.delete(f.create("pv", paramSubDir, "team/pv").ID))
	f.create("adopted", paramSubDir, "old", paramAdopt, "true")
}
