package lvm

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
)

func allProfiles() Options {
	o := testOptions()
	o.Classes = append(o.Classes,
		Class{Name: "striped3", VG: testVG, Profile: Striped, Stripes: 3},
		Class{Name: "raid5", VG: testVG, Profile: RAID5},
		Class{Name: "raid6", VG: testVG, Profile: RAID6},
		Class{Name: "raid10", VG: testVG, Profile: RAID10})
	return o
}

func capacity(t *testing.T) {
	b := open(t, allProfiles())
	for _, class := range []string{"linear", "striped3", "raid1", "raid5", "raid6", "raid10"} {
		c, err := b.Capacity(t.Context(), backends.CapacityRequest{Parameters: map[string]string{paramClass: class}})
		if err != nil || c.MaxVolume <= 0 || c.MinVolume <= 0 {
			t.Fatalf("%s: %+v, %v", class, c, err)
		}
		_, err = b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: "big", Size: c.MaxVolume + 1, Parameters: map[string]string{paramClass: class}})
		if !errors.Is(err, backends.ErrNoSpace) {
			t.Errorf("%s: more than there is: %v", class, err)
		}
		v := createVolume(t, b, "big", class, c.MaxVolume)
		if v.Capacity != c.MaxVolume {
			t.Errorf("%s: %d bytes, want %d", class, v.Capacity, c.MaxVolume)
		}
		lvm(t, "lvremove", "-qq", "-y", testVG+"/"+nameOf(kindVolume, "big"))
		small := createVolume(t, b, "small", class, 1)
		if small.Capacity != c.MinVolume {
			t.Errorf("%s: the least is %d bytes, want %d", class, small.Capacity, c.MinVolume)
		}
		deleted(t, b, small.ID)
	}
}

func ownNodes(t *testing.T) {
	b := open(t, testOptions())
	v := createVolume(t, b, "pvc-1", "linear", 8<<20)
	src := opened(t, b, v.ID, false)
	m, err := mapped(src.Device.Identity.DMUUID)
	if err != nil || m == nil {
		t.Fatal(m, err)
	}
	hidden := src.Device.Path + ".hidden"
	if err := os.Rename(src.Device.Path, hidden); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Rename(hidden, src.Device.Path) }()
	dir := t.TempDir()
	for range 2 {
		path, err := m.node(dir)
		if err != nil || !strings.HasPrefix(path, dir) || !is(path, m.num) {
			t.Fatal(path, err)
		}
		read(t, path, 4096, 0)
		// One that is left of another device is replaced.
		if err := errors.Join(os.Remove(path), unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(1, 99)))); err != nil {
			t.Fatal(err)
		}
	}
}

func everyProfile(t *testing.T) {
	b := open(t, allProfiles())
	for _, class := range []string{"striped3", "raid1", "raid5", "raid6", "raid10"} {
		v := createVolume(t, b, "pvc-"+class, class, 5<<20)
		src := opened(t, b, v.ID, false)
		write(t, src.Device.Path, []byte("x"), v.Capacity-1)
		n, err := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 20 << 20})
		if err != nil || n < 20<<20 {
			t.Errorf("%s: %d, %v", class, n, err)
			continue
		}
		write(t, src.Device.Path, []byte("y"), n-1)
		if got := read(t, src.Device.Path, 1, v.Capacity-1); got[0] != 'x' {
			t.Errorf("%s: %q", class, got)
		}
		closed(t, b, v.ID, src)
		deleted(t, b, v.ID)
	}
}
