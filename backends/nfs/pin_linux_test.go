package nfs

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

// again is the next process, with other options.
func (f *fixture) again(change ...func(*Options)) {
	f.Helper()
	f.must(f.b.Close())
	o := f.b.o
	o.Shares = slices.Clone(o.Shares)
	for _, c := range change {
		c(&o)
	}
	f.b = open(f.T, o)
	f.must(f.b.RecoverController(f.Context()))
}

// otherHost knows nothing of any share.
func otherHost(t *testing.T) func(*Options) {
	return func(o *Options) { o.StateDir = filepath.Join(t.TempDir(), "other") }
}

// shareID is what share.json says.
func (f *fixture) shareID(dir string) string {
	f.Helper()
	b, err := os.ReadFile(filepath.Join(dir, ".csi-csikit", shareFile))
	f.must(err)
	var i siteInfo
	f.must(json.Unmarshal(b, &i))
	return i.ID
}

// refuses makes each kind of call, and wants each to say what is to be done, and none to
// change anything.
func (f *fixture) refuses(vol, snap, say string) {
	f.Helper()
	before := listing(f, f.dir)
	calls := map[string]func() error{
		"Volume":       func() error { _, err := f.b.Volume(f.Context(), backends.VolumeRequest{ID: vol}); return err },
		"FindVolume":   func() error { _, err := f.b.FindVolume(f.Context(), request("pv")); return err },
		"CreateVolume": func() error { _, err := f.b.CreateVolume(f.Context(), request("new")); return err },
		"DeleteVolume": func() error { return f.delete(vol) },
		"Snapshot":     func() error { _, err := f.b.Snapshot(f.Context(), backends.SnapshotRequest{ID: snap}); return err },
		"DeleteSnapshot": func() error {
			return f.b.DeleteSnapshot(f.Context(), backends.DeleteSnapshotRequest{ID: snap})
		},
		"ListVolumes": func() error {
			_, _, err := f.b.ListVolumes(f.Context(), backends.ListVolumesRequest{Page: backends.Page{Limit: 10}})
			return err
		},
		"Capacity": func() error { _, err := f.b.Capacity(f.Context(), backends.CapacityRequest{}); return err },
		"CreateEphemeral": func() error {
			_, err := f.b.CreateEphemeral(f.Context(), backends.CreateEphemeralRequest{ID: "pod"})
			return err
		},
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, backends.ErrUnavailable) || !strings.Contains(err.Error(), say) {
			f.Errorf("%s: %v, want ErrUnavailable with %q", name, err, say)
		}
	}
	f.b.wg.Wait()
	if now := listing(f, f.dir); now != before {
		f.Errorf("was\n%s\nand is\n%s", before, now)
	}
}

// TestSwappedShare: another share, or none, in the place of one that was seen is not that
// share with no volumes, whatever Init says: not after a restart, and where the ID is
// configured not on a host that has never seen it.
func TestSwappedShare(t *testing.T) {
	for what, put := range map[string]func(f *fixture){
		"an empty mount point": func(*fixture) {},
		"another share": func(f *fixture) {
			o := testOptions(f.T)
			o.Shares[0].LocalDir = f.dir
			f.must(open(f.T, o).RecoverController(f.Context()))
		},
		"a share that was not finished": func(f *fixture) { f.must(os.Mkdir(f.at(".csi-csikit"), 0o700)) },
	} {
		t.Run(what, func(t *testing.T) {
			f := newFixture(t, func(o *Options) { o.Ephemeral = true })
			id := f.shareID(f.dir)
			file := filepath.Join(f.b.o.StateDir, "csikit", "name-share.json")
			v := f.create("pv")
			s := f.ready(f.snapshot("s", v.ID).ID)
			f.must(os.Rename(f.dir, f.dir+"-away"))
			f.must(os.Mkdir(f.dir, 0o755))
			put(f)
			f.refuses(v.ID, s.ID, "remove that file")
			f.again()
			f.refuses(v.ID, s.ID, file)
			configured := func(o *Options) { o.Shares[0].ID = id }
			f.again(configured, otherHost(t))
			f.refuses(v.ID, s.ID, "Share.ID")

			f.must(os.Rename(f.dir, f.dir+"-swapped"))
			f.must(os.Rename(f.dir+"-away", f.dir))
			f.again()
			f.must(f.b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: s.ID}))
			f.must(f.delete(v.ID))
		})
	}
}

