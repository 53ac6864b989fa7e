package lvm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// TestRealLVM are the rows of the failure matrix that need a kernel, in one boot.
func TestRealLVM(t *testing.T) {
	if !testenv.InVM(t, "120M", "120M", "120M", "120M", "120M") {
		return
	}
	makeVG(t, "/dev/ubdb", "/dev/ubdc", "/dev/ubdd", "/dev/ubde", "/dev/ubdf")
	play(t, []vmRow{
		{"LVM: reboot, all LVs inactive", rebooted},
		{"LVM: PV missing and back", diskMissing},
		{"LVM: raid1 without a leg", legMissing},
		{"LVM: no tenant reads another's data", wiped},
		{"LVM delete: open", deletedOpen},
		{"LVM delete: half wiped", halfWiped},
		{"LVM: VG renamed", renamed},
		{"LVM: pool full", poolFull},
		{"LVM: capacity is what can be made", capacity},
		{"LVM: device nodes that /dev lacks", ownNodes},
		{"LVM: profiles", everyProfile},
		{"LVM: pvmove meanwhile", movedMeanwhile},
	})
}

func closed(t testing.TB, b *Backend, id string, src *backends.Source) {
	t.Helper()
	if err := b.CloseVolume(t.Context(), backends.CloseVolumeRequest{ID: id, State: src.State}); err != nil {
		t.Fatal(err)
	}
}

func deleted(t testing.TB, b *Backend, id string) {
	t.Helper()
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
}

func rebooted(t *testing.T) {
	b := open(t, testOptions())
	for _, class := range []string{"linear", "thin"} {
		v := createVolume(t, b, "pvc-1", class, 8<<20)
		src := opened(t, b, v.ID, false)
		marker := []byte("written before the reboot")
		write(t, src.Device.Path, marker, 1<<20)
		lvm(t, "vgchange", "-qq", "-an", testVG)
		b = open(t, testOptions())
		if err := b.RecoverNode(t.Context(), []backends.OpenVolume{{ID: v.ID, State: src.State}}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID}); err != nil {
			t.Errorf("an inactive volume: %v", err)
		}
		again, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID, State: src.State})
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, again.Device.Path, len(marker), 1<<20); !bytes.Equal(got, marker) {
			t.Errorf("%q", got)
		}
		// A node without records deactivates what nobody uses.
		if err := b.RecoverNode(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if dev, err := b.kernel.device(again.Device.Identity.DMUUID); dev != "" || err != nil {
			t.Errorf("still active: %s, %v", dev, err)
		}
		closed(t, b, v.ID, again)
		deleted(t, b, v.ID)
		lvm(t, "vgchange", "-qq", "-an", testVG)
		deleted(t, b, createVolume(t, b, "pvc-2", class, 8<<20).ID)
	}
}

// hiding is a driver that does not see a disk.
func hiding(t testing.TB, disk string) *Backend {
	o := testOptions()
	o.Settings = map[string]string{"devices/filter": fmt.Sprintf("[%q]", "r|"+disk+"$|")}
	return open(t, o)
}

func diskMissing(t *testing.T) {
	b := open(t, testOptions())
	v := createVolume(t, b, "pvc-1", "linear", 8<<20)
	src := opened(t, b, v.ID, false)
	without := hiding(t, "/dev/ubdd")
	if _, err := without.Volume(t.Context(), backends.VolumeRequest{ID: makeID("linear", nameOf(kindVolume, "other"))}); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("look: %v", err)
	}
	if err := without.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("delete: %v", err)
	}
	if _, err := without.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: "x", Size: 1}); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("create: %v", err)
	}
	if err := without.Probe(t.Context()); !errors.Is(err, backends.ErrNotReady) {
		t.Errorf("probe: %v", err)
	}
	closed(t, b, v.ID, src)
	deleted(t, b, v.ID)
	// No VG at all.
	o := testOptions()
	o.Classes[0].VG = "nosuch"
	if _, err := open(t, o).FindVolume(t.Context(), backends.CreateVolumeRequest{Name: "a"}); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("no VG: %v", err)
	}
}

func legMissing(t *testing.T) {
	b := open(t, testOptions())
	v := createVolume(t, b, "pvc-1", "raid1", 8<<20)
	src := opened(t, b, v.ID, false)
	marker := []byte("on both legs")
	write(t, src.Device.Path, marker, 4096)
	disk := strings.Trim(strings.Fields(lvm(t, "lvs", "--noheadings", "-a", "-o", "devices", testVG+"/"+nameOf(kindVolume, "pvc-1")+"_rimage_1"))[0], "[]")
	disk, _, _ = strings.Cut(disk, "(")
	closed(t, b, v.ID, src)
	without := hiding(t, disk)
	h, err := without.VolumeHealth(t.Context(), backends.VolumeRequest{ID: v.ID})
	if err != nil || !slices.ContainsFunc(h, func(h backends.Health) bool { return h.Reason == "RAIDDegraded" }) {
		t.Errorf("%+v, %v", h, err)
	}
	src = opened(t, without, v.ID, false)
	if got := read(t, src.Device.Path, len(marker), 4096); !bytes.Equal(got, marker) {
		t.Errorf("%q", got)
	}
	closed(t, without, v.ID, src)
}

