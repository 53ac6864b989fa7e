package nfs

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
)

// TestGuard: it measures, and says which volume holds more than its size.
func TestGuard(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Quota = QuotaGuard })
	req := request("pv")
	req.Size = 1 << 20
	v, err := f.b.CreateVolume(t.Context(), req)
	f.must(err)
	f.must(os.WriteFile(f.at("pv/data"), make([]byte, 2<<20), 0o644))
	f.must(os.Link(f.at("pv/data"), f.at("pv/again"))) // counts once
	list := func() []backends.VolumeHealth {
		vols, _, err := f.b.ListVolumeHealth(t.Context(), backends.ListVolumeHealthRequest{Page: backends.Page{Limit: 10}})
		f.must(err)
		return vols
	}
	f.must(f.b.measureShare(t.Context(), f.b.o.Shares[0]))
	if got := list(); len(got) != 1 || got[0].ID != v.ID || got[0].Health[0].Reason != reasonSize || got[0].Health[0].Status != backends.HealthDegraded {
		t.Errorf("%+v", got)
	}
	_, err = f.b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 3 << 20})
	f.must(err)
	if got := list(); len(got) > 0 {
		t.Errorf("after its growth: %+v", got)
	}
	f.must(os.RemoveAll(f.at("pv")))
	if got := list(); len(got) != 1 || got[0].Health[0].Reason != reasonMissing || got[0].Health[0].Status != backends.HealthDataLoss {
		t.Errorf("without its directory: %+v", got)
	}
	f.must(f.delete(v.ID))
	f.litter()
}

// TestMeasuredLate: two measurements of a volume, as of the guard's round and of one that
// was asked for, may end the other way round.
func TestMeasuredLate(t *testing.T) {
	var u usages
	now := time.Now()
	u.set("v", measured{2, now})
	u.set("v", measured{1, now.Add(-time.Second)})
	if m, _ := u.get("v"); m.bytes != 2 {
		t.Errorf("%d bytes, of the measurement that was begun first", m.bytes)
	}
	u.set("v", measured{3, now.Add(time.Second)})
	if m, _ := u.get("v"); m.bytes != 3 {
		t.Errorf("%d bytes, and another measurement was begun since", m.bytes)
	}
}

// TestMountOptions come from the share, from the class by way of the volume's context,
// and from the secret of csi-driver-nfs.
func TestMountOptions(t *testing.T) {
	o := testOptions(t)
	o.Shares = []Share{{Name: "one", Server: "nfs.example.com", Export: "/srv/nfs/", Options: []string{"vers=4.2", "nconnect=4"}}}
	b := open(t, o)
	req := request("pv", paramServer, "NFS.example.com", paramShare, "//srv/nfs", paramOptions, "noatime, rsize=65536")
	req.Secrets = backends.NewSecrets(map[string]string{paramOptions: "sec=krb5p"})
	pl, err := b.plan(req)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"vers=4.2", "nconnect=4", "noatime", "rsize=65536", "sec=krb5p"}; !slices.Equal(pl.share.Options, want) || pl.share.Name != "one" {
		t.Errorf("the controller mounts %+v", pl.share)
	}
	v := b.public(&marker{Key: keyOf("pv"), SubDir: "pv", Options: pl.p.options}, pl.share)
	s, sub, err := b.locate(v.ID, v.Context)
	if want := []string{"vers=4.2", "nconnect=4", "noatime", "rsize=65536"}; err != nil || sub != "pv" || !slices.Equal(s.Options, want) {
		t.Errorf("the node mounts %+v %q, %v", s, sub, err)
	}
	for _, bad := range []string{"bind", "remount,rw", "a b", "x-systemd.automount", "-o", "a\nb"} {
		if _, err := b.plan(request("pv", paramOptions, bad)); err == nil {
			t.Errorf("mount options %q are taken", bad)
		}
		req.Secrets = backends.NewSecrets(map[string]string{paramOptions: bad})
		if _, err := b.plan(req); err == nil {
			t.Errorf("mount options %q of a secret are taken", bad)
		}
	}
}

// TestHandlesWithoutConfiguration: with AnyShare a class names any server, and a
// volume is found by its handle alone.
func TestHandlesWithoutConfiguration(t *testing.T) {
	o := testOptions(t)
	o.AnyShare = true
	b := open(t, o)
	id, err := b.VolumeID(request("pv", paramServer, "10.0.0.1", paramShare, "/srv"))
	if err != nil || id != "n1#10.0.0.1:/srv#"+keyOf("pv") {
		t.Fatal(id, err)
	}
	h, err := b.decode(id, volumeTag, backends.VolumeNotFound(id))
	if err != nil || h.share.Server != "10.0.0.1" || h.share.Export != "/srv" {
		t.Errorf("%+v, %v", h, err)
	}
	long := request("pv", paramServer, "10.0.0.1", paramShare, "/a/very/long/path/of/an/export/that/leaves/no/room/for/the/key/of/a/volume/within/the/bytes/of/a/handle")
	if _, err := b.VolumeID(long); err == nil {
		t.Error("a handle of more than 128 bytes")
	}
	if f := backends.DetectController(b); f.VolumeLister != nil || f.SnapshotLister != nil || f.CapacityReporter == nil {
		t.Errorf("%+v", f)
	}
	o.AnyShare = false
	closed := open(t, o)
	if _, err := closed.VolumeID(request("pv", paramServer, "10.0.0.1", paramShare, "/srv")); err == nil {
		t.Error("a server that is not configured")
	}
	if _, err := closed.decode(id, volumeTag, backends.VolumeNotFound(id)); err == nil {
		t.Error("a handle of a server that is not configured")
	}
}
