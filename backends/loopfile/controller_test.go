package loopfile

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/csikit/csikit/backends"
)

const mib = 1 << 20

func TestVolumeLife(t *testing.T) {
	o := testOptions(t)
	needThick(t, o)
	b := open(t, o)
	for _, typ := range []string{typeThick, typeThin} {
		t.Run(typ, func(t *testing.T) {
			req := request("pvc-"+typ, 8*mib, paramType, typ, paramBlockSize, "4096")
			if _, err := b.FindVolume(t.Context(), req); !notFoundIs(err, req.Name) {
				t.Fatalf("find before create: %v", err)
			}
			id, err := b.VolumeID(req)
			if err != nil {
				t.Fatal(err)
			}
			v := create(t, b, req.Name, 8*mib, paramType, typ, paramBlockSize, "4096")
			if v.ID != id || v.Capacity != 8*mib || v.Fingerprint != "f1.abc" || v.Topology[0][TopologyKey] != "node-1" {
				t.Fatalf("created %+v", v)
			}
			for what, get := range map[string]func() (*backends.Volume, error){
				"find": func() (*backends.Volume, error) { return b.FindVolume(t.Context(), req) },
				"get":  func() (*backends.Volume, error) { return b.Volume(t.Context(), backends.VolumeRequest{ID: id}) },
			} {
				got, err := get()
				if err != nil || got.ID != id || got.Name != req.Name || got.Capacity != v.Capacity || got.Fingerprint != v.Fingerprint {
					t.Errorf("%s: %+v, %v", what, got, err)
				}
			}
			if full := allocated(stat(t, imgPath(b, id))) >= 8*mib; full != (typ == typeThick) {
				t.Errorf("allocated in full: %v", full)
			}
			if _, err := b.CreateVolume(t.Context(), req); !errors.Is(err, backends.ErrExists) {
				t.Errorf("created twice: %v", err)
			}
			remove(t, b, id)
			err = b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: id})
			if !notFoundIs(err, id) {
				t.Errorf("second delete: %v", err)
			}
			wantClean(t, o.Pool)
		})
	}
}

func notFoundIs(err error, id string) bool {
	var nf *backends.NotFoundError
	return errors.As(err, &nf) && nf.Kind == backends.KindVolume && nf.ID == id
}

func TestNames(t *testing.T) {
	b := open(t, testOptions(t))
	names := []string{
		"pvc-1", ".", "..", "../../etc/passwd", "a/b", "-rf", "%s%n", strings.Repeat("x", 128),
		strings.Repeat("ü", 64), "名前", "e\u0301", "\u00e9", "🦊", "A", "a", " ",
	}
	seen := map[string]string{}
	for _, n := range names {
		v := create(t, b, n, mib, paramType, typeThin)
		if other, dup := seen[v.ID]; dup {
			t.Errorf("%q and %q share %s", n, other, v.ID)
		}
		seen[v.ID] = n
		if len(v.ID) > 63 {
			t.Errorf("ID %s is too long for a loop device's name", v.ID)
		}
		got, err := b.FindVolume(t.Context(), request(n, mib))
		if err != nil || got.Name != n {
			t.Errorf("find %q: %+v, %v", n, got, err)
		}
	}
	if _, err := b.CreateVolume(t.Context(), request("\xff", mib)); !errors.Is(err, backends.ErrInvalid) {
		t.Errorf("invalid UTF-8: %v", err)
	}
	if got := len(entries(t, b.o.Pool, volumesDir)); got != len(names) {
		t.Errorf("%d directories for %d volumes", got, len(names))
	}
}

