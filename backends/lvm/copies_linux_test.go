package lvm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// TestRealCopies are snapshots and copies block by block with a real lvm and
// device-mapper, in one boot.
func TestRealCopies(t *testing.T) {
	if !testenv.InVM(t, "200M", "200M", "200M") {
		return
	}
	makeVG(t, "/dev/ubdb", "/dev/ubdc", "/dev/ubdd")
	play(t, []vmRow{
		{"thick snapshot: restored, byte by byte, in every class", restoredEverywhere},
		{"thick snapshot: full is told, and never restored", snapshotFull},
		{"thick snapshot: its volume grows at rest alone", grownWithSnapshot},
		{"thick snapshot: what it had is wiped", snapshotWiped},
		{"clone: of a volume in use, at one moment", clonedInUse},
		{"LVM create: copy half", copyHalf},
		{"LVM create: copy half, and deleted", copyHalfDeleted},
		{"copy: nothing stays active", nothingActive},
		{"LVM: extents that held foreign data", foreignData},
	})
}

// both is a driver with both halves that knows what is open: nothing.
func both(t testing.TB, o Options) *Backend {
	b := open(t, o)
	if err := errors.Join(b.RecoverController(t.Context()), b.RecoverNode(t.Context(), nil)); err != nil {
		t.Fatal(err)
	}
	b.jobs.Wait()
	return b
}

// scribbled is a volume with random data at random places.
func scribbled(t testing.TB, b *Backend, name, class string, size int64) (v *backends.Volume, sum [32]byte) {
	t.Helper()
	v = createVolume(t, b, name, class, size)
	src := opened(t, b, v.ID, true)
	random := rand.New(rand.NewPCG(7, uint64(len(name))))
	for range 40 {
		p := make([]byte, 1+random.IntN(200<<10))
		for i := range p {
			p[i] = byte(random.Uint32())
		}
		write(t, src.Device.Path, p, random.Int64N(v.Capacity-int64(len(p))))
	}
	sum = digestOf(t, src.Device.Path, v.Capacity)
	closed(t, b, v.ID, src)
	return v, sum
}

// digestOf is that of the first n bytes of a device, read from the disk.
func digestOf(t testing.TB, path string, n int64) [32]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyN(h, f, n); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

// wantContent compares all bytes of a volume, and wants zeros behind them.
func wantContent(t testing.TB, b *Backend, id string, n int64, sum [32]byte) {
	t.Helper()
	src := opened(t, b, id, true)
	defer closed(t, b, id, src)
	if digestOf(t, src.Device.Path, n) != sum {
		t.Errorf("%s has other bytes", id)
	}
	if more := src.Device.Identity.Size - n; more > 0 {
		if tail := read(t, src.Device.Path, int(more), n); len(bytes.Trim(tail, "\x00")) > 0 {
			t.Errorf("%s: what is behind the copy is not zero", id)
		}
	}
}

