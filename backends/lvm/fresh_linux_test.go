package lvm

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/csikit/csikit/backends"
)

// foreignData: extents that an administrator's LVs had are given to volumes, at once and
// when they grow in use, and show nothing of it.
func foreignData(t *testing.T) {
	lvm(t, "lvremove", "-qq", "-ff", "-y", testVG)
	secret := bytes.Repeat([]byte("an administrator's "), 54<<10)
	dirty := func() {
		t.Helper()
		for i, disk := range []string{"/dev/ubdb", "/dev/ubdc", "/dev/ubdd"} {
			name := []string{"old0", "old1", "old2"}[i]
			lvm(t, "lvcreate", "-qq", "-y", "-Wn", "-Zn", "-l", "12", "-n", name, testVG, disk)
			for off := int64(0); off+int64(len(secret)) <= 48<<20; off += int64(len(secret)) {
				write(t, "/dev/"+testVG+"/"+name, secret, off)
			}
			lvm(t, "lvremove", "-qq", "-y", testVG+"/"+name)
		}
	}
	o := testOptions()
	o.Classes = []Class{
		{Name: "linear", VG: testVG, ZeroNew: true}, {Name: "none", VG: testVG, Wipe: WipeNone},
		{Name: "striped", VG: testVG, Profile: Striped, ZeroNew: true}, {Name: "raid1", VG: testVG, Profile: RAID1, ZeroNew: true},
	}
	b := both(t, o)
	for _, class := range []string{"linear", "none", "striped", "raid1"} {
		dirty()
		for range map[string]int{"none": 2, "linear": 1, "striped": 1, "raid1": 1}[class] {
			v := createVolume(t, b, "pvc-1", class, 8<<20)
			src := opened(t, b, v.ID, true)
			if got := read(t, src.Device.Path, int(v.Capacity), 0); len(bytes.Trim(got, "\x00")) > 0 {
				t.Errorf("%s: a new volume has foreign data", class)
			}
			// No moment of the growth shows any: the device is looked at in each.
			b.step = func(at string) {
				size := sizeOf(t, src.Device.Path)
				if got := read(t, src.Device.Path, int(size), 0); len(bytes.Trim(got, "\x00")) > 0 {
					t.Errorf("%s: foreign data at %s", class, at)
				}
			}
			n, err := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 20 << 20})
			b.step = func(string) {}
			if err != nil || n < 20<<20 {
				t.Fatalf("%s: %d, %v", class, n, err)
			}
			if got := read(t, src.Device.Path, int(n), 0); len(bytes.Trim(got, "\x00")) > 0 {
				t.Errorf("%s: a volume that grew has foreign data", class)
			}
			write(t, src.Device.Path, bytes.Repeat(secret, 8), 0)
			closed(t, b, v.ID, src)
			deleted(t, b, v.ID)
		}
		wantOnly(t)
	}
	for _, disk := range []string{"/dev/ubdb", "/dev/ubdc", "/dev/ubdd"} { // for the rows that come
		name := "clean"
		lvm(t, "lvcreate", "-qq", "-y", "-Wn", "-Zn", "-l", "100%PVS", "-n", name, testVG, disk)
		write(t, "/dev/"+testVG+"/"+name, make([]byte, sizeOf(t, "/dev/"+testVG+"/"+name)), 0)
		lvm(t, "lvremove", "-qq", "-y", testVG+"/"+name)
	}
}

func sizeOf(t testing.TB, path string) int64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