func TestHostileIDs(t *testing.T) {
	b := open(t, testOptions(t))
	v := create(t, b, "victim", mib, paramType, typeThin)
	pool, dir, _ := splitID(v.ID)
	for _, id := range []string{
		"", ".", "..", "/", dir, pool + "." + dir + "/", pool + "./" + dir, pool + ".." + dir, pool + "." + dir + ".",
		pool + ".../../../" + dir, pool + "." + strings.ToUpper(dir), pool + "." + dir[:25], pool + "." + dir + "a",
		pool + "." + dir + "\n", pool + "." + dir + "\x00", "\n" + v.ID, v.ID + "/img", "../" + v.ID, " " + v.ID,
		strings.ToUpper(pool) + "." + dir, pool + "." + tmpDir, "." + dir, strings.Repeat("a", 4096) + "." + dir,
	} {
		if id == v.ID {
			t.Fatalf("%q is the ID itself", id)
		}
		_, err := b.Volume(t.Context(), backends.VolumeRequest{ID: id})
		if !notFoundIs(err, id) {
			t.Errorf("get %q: %v", id, err)
		}
		if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: id}); !notFoundIs(err, id) {
			t.Errorf("delete %q: %v", id, err)
		}
		if _, err := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: id, Size: mib}); !notFoundIs(err, id) {
			t.Errorf("expand %q: %v", id, err)
		}
	}
	// A well-formed ID of another pool: this process cannot know.
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: "elsewhere." + dir}); !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrNotFound) {
		t.Errorf("delete in another pool: %v", err)
	}
	if _, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID}); err != nil {
		t.Error(err)
	}
}