func write(t testing.TB, path string, p []byte, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string, n int, off int64) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, n)
	if _, err := f.ReadAt(p, off); err != nil {
		t.Fatal(err)
	}
	return p
}

func wiped(t *testing.T) {
	secret := bytes.Repeat([]byte("the old tenant's "), 1000)
	for _, class := range []string{"linear", "thin", "striped", "raid1", "discard"} {
		o := testOptions()
		o.Classes = append(o.Classes, Class{Name: "discard", VG: testVG, Wipe: WipeDiscard})
		b := open(t, o)
		v := createVolume(t, b, "old", class, 16<<20)
		src := opened(t, b, v.ID, true)
		for off := int64(0); off+int64(len(secret)) < v.Capacity; off += 1 << 20 {
			write(t, src.Device.Path, secret, off)
		}
		closed(t, b, v.ID, src)
		deleted(t, b, v.ID)
		// The first extents that are free are the ones that were given back.
		v = createVolume(t, b, "new", class, 16<<20)
		src = opened(t, b, v.ID, true)
		if got := read(t, src.Device.Path, int(v.Capacity), 0); bytes.Contains(got, []byte("tenant")) || len(bytes.Trim(got, "\x00")) > 0 {
			t.Errorf("%s: a new volume has the data of an old one", class)
		}
		closed(t, b, v.ID, src)
		deleted(t, b, v.ID)
	}
}

func deletedOpen(t *testing.T) {
	b := open(t, testOptions())
	for _, class := range []string{"linear", "thin"} {
		v := createVolume(t, b, "pvc-1", class, 8<<20)
		src := opened(t, b, v.ID, true)
		write(t, src.Device.Path, []byte("mine"), 0)
		f, err := os.OpenFile(src.Device.Path, os.O_RDONLY|syscall.O_EXCL, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
			t.Errorf("delete: %v", err)
		}
		if err := b.CloseVolume(t.Context(), backends.CloseVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrInUse) {
			t.Errorf("close: %v", err)
		}
		if err := b.RecoverNode(t.Context(), nil); err != nil {
			t.Error(err)
		}
		if got := read(t, src.Device.Path, 4, 0); string(got) != "mine" {
			t.Errorf("%q", got)
		}
		if _, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID}); err != nil {
			t.Error(err)
		}
		f.Close()
		closed(t, b, v.ID, src)
		deleted(t, b, v.ID)
	}
}

func halfWiped(t *testing.T) {
	b := open(t, testOptions())
	v := createVolume(t, b, "pvc-1", "linear", 8<<20)
	src := opened(t, b, v.ID, true)
	write(t, src.Device.Path, []byte("secret"), 6<<20)
	// A process that dies when the LV is marked.
	func() {
		defer func() { _ = recover() }()
		b.step = func(at string) {
			if at == "delete:marked" {
				panic(at)
			}
		}
		_ = b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID})
		t.Error("not stopped")
	}()
	b = open(t, testOptions())
	if _, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: "pvc-1", Size: 8 << 20}); !errors.Is(err, backends.ErrPending) {
		t.Errorf("create: %v", err)
	}
	if _, err := b.FindVolume(t.Context(), backends.CreateVolumeRequest{Name: "pvc-1"}); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("find: %v", err)
	}
	if _, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("open: %v", err)
	}
	if err := b.RecoverController(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.jobs.Wait()
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("after the start: %v", err)
	}
}

func renamed(t *testing.T) {
	b := open(t, testOptions())
	v := createVolume(t, b, "pvc-1", "linear", 8<<20)
	src := opened(t, b, v.ID, false)
	lvm(t, "vgrename", "-qq", testVG, "other")
	defer lvm(t, "vgrename", "-qq", "other", testVG)
	if _, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("under the old name: %v", err)
	}
	o := testOptions()
	for i := range o.Classes {
		o.Classes[i].VG = "other"
	}
	b = open(t, o)
	again, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID, State: src.State})
	if err != nil || again.Device.Identity.DMUUID != src.Device.Identity.DMUUID {
		t.Errorf("%+v, %v", again, err)
	}
	closed(t, b, v.ID, src)
}

func poolFull(t *testing.T) {
	lvm(t, "lvchange", "-qq", "--errorwhenfull", "y", testVG+"/"+testPool)
	b := open(t, testOptions())
	v := createVolume(t, b, "pvc-1", "thin", 80<<20)
	src := opened(t, b, v.ID, true)
	f, err := os.OpenFile(src.Device.Path, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	buf, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(buf) }()
	buf[0] = 1
	var full error
	for off := int64(0); off < 80<<20 && full == nil; off += 1 << 20 {
		_, full = f.WriteAt(buf, off)
	}
	f.Close()
	if full == nil {
		t.Fatal("80 MiB fit into a pool of 64")
	}
	h, err := b.VolumeHealth(t.Context(), backends.VolumeRequest{ID: v.ID})
	if err != nil || len(h) == 0 || h[0].Reason != "ThinPoolFull" {
		t.Errorf("%+v, %v", h, err)
	}
	_, err = b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: "b", Size: 1 << 20, Parameters: map[string]string{paramClass: "thin"}})
	if !errors.Is(err, backends.ErrNoSpace) {
		t.Errorf("create: %v", err)
	}
	closed(t, b, v.ID, src)
	deleted(t, b, v.ID)
	createVolume(t, b, "b", "thin", 1<<20)
}