func snapshotOf(t testing.TB, b *Backend, name, id string, params ...string) *backends.Snapshot {
	t.Helper()
	req := backends.CreateSnapshotRequest{Name: name, VolumeID: id, Parameters: map[string]string{}}
	for i := 0; i+1 < len(params); i += 2 {
		req.Parameters[params[i]] = params[i+1]
	}
	s, err := b.CreateSnapshot(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func restored(t testing.TB, b *Backend, s *backends.Snapshot, name, class string, size int64) *backends.Volume {
	t.Helper()
	v, err := b.RestoreSnapshot(t.Context(), *s, backends.CreateVolumeRequest{Name: name, Size: size, Parameters: map[string]string{paramClass: class}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func snapshotDeleted(t testing.TB, b *Backend, id string) {
	t.Helper()
	if err := b.DeleteSnapshot(t.Context(), backends.DeleteSnapshotRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
}

// wantOnly fails the test unless these are the driver's LVs.
func wantOnly(t testing.TB, names ...string) {
	t.Helper()
	got := strings.Fields(lvm(t, "lvs", "--noheadings", "-o", "lv_name", "-S", "lv_name!="+testPool, testVG))
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("logical volumes are %q, want %q", got, names)
	}
}

func restoredEverywhere(t *testing.T) {
	b := both(t, testOptions())
	for from, classes := range map[string][]string{"linear": {"linear", "thin"}, "thin": {"linear"}, "raid1": {"raid1"}} {
		v, sum := scribbled(t, b, "pvc-1", from, 12<<20)
		s := snapshotOf(t, b, "s", v.ID)
		if !s.Ready || s.Size != v.Capacity {
			t.Errorf("%+v", s)
		}
		src := opened(t, b, v.ID, true)
		write(t, src.Device.Path, bytes.Repeat([]byte("later"), 200<<10), 0)
		for _, to := range classes {
			r := restored(t, b, s, "copy", to, 20<<20)
			if r.Source.SnapshotID != s.ID || r.Capacity < 20<<20 {
				t.Errorf("%s to %s: %+v", from, to, r)
			}
			wantContent(t, b, r.ID, v.Capacity, sum)
			deleted(t, b, r.ID)
		}
		closed(t, b, v.ID, src)
		snapshotDeleted(t, b, s.ID)
		deleted(t, b, v.ID)
		wantOnly(t)
	}
}

func snapshotFull(t *testing.T) {
	b := both(t, testOptions())
	v, _ := scribbled(t, b, "pvc-1", "linear", 40<<20)
	for _, bad := range []string{"", "0", "101%", "-1", "5Pi", "1e3", "99999999999999999999"} {
		_, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "bad", VolumeID: v.ID, Parameters: map[string]string{paramSpace: bad}})
		if !errors.Is(err, backends.ErrInvalid) && !errors.Is(err, backends.ErrOutOfRange) {
			t.Errorf("%s=%q: %v", paramSpace, bad, err)
		}
	}
	s := snapshotOf(t, b, "s", v.ID, paramSpace, "10%")
	src := opened(t, b, v.ID, true)
	reasons := func() (all []string) {
		h, err := b.VolumeHealth(t.Context(), backends.VolumeRequest{ID: v.ID})
		if err != nil {
			t.Error(err)
		}
		for _, x := range h {
			all = append(all, x.Reason)
		}
		return all
	}
	if got := reasons(); len(got) > 0 {
		t.Error(got)
	}
	write(t, src.Device.Path, bytes.Repeat([]byte("x"), 3500<<10), 0)
	if got := reasons(); !slices.Equal(got, []string{"SnapshotNearlyFull"}) {
		t.Error(got)
	}
	write(t, src.Device.Path, bytes.Repeat([]byte("x"), 8<<20), 8<<20)
	if got := reasons(); !slices.Equal(got, []string{"SnapshotInvalid"}) {
		t.Error(got)
	}
	if got, err := b.Snapshot(t.Context(), backends.SnapshotRequest{ID: s.ID}); err != nil || got.Ready {
		t.Errorf("%+v, %v", got, err)
	}
	restore := func() error {
		_, err := b.RestoreSnapshot(t.Context(), *s, backends.CreateVolumeRequest{Name: "copy", Size: v.Capacity})
		return err
	}
	if err := restore(); !errors.Is(err, backends.ErrDataLoss) {
		t.Errorf("restore: %v", err)
	}
	closed(t, b, v.ID, src)
	// After a start of the machine nothing tells before it is active.
	lvm(t, "vgchange", "-qq", "-an", testVG)
	b = both(t, testOptions())
	if err := restore(); !errors.Is(err, backends.ErrDataLoss) {
		t.Errorf("restore, inactive: %v", err)
	}
	wantOnly(t, nameOf(kindVolume, "pvc-1"), nameOf(kindSnapshot, "s"))
	snapshotDeleted(t, b, s.ID)
	deleted(t, b, v.ID)
}

func grownWithSnapshot(t *testing.T) {
	b := both(t, testOptions())
	v, sum := scribbled(t, b, "pvc-1", "linear", 8<<20)
	s := snapshotOf(t, b, "s", v.ID)
	src := opened(t, b, v.ID, true)
	grow := backends.ExpandVolumeRequest{ID: v.ID, Size: 16 << 20}
	if _, err := b.ExpandVolume(t.Context(), grow); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("in use: %v", err)
	}
	if dev, err := b.kernel.device(src.Device.Identity.DMUUID); dev == "" || err != nil {
		t.Errorf("an open volume was deactivated: %v", err)
	}
	closed(t, b, v.ID, src)
	if n, err := b.ExpandVolume(t.Context(), grow); n != 16<<20 || err != nil {
		t.Errorf("at rest: %d, %v", n, err)
	}
	src = opened(t, b, v.ID, true)
	write(t, src.Device.Path, []byte("in the new part"), 12<<20)
	closed(t, b, v.ID, src)
	if got, err := b.Snapshot(t.Context(), backends.SnapshotRequest{ID: s.ID}); err != nil || got.Size != 8<<20 {
		t.Errorf("%+v, %v", got, err)
	}
	r := restored(t, b, s, "copy", "linear", 8<<20)
	wantContent(t, b, r.ID, 8<<20, sum)
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("delete with a snapshot: %v", err)
	}
}

// snapshotWiped looks at the disks: neither a snapshot's space nor that of a temporary
// one is given back with what its volume had.
func snapshotWiped(t *testing.T) {
	secret := bytes.Repeat([]byte("the old tenant's "), 60)
	b := both(t, testOptions())
	v := createVolume(t, b, "pvc-1", "linear", 16<<20)
	src := opened(t, b, v.ID, true)
	for off := int64(0); off+int64(len(secret)) < v.Capacity; off += 64 << 10 {
		write(t, src.Device.Path, secret, off)
	}
	s := snapshotOf(t, b, "s", v.ID)
	b.step = func(at string) {
		if at == "copy:filled" {
			// The temporary snapshot gets something, too.
			write(t, src.Device.Path, make([]byte, 1<<20), 0)
		}
	}
	clone, err := b.CloneVolume(t.Context(), backends.Volume{ID: v.ID}, backends.CreateVolumeRequest{Name: "clone", Size: v.Capacity})
	if err != nil {
		t.Fatal(err)
	}
	write(t, src.Device.Path, make([]byte, v.Capacity), 0)
	closed(t, b, v.ID, src)
	snapshotDeleted(t, b, s.ID)
	deleted(t, b, clone.ID)
	deleted(t, b, v.ID)
	wantOnly(t)
	for _, disk := range []string{"/dev/ubdb", "/dev/ubdc", "/dev/ubdd"} {
		all, err := os.ReadFile(disk)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(all[1<<20:], secret[:17]) { // behind the metadata
			t.Errorf("%s still has the tenant's data", disk)
		}
	}
}

func clonedInUse(t *testing.T) {
	b := both(t, testOptions())
	for _, class := range []string{"linear", "raid1"} {
		v, sum := scribbled(t, b, "pvc-1", class, 12<<20)
		src := opened(t, b, v.ID, true)
		pieces := 0
		b.step = func(at string) {
			if at == "copy:piece" {
				write(t, src.Device.Path, bytes.Repeat([]byte{byte(pieces + 1)}, 32<<10), int64(pieces)<<20)
				pieces++
			}
		}
		clone, err := b.CloneVolume(t.Context(), backends.Volume{ID: v.ID}, backends.CreateVolumeRequest{Name: "clone", Size: v.Capacity, Parameters: map[string]string{paramClass: class}})
		b.step = func(string) {}
		if err != nil || pieces == 0 {
			t.Fatal(pieces, err)
		}
		wantContent(t, b, clone.ID, v.Capacity, sum)
		if dev, err := b.kernel.device(src.Device.Identity.DMUUID); dev == "" || err != nil {
			t.Errorf("an open volume was deactivated: %v", err)
		}
		closed(t, b, v.ID, src)
		deleted(t, b, clone.ID)
		deleted(t, b, v.ID)
		wantOnly(t)
	}
}

// halfCopied ends a clone when it noted how far it came.
func halfCopied(t *testing.T) (v *backends.Volume, sum [32]byte, req backends.CreateVolumeRequest) {
	b := both(t, testOptions())
	b.noteEvery = 4 << 20
	v, sum = scribbled(t, b, "pvc-1", "linear", 12<<20)
	ctx, cancel := context.WithCancel(t.Context())
	b.step = func(at string) {
		if at == "copy:noted" {
			cancel()
		}
	}
	req = backends.CreateVolumeRequest{Name: "clone", Size: 16 << 20}
	if _, err := b.CloneVolume(ctx, *v, req); !errors.Is(err, context.Canceled) {
		t.Fatalf("not ended: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return v, sum, req
}

func copyHalf(t *testing.T) {
	v, sum, req := halfCopied(t)
	b := both(t, testOptions())
	if _, err := b.FindVolume(t.Context(), req); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("a half-made copy is found: %v", err)
	}
	id := makeID("linear", nameOf(kindVolume, "clone"))
	if _, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: id}); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("open: %v", err)
	}
	// What is written to the source now is not in the copy.
	src := opened(t, b, v.ID, true)
	write(t, src.Device.Path, bytes.Repeat([]byte("later"), 1000), 10<<20)
	closed(t, b, v.ID, src)
	pieces := 0
	b.step = func(at string) {
		if at == "copy:piece" {
			pieces++
		}
	}
	clone, err := b.CloneVolume(t.Context(), *v, req)
	if err != nil {
		t.Fatal(err)
	}
	if pieces != 8 {
		t.Errorf("%d MiB were copied by the second try, want 8", pieces)
	}
	wantContent(t, b, clone.ID, v.Capacity, sum)
	wantOnly(t, nameOf(kindVolume, "pvc-1"), nameOf(kindVolume, "clone"))
}

func copyHalfDeleted(t *testing.T) {
	v, _, _ := halfCopied(t)
	b := both(t, testOptions())
	deleted(t, b, makeID("linear", nameOf(kindVolume, "clone")))
	wantOnly(t, nameOf(kindVolume, "pvc-1"))
	deleted(t, b, v.ID)
	// The source is deleted while a copy waits for a call that does not come.
	v, _, _ = halfCopied(t)
	b = both(t, testOptions())
	deleted(t, b, v.ID)
	wantOnly(t, nameOf(kindVolume, "clone"))
	both(t, testOptions())
	wantOnly(t)
}

func nothingActive(t *testing.T) {
	b := both(t, testOptions())
	v, _ := scribbled(t, b, "pvc-1", "linear", 8<<20)
	s := snapshotOf(t, b, "s", v.ID)
	r := restored(t, b, s, "copy", "linear", 8<<20)
	closed(t, b, r.ID, opened(t, b, r.ID, false))
	got := strings.Fields(lvm(t, "lvs", "--noheadings", "-o", "lv_name", "-S", "lv_active=active && lv_name!="+testPool, testVG))
	if !slices.Equal(got, []string{nameOf(kindVolume, "copy")}) {
		t.Errorf("active: %q", got)
	}
}