func TestRefusedParameters(t *testing.T) {
	b := open(t, testOptions(t))
	for _, req := range []backends.CreateVolumeRequest{
		request("a", mib, "type", "raid0"), request("a", mib, "blockSize", "1024"), request("a", mib, "color", "blue"),
		{Name: "a", Size: mib, Mutable: map[string]string{"iops": "1"}},
		{Name: "", Size: mib},
	} {
		if _, err := b.CreateVolume(t.Context(), req); !errors.Is(err, backends.ErrInvalid) {
			t.Errorf("%+v: %v", req, err)
		}
	}
	for _, size := range []int64{-1, math.MaxInt64} {
		if _, err := b.CreateVolume(t.Context(), request("a", size)); !errors.Is(err, backends.ErrOutOfRange) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	check := backends.CheckVolumeRequest{Size: 64 * mib, Capabilities: []backends.Capability{{FSType: "xfs"}}}
	if err := b.CheckVolume(t.Context(), check); !errors.Is(err, backends.ErrOutOfRange) {
		t.Errorf("small xfs: %v", err)
	}
	check.Capabilities[0].Block = true
	if err := b.CheckVolume(t.Context(), check); err != nil {
		t.Errorf("small block volume: %v", err)
	}
	if left := entries(t, b.o.Pool, volumesDir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	wantClean(t, b.o.Pool)
}

func TestTopology(t *testing.T) {
	b := open(t, testOptions(t))
	at := func(nodes ...string) backends.CreateVolumeRequest {
		r := request("pvc-"+fmt.Sprint(nodes), mib, paramType, typeThin)
		for _, n := range nodes {
			r.Topology.Requisite = append(r.Topology.Requisite, backends.Segments{TopologyKey: n})
		}
		return r
	}
	if _, err := b.CreateVolume(t.Context(), at("node-2")); !errors.Is(err, backends.ErrNoSpace) {
		t.Errorf("another node: %v", err)
	}
	if _, err := b.CreateVolume(t.Context(), at("node-2", "node-1")); err != nil {
		t.Errorf("among others: %v", err)
	}
	v := create(t, b, "pvc-snapped", mib, paramType, typeThin)
	far := backends.CreateSnapshotRequest{Name: "far", VolumeID: v.ID, Topology: at("node-2").Topology}
	if _, err := b.CreateSnapshot(t.Context(), far); !errors.Is(err, backends.ErrNoSpace) {
		t.Errorf("a snapshot for another node: %v", err)
	}
	if s, err := b.FindSnapshot(t.Context(), far); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("a snapshot for another node was made: %+v, %v", s, err)
	}
	c, err := b.Capacity(t.Context(), backends.CapacityRequest{Topology: backends.Segments{TopologyKey: "node-2"}})
	if err != nil || c.Available != 0 {
		t.Errorf("capacity of another node: %+v, %v", c, err)
	}
	if c, err = b.Capacity(t.Context(), backends.CapacityRequest{Topology: b.segments()}); err != nil || c.Available <= 0 || c.MaxVolume != c.Available {
		t.Errorf("capacity here: %+v, %v", c, err)
	}
}

func TestThinPromises(t *testing.T) {
	s := space{free: 100, promised: 40, ratio: 1}
	if s.thin() != 60 || s.thick() != 60 {
		t.Errorf("1:1: %d, %d", s.thin(), s.thick())
	}
	s.ratio = 2
	if s.thin() != 160 || s.thick() != 80 {
		t.Errorf("2:1: %d, %d", s.thin(), s.thick())
	}
	s.promised = 400
	if s.thin() != 0 || s.thick() != 0 {
		t.Errorf("overdrawn: %d, %d", s.thin(), s.thick())
	}
	b := open(t, testOptions(t))
	capacity := func() int64 {
		c, err := b.Capacity(t.Context(), backends.CapacityRequest{Parameters: map[string]string{paramType: typeThin}})
		if err != nil {
			t.Fatal(err)
		}
		return c.Available
	}
	before := capacity()
	size := before / 8 &^ (sizeStep - 1) // so much that other users of the disk do not matter
	for what, take := range map[string]func(){
		"a thin volume": func() { create(t, b, "thin", size, paramType, typeThin) },
		"one that is being made": func() {
			half := filepath.Join(b.o.Pool, tmpDir, "half")
			if err := os.Mkdir(half, 0o700); err != nil {
				t.Fatal(err)
			}
			f, err := os.Create(filepath.Join(half, imgFile))
			if err == nil {
				err = errors.Join(f.Truncate(size), f.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		take()
		now := capacity()
		if got := before - now; got < size/2 || got > 2*size {
			t.Errorf("%s of %d bytes took %d from the capacity", what, size, got)
		}
		before = now
	}
	if err := b.RecoverController(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CreateVolume(t.Context(), request("too-big", 1<<59, paramType, typeThin)); !errors.Is(err, backends.ErrNoSpace) {
		t.Errorf("too big: %v", err)
	}
	wantClean(t, b.o.Pool)
}

func TestCreateConcurrently(t *testing.T) {
	b := open(t, testOptions(t))
	var wg sync.WaitGroup
	var mu sync.Mutex
	var won int
	for i := range 50 {
		wg.Go(func() {
			_, err := b.CreateVolume(t.Context(), request("one", mib))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case !errors.Is(err, backends.ErrExists):
				t.Errorf("same name: %v", err)
			}
		})
		wg.Go(func() {
			if _, err := b.CreateVolume(t.Context(), request(fmt.Sprint("many-", i), mib, paramType, typeThin)); err != nil {
				t.Errorf("many: %v", err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d of 50 made the volume", won)
	}
	if got := len(list(t, b, 7)); got != 51 {
		t.Errorf("%d volumes, want 51", got)
	}
	wantClean(t, b.o.Pool)
}

func TestListUnderMutation(t *testing.T) {
	b := open(t, testOptions(t))
	var ids []string
	for i := range 20 {
		ids = append(ids, create(t, b, fmt.Sprint("v", i), mib, paramType, typeThin).ID)
	}
	slices.Sort(ids)
	if got := list(t, b, 3); !slices.Equal(got, ids) {
		t.Fatalf("pages of 3: %q, want %q", got, ids)
	}
	page := func(token string) ([]string, string) {
		vols, next, err := b.ListVolumes(t.Context(), backends.ListVolumesRequest{Page: backends.Page{Token: token, Limit: 5}})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range vols {
			got = append(got, v.ID)
		}
		return got, next
	}
	first, token := page("")
	// The volume that the token names goes, and so does one of the next page.
	remove(t, b, first[4])
	remove(t, b, ids[6])
	second, _ := page(token)
	if want := append([]string{ids[5]}, ids[7:11]...); !slices.Equal(second, want) {
		t.Errorf("second page %q, want %q", second, want)
	}
	for _, bad := range []string{"x", "1", "other." + dirOf("x"), token + "x", "../" + token} {
		_, _, err := b.ListVolumes(t.Context(), backends.ListVolumesRequest{Page: backends.Page{Token: bad, Limit: 5}})
		if !errors.Is(err, backends.ErrStaleToken) {
			t.Errorf("token %q: %v", bad, err)
		}
	}
}

func TestExpand(t *testing.T) {
	o := testOptions(t)
	needThick(t, o)
	b := open(t, o)
	v := create(t, b, "grow", 4*mib)
	expand := func(size, limit int64) (int64, error) {
		return b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: size, Range: backends.CapacityRange{Required: size, Limit: limit}})
	}
	for _, step := range []struct{ ask, want int64 }{{8 * mib, 8 * mib}, {8 * mib, 8 * mib}, {mib, 8 * mib}, {8*mib + 1, 8*mib + sizeStep}} {
		got, err := expand(step.ask, 0)
		if err != nil || got != step.want {
			t.Fatalf("expand to %d: %d, %v", step.ask, got, err)
		}
	}
	fi := stat(t, imgPath(b, v.ID))
	if fi.Size() != 8*mib+sizeStep || allocated(fi) < fi.Size() {
		t.Errorf("image has %d bytes, %d allocated", fi.Size(), allocated(fi))
	}
	if _, err := expand(mib, 2*mib); !errors.Is(err, backends.ErrOutOfRange) {
		t.Errorf("limit below what it has: %v", err)
	}
	if _, err := expand(1<<59, 0); !errors.Is(err, backends.ErrNoSpace) {
		t.Errorf("more than there is: %v", err)
	}
	again, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID})
	if err != nil || again.Capacity != fi.Size() {
		t.Errorf("after a failure: %+v, %v", again, err)
	}
}

func TestDamagedMeta(t *testing.T) {
	b := open(t, testOptions(t))
	ok := create(t, b, "ok", mib, paramType, typeThin)
	v := create(t, b, "hurt", mib, paramType, typeThin)
	file := filepath.Join(filepath.Dir(imgPath(b, v.ID)), metaFile)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(filepath.Join(filepath.Dir(imgPath(b, ok.ID)), metaFile))
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		content []byte
		kind    error
	}{
		"empty":   {nil, backends.ErrUnavailable},
		"torn":    {good[:len(good)/2], backends.ErrUnavailable},
		"foreign": {other, backends.ErrUnavailable},
		"newer":   {[]byte(strings.Replace(string(good), `"version": 1`, fmt.Sprintf(`"version": %d`, metaVersion+1), 1)), backends.ErrPrecondition},
		"unknown": {[]byte(strings.Replace(string(good), `"version": 1`, `"version": 1, "x": 1`, 1)), backends.ErrUnavailable},
		"renamed": {[]byte(strings.Replace(string(good), `"name": "hurt"`, `"name": "other"`, 1)), backends.ErrUnavailable},
		"trailer": {append(slices.Clone(good), good...), backends.ErrUnavailable},
		"missing": {[]byte("remove"), backends.ErrUnavailable},
	} {
		t.Run(what, func(t *testing.T) {
			if err := os.WriteFile(file, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			if what == "missing" {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}
			_, get := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID})
			_, find := b.FindVolume(t.Context(), request("hurt", mib))
			_, expand := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 2 * mib})
			del := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID})
			for call, err := range map[string]error{"get": get, "find": find, "expand": expand, "delete": del} {
				if !errors.Is(err, c.kind) || errors.Is(err, backends.ErrNotFound) || !strings.Contains(err.Error(), file) {
					t.Errorf("%s: %v", call, err)
				}
			}
			if got := list(t, b, 10); !slices.Equal(got, sorted([]string{ok.ID, v.ID})) {
				t.Errorf("list: %q", got)
			}
			if stat(t, imgPath(b, v.ID)).Size() != mib {
				t.Error("the image was touched")
			}
		})
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	remove(t, b, v.ID)
}

func TestSymlinksAreNotFollowed(t *testing.T) {
	b := open(t, testOptions(t))
	v := create(t, b, "v", mib, paramType, typeThin)
	precious := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(precious, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	img := imgPath(b, v.ID)
	if err := errors.Join(os.Remove(img), os.Symlink(precious, img)); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("delete: %v", err)
	}
	_, dir, _ := splitID(v.ID)
	if err := os.Rename(filepath.Join(b.o.Pool, volumesDir, dir), filepath.Join(b.o.Pool, tmpDir, dir+".x")); err != nil {
		t.Fatal(err)
	}
	if err := b.RecoverController(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantClean(t, b.o.Pool)
	if got, err := os.ReadFile(precious); err != nil || string(got) != "data" {
		t.Errorf("%q, %v", got, err)
	}
}
