package lvm

import (
	"errors"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/luks"
)

func podOptions() Options {
	o := testOptions()
	o.EphemeralMax = 64 << 20
	return o
}

func pod(t testing.TB, b *Backend, id string, pairs ...string) (*backends.Volume, error) {
	t.Helper()
	req := backends.CreateEphemeralRequest{ID: id, Parameters: map[string]string{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		req.Parameters[pairs[i]] = pairs[i+1]
	}
	return b.CreateEphemeral(t.Context(), req)
}

func TestEphemeral(t *testing.T) {
	f := newFake()
	b := onFake(t, f, podOptions())
	v, err := pod(t, b, "csi-1", "size", "8Mi", paramClass, "thin")
	if err != nil || v.Capacity != 8<<20 {
		t.Fatalf("%+v, %v", v, err)
	}
	if again, err := pod(t, b, "csi-1", "size", "8388608", paramClass, "thin"); err != nil || again.ID != v.ID {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := pod(t, b, "csi-1", "size", "16Mi", paramClass, "thin"); !errors.Is(err, backends.ErrIncompatible) {
		t.Errorf("another size: %v", err)
	}
	if d, err := pod(t, b, "csi-2"); err != nil || d.Capacity != 64<<20 {
		t.Errorf("defaults: %+v, %v", d, err)
	}
	for _, bad := range [][]string{{"size", "65Mi"}, {"size", "1"}, {"size", "-4Mi"}, {"size", ""}, {"size", "4MiMi"}, {"size", "9999999Ti"}, {paramClass, "x"}, {"vg", "other"}} {
		if _, err := pod(t, b, "csi-3", bad...); !errors.Is(err, backends.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if got, _, err := b.ListVolumes(t.Context(), backends.ListVolumesRequest{Page: backends.Page{Limit: 9}}); err != nil || len(got) != 0 {
		t.Errorf("listed: %v, %v", got, err)
	}
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("deleted by the controller: %v", err)
	}
	// The driver died before it knew the volume's own ID.
	for range 2 {
		for _, id := range []string{"csi-1", "csi-2"} {
			if err := b.DeleteEphemeral(t.Context(), backends.DeleteEphemeralRequest{ID: id}); err != nil {
				t.Error(err)
			}
		}
	}
	if ready, other := f.mine(); ready+other != 0 {
		t.Errorf("%d and %d are left", ready, other)
	}
}

// After the node's records were lost a pod's volume goes, unless somebody has it
// open; other volumes stay.
func TestEphemeralWithoutRecord(t *testing.T) {
	f := newFake()
	b := onFake(t, f, podOptions())
	kept := createVolume(t, b, "kept", "linear", 8<<20)
	ids := map[string]string{}
	for _, id := range []string{"lost", "recorded", "mounted"} {
		v, err := pod(t, b, id, "size", "8Mi")
		if err != nil {
			t.Fatal(err)
		}
		ids[id] = v.ID
	}
	f.lvs[len(f.lvs)-1].open = true
	b = onFake(t, f, podOptions())
	if err := errors.Join(b.RecoverController(t.Context()), b.RecoverNode(t.Context(), []backends.OpenVolume{{ID: ids["recorded"], Ephemeral: true}})); err != nil {
		t.Fatal(err)
	}
	for id, own := range ids {
		_, err := b.Volume(t.Context(), backends.VolumeRequest{ID: own})
		if gone := errors.Is(err, backends.ErrNotFound); gone != (id == "lost") {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := b.Volume(t.Context(), backends.VolumeRequest{ID: kept.ID}); err != nil {
		t.Error(err)
	}
}

func TestEphemeralKilled(t *testing.T) {
	setup := func(_ *testing.T, b *Backend) error {
		b.o.EphemeralMax = 64 << 20
		return nil
	}
	birth := func(t *testing.T, b *Backend) error { return second(pod(t, b, "csi-1", "size", "8Mi")) }
	killed(t, "linear", setup, birth, func(t *testing.T, f *fakeVG, b *Backend) {
		b.o.EphemeralMax = 64 << 20
		if err := birth(t, b); err != nil {
			t.Fatal(err)
		}
		if ready, other := f.mine(); ready != 1 || other != 0 {
			t.Errorf("%d ready, %d not", ready, other)
		}
	})
	killed(t, "linear", setup, birth, func(t *testing.T, f *fakeVG, b *Backend) {
		if err := b.RecoverNode(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if ready, other := f.mine(); ready+other != 0 {
			t.Errorf("nobody knows of it: %d ready, %d not", ready, other)
		}
	})
}

func TestNodeFilter(t *testing.T) {
	o := testOptions()
	for _, on := range []bool{false, true} {
		if on {
			o.EphemeralMax, o.MaxVolumes, o.Cgroup = 1<<30, 3, "/sys/fs/cgroup/pods"
		}
		b := onFake(t, newFake(), o)
		n := backends.DetectNode(b)
		if (n.EphemeralProvisioner != nil) != on || (n.AttachLimiter != nil) != on || (n.NodeHealthChecker != nil) != on {
			t.Errorf("%v: %+v", on, n)
		}
		if (b.Traits().Lifecycle&backends.Ephemeral != 0) != on {
			t.Errorf("%v: %+v", on, b.Traits())
		}
		if on {
			if n, err := n.AttachLimiter.MaxVolumes(t.Context()); n != 3 || err != nil {
				t.Error(n, err)
			}
		}
	}
}

// An encrypted volume: the key comes with each opening, and copies stay encrypted.
func TestEncrypted(t *testing.T) {
	f := newFake()
	b := onFake(t, f, optionsFor("thin"))
	v, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: "a", Size: 64 << 20, Parameters: map[string]string{luks.Param: "true"}})
	if err != nil {
		t.Fatal(err)
	}
	open := func(pairs map[string]string) (*backends.Source, error) {
		return b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID, Capability: backends.Capability{Block: true}, Secrets: backends.NewSecrets(pairs)})
	}
	if _, err := open(nil); !errors.Is(err, backends.ErrUnauthenticated) {
		t.Errorf("without a key: %v", err)
	}
	src, err := open(map[string]string{luks.SecretKey: "k"})
	if err != nil || src.Device.Encryption == nil || src.Device.Format != backends.FormatNever {
		t.Fatalf("%+v, %v", src, err)
	}
	// The header is made: begun, and done with nothing inside that csikit made.
	for _, s := range []backends.FormatState{backends.FormatStarted, backends.FormatDone} {
		if err := b.RecordFormat(t.Context(), backends.RecordFormatRequest{ID: v.ID, Format: s}); err != nil {
			t.Fatal(err)
		}
		if src, err := open(map[string]string{luks.SecretKey: "k"}); err != nil || src.Device.Format != s || src.Device.FSType != "" {
			t.Errorf("%v: %+v, %v", s, src, err)
		}
	}
	s, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID})
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"false", "true"} {
		_, err := b.RestoreSnapshot(t.Context(), *s, backends.CreateVolumeRequest{Name: "r", Size: 64 << 20, Parameters: map[string]string{luks.Param: value}})
		if bad := errors.Is(err, backends.ErrInvalid); bad != (value == "false") {
			t.Errorf("copy with encrypted=%s: %v", value, err)
		}
	}
	check := backends.CheckVolumeRequest{Size: 16 << 20, Parameters: map[string]string{luks.Param: "true"}, Capabilities: []backends.Capability{{Block: true}}}
	if err := b.CheckVolume(t.Context(), check); !errors.Is(err, backends.ErrOutOfRange) {
		t.Errorf("smaller than its header: %v", err)
	}
}