// TestNewShareOnPurpose: an administrator who says so gets a new share.
func TestNewShareOnPurpose(t *testing.T) {
	f := newFixture(t)
	was := f.shareID(f.dir)
	f.must(os.RemoveAll(f.at(".csi-csikit")))
	f.again()
	_, err := f.b.FindVolume(t.Context(), request("pv"))
	f.kind(err, backends.ErrUnavailable)
	f.must(os.Remove(filepath.Join(f.b.o.StateDir, "csikit", "name-share.json")))
	f.again(func(o *Options) { o.Init = false })
	_, err = f.b.FindVolume(t.Context(), request("pv"))
	f.kind(err, backends.ErrUnavailable)
	f.again(func(o *Options) { o.Init = true })
	f.create("pv")
	if f.shareID(f.dir) == was {
		t.Error("it has the ID of the one before")
	}
}

// TestPinnedByEach: hosts that prepare a share at the same time prepare one, and each
// knows it afterwards. A node prepares none.
func TestPinnedByEach(t *testing.T) {
	o := testOptions(t)
	var hosts []*fixture
	for range 4 {
		otherHost(t)(&o)
		hosts = append(hosts, &fixture{t, open(t, o), o.Shares[0].LocalDir})
	}
	node := o
	otherHost(t)(&node)
	node.Half, node.Ephemeral = NodeHalf, true
	n := &fixture{t, open(t, node), o.Shares[0].LocalDir}
	_, err := n.b.CreateEphemeral(t.Context(), backends.CreateEphemeralRequest{ID: "pod"})
	n.kind(err, backends.ErrUnavailable)
	if got := n.root(); len(got) > 0 {
		t.Errorf("a node has made %q", got)
	}
	done := make(chan error)
	for _, h := range hosts {
		go func() { done <- h.b.recoverShare(t.Context(), o.Shares[0]) }()
	}
	for range hosts {
		hosts[0].must(<-done)
	}
	id := hosts[0].shareID(o.Shares[0].LocalDir)
	for _, h := range hosts {
		have, err := readPin(filepath.Join(h.b.o.StateDir, "csikit", "name-share.json"))
		if err != nil || have != id {
			t.Errorf("%q, %v, want %q", have, err, id)
		}
	}
	_, err = n.b.CreateEphemeral(t.Context(), backends.CreateEphemeralRequest{ID: "pod"})
	n.must(err)
}

// TestPinIsRead: what cannot be read is not "not known".
func TestPinIsRead(t *testing.T) {
	f := newFixture(t)
	v := f.create("pv")
	file := filepath.Join(f.b.o.StateDir, "csikit", "name-share.json")
	whole, err := os.ReadFile(file)
	f.must(err)
	for _, content := range []string{"", string(whole[:20]), strings.Replace(string(whole), `"version": 1`, `"version": 2`, 1), `{"version": 1, "share": "x", "id": ""}`} {
		f.must(os.WriteFile(file, []byte(content), 0o600))
		f.again()
		f.kind(f.delete(v.ID), backends.ErrUnavailable)
	}
	f.must(os.WriteFile(file, whole, 0o600))
	f.again()
	f.must(f.delete(v.ID))
}

// TestPinCannotBeKept: a host without a disk of its own serves all the same, and its
// process knows its shares.
func TestPinCannotBeKept(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.StateDir = "/proc/self/none" })
	v := f.create("pv")
	f.must(os.Rename(f.dir, f.dir+"-away"))
	f.must(os.Mkdir(f.dir, 0o755))
	f.kind(f.delete(v.ID), backends.ErrUnavailable)
	if got, err := os.ReadDir(f.dir); err != nil || len(got) > 0 {
		t.Errorf("%v, %v", got, err)
	}
}
