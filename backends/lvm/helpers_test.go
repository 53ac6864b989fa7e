package lvm

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
)

const (
	testVG   = "vgt"
	testPool = "pool"
)

func testOptions() Options {
	return Options{
		Driver: "lvm.csikit.dev", Node: "node-1",
		FreezeLimit: time.Minute, // enough, however busy the machine is
		Classes: []Class{
			{Name: "linear", VG: testVG},
			{Name: "thin", VG: testVG, Profile: Thin, ThinPool: testPool, Overcommit: 100},
			{Name: "striped", VG: testVG, Profile: Striped},
			{Name: "raid1", VG: testVG, Profile: RAID1},
		},
	}
}

// optionsFor are options with one class, whose abilities are then the driver's.
func optionsFor(class string) Options {
	o := testOptions()
	o.Classes = append(o.Classes, Class{Name: "fresh", VG: testVG, ZeroNew: true},
		Class{Name: "raid5", VG: testVG, Profile: RAID5}, Class{Name: "raid6", VG: testVG, Profile: RAID6}, Class{Name: "raid10", VG: testVG, Profile: RAID10})
	o.Classes = slices.DeleteFunc(o.Classes, func(c Class) bool { return c.Name != class })
	return o
}

func createVolume(t testing.TB, b *Backend, name, class string, size int64) *backends.Volume {
	t.Helper()
	v, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: name, Size: size, Parameters: map[string]string{paramClass: class}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func opened(t testing.TB, b *Backend, id string, block bool) *backends.Source {
	t.Helper()
	src, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: id, Capability: backends.Capability{Block: block}})
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func ctxOf() context.Context { return context.Background() }

func request(class, name string, size int64) backends.CreateVolumeRequest {
	return backends.CreateVolumeRequest{Name: name, Size: size, Parameters: map[string]string{paramClass: class}}
}
