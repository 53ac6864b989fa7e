package lvm

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// poolless is a VG without a pool, and options with a class that makes one.
func poolless() (*fakeVG, Options) {
	f := newFake()
	f.lvs = nil
	o := optionsFor("thin")
	o.Classes[0].PoolSize, o.Classes[0].PoolMax = 64<<20, 256<<20
	return f, o
}

func TestPoolOnDemand(t *testing.T) {
	f, o := poolless()
	b := onFake(t, f, o)
	c, err := b.Capacity(t.Context(), backends.CapacityRequest{})
	if err != nil || c.Available != 6400<<20 {
		t.Errorf("before it is there: %+v, %v", c, err)
	}
	if h, err := b.StorageHealth(t.Context(), backends.StorageHealthRequest{}); err != nil || len(h) != 0 {
		t.Errorf("%+v, %v", h, err)
	}
	createVolume(t, b, "a", "thin", 8<<20)
	createVolume(t, b, "b", "thin", 8<<20)
	made := f.last("lvcreate --type") + f.commands[slices.IndexFunc(f.commands, func(c string) bool { return strings.Contains(c, "thin-pool") })]
	for _, want := range []string{"--zero y", "--size 67108864b", "--addtag csi.p=lvm.csikit.dev"} {
		if !strings.Contains(made, want) {
			t.Errorf("%q lacks %s", made, want)
		}
	}
	if n := len(f.lvs); n != 3 || f.lvs[0].name != testPool {
		t.Errorf("%d LVs: %+v", n, f.lvs[0])
	}
	// Not where there is no room for it, and never of a class that is given one.
	f.lvs, f.extents = nil, 17
	if _, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: "c", Size: 1}); !errors.Is(err, backends.ErrNoSpace) || len(f.lvs) != 0 {
		t.Errorf("no room: %v, %d", err, len(f.lvs))
	}
	f.extents = 400
	b = onFake(t, f, optionsFor("thin"))
	if _, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: "c", Size: 1}); !errors.Is(err, backends.ErrUnavailable) || len(f.lvs) != 0 {
		t.Errorf("a pool that is given and not there: %v", err)
	}
}

// What lvm leaves of a pool when it is killed is made anew if it is the driver's, and
// stays if it is not.
func TestPoolTorn(t *testing.T) {
	f, o := poolless()
	b := onFake(t, f, o)
	torn := &fakeLV{name: testPool, uuid: f.newUUID(), typ: "linear", extents: 1, tags: []string{tagPool + o.Driver}}
	f.lvs = append(f.lvs, torn)
	createVolume(t, b, "a", "thin", 8<<20)
	if f.lvs[0].typ != "thin,pool" {
		t.Errorf("%+v", f.lvs[0])
	}
	for _, tags := range [][]string{nil, {tagPool + "other"}} {
		torn.tags = tags
		f.lvs = []*fakeLV{torn}
		_, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: "a", Size: 1})
		if err == nil || len(f.lvs) != 1 || f.lvs[0] != torn {
			t.Errorf("tags %q: %v, %+v", tags, err, f.lvs[0])
		}
	}
}

func TestPoolKilled(t *testing.T) {
	empty := func(_ *testing.T, b *Backend) error {
		b.tool.run.(*fakeVG).lvs = nil
		b.classes["thin"].PoolSize = 64 << 20
		return nil
	}
	killed(t, "thin", empty, create("a", "thin"), func(t *testing.T, f *fakeVG, b *Backend) {
		b.classes["thin"].PoolSize = 64 << 20
		again(t, b, "a", "thin")
		if ready, other := f.mine(); ready != 1 || other != 0 || len(f.lvs) != 2 {
			t.Errorf("%d ready, %d not, %d LVs", ready, other, len(f.lvs))
		}
	})
}

// A pool grows when it is nearly full, by a fifth, up to its cap and to what the VG
// has; its metadata too.
func TestPoolExtend(t *testing.T) {
	f, o := poolless()
	o.Classes[0].Spare = 8 << 20
	b := onFake(t, f, o)
	createVolume(t, b, "a", "thin", 8<<20)
	p := f.lvs[0]
	fill := func(data, meta string) {
		t.Helper()
		p.data, p.meta = data, meta
		if err := b.tendPool(t.Context(), b.order[0]); err != nil {
			t.Fatal(err)
		}
	}
	fill("79.99", "79.99")
	if p.extents != 16 || f.count(0, "lvextend") != 0 {
		t.Errorf("below the line: %d extents", p.extents)
	}
	fill("80.00", "10.00")
	if p.extents != 19 {
		t.Errorf("a fifth: %d extents", p.extents)
	}
	fill("100.00", "10.00")
	if p.extents != 24 { // 19 used are 80 % of that
		t.Errorf("full: %d extents", p.extents)
	}
	fill("10.00", "85.00")
	if p.meta != "10.00" || p.extents != 24 || !strings.Contains(f.last("lvextend"), "--poolmetadatasize +4194304b") {
		t.Errorf("metadata: %+v, %s", p, f.last("lvextend"))
	}
	f.extents = p.extents + 4 // two of them spare
	fill("99.00", "10.00")
	if p.extents != 26 {
		t.Errorf("what the VG has: %d extents", p.extents)
	}
	f.extents = 400
	for range 20 {
		fill("99.00", "10.00")
	}
	if p.extents != 64 {
		t.Errorf("the cap: %d extents", p.extents)
	}
	// Without a cap nobody extends it.
	b.order[0].PoolMax = 0
	fill("99.00", "99.00")
	if p.extents != 64 {
		t.Errorf("without PoolMax: %d extents", p.extents)
	}
}

func TestPoolsAreWatched(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		f, o := poolless()
		b := onFake(t, f, o)
		createVolume(t, b, "a", "thin", 8<<20)
		if err := b.RecoverController(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		f.lvs[0].data = "90.00"
		f.mu.Unlock()
		time.Sleep(o.PoolInterval + 11*time.Second)
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.lvs[0].extents == 16 {
			t.Error("nobody looked after it")
		}
	})
}

func TestStorageHealth(t *testing.T) {
	f := newFake()
	b := onFake(t, f, testOptions())
	reasons := func() (got []string) {
		t.Helper()
		h, err := b.StorageHealth(t.Context(), backends.StorageHealthRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range h {
			got = append(got, h.Reason)
		}
		return got
	}
	for _, row := range []struct {
		name, health, data, meta string
		missing                  int64
		want                     []string
	}{
		{name: "well", data: "10.00", meta: "10.00"},
		{name: "data", data: "85.00", meta: "10.00", want: []string{"ThinPoolNearlyFull"}},
		{name: "metadata", data: "10.00", meta: "75.00", want: []string{"ThinPoolMetadataNearlyFull"}},
		{name: "full", health: "out_of_data", data: "100.00", meta: "10.00", want: []string{"ThinPoolFull"}},
		{name: "metadata failed", health: "metadata_read_only", data: "10.00", meta: "90.00", want: []string{"ThinPoolFailed", "ThinPoolMetadataNearlyFull"}},
		{name: "PV missing", data: "10.00", meta: "10.00", missing: 1, want: []string{"DisksMissing"}},
	} {
		p := f.lvs[0]
		p.health, p.data, p.meta, f.missing = row.health, row.data, row.meta, row.missing
		if got := reasons(); !slices.Equal(got, row.want) {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
	f.missing, f.lvs = 0, nil
	if got := reasons(); !slices.Equal(got, []string{"ThinPoolUnusable"}) {
		t.Errorf("no pool: %q", got)
	}
	f.name = "other"
	if got := reasons(); !slices.Equal(got, []string{"VolumeGroupUnavailable"}) {
		t.Errorf("no VG: %q", got)
	}
}

func TestPoolOptions(t *testing.T) {
	for what, change := range map[string]func(*Class){
		"PoolSize":         func(c *Class) { c.PoolSize = -1 },
		"PoolMetadata 1":   func(c *Class) { c.PoolMetadata = 1 },
		"PoolMax":          func(c *Class) { c.PoolSize, c.PoolMax = 2, 1 },
		"PoolMax 0":        func(c *Class) { c.PoolExtendAt = 50 },
		"want 1 to 100":    func(c *Class) { c.PoolMax, c.PoolExtendAt = 1, 101 },
		"for profile thin": func(c *Class) { c.Profile, c.ThinPool, c.Overcommit, c.PoolSize = Linear, "", 0, 1 },
	} {
		o := optionsFor("thin")
		change(&o.Classes[0])
		if err := o.check(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	o := testOptions()
	o.Classes = append(o.Classes, Class{Name: "thin2", VG: testVG, Profile: Thin, ThinPool: testPool, PoolSize: 1 << 30})
	if err := o.check(); err == nil || !strings.Contains(err.Error(), "another class of thin pool") {
		t.Error(err)
	}
}
