package lvm

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
)

// device is the PV of an LV.
func deviceOf(t testing.TB, v *volume) string {
	t.Helper()
	dev, _, _ := strings.Cut(strings.TrimSpace(lvm(t, "lvs", "--noheadings", "-o", "devices", v.path())), "(")
	return dev
}

// moving begins what an administrator does to empty a disk, and does not end it before
// it is told to: with its + pvmove waits before it first asks whether all is copied,
// which a fast disk has done at once.
func moving(t *testing.T, b *Backend, id string) (abort func()) {
	t.Helper()
	_, v, err := b.volume(t.Context(), id, kindVolume)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("lvm", "pvmove", "--config", b.tool.config, "--interval", "+1000", "-n", v.name, deviceOf(t, v))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for range 300 {
		if strings.Contains(lvm(t, "lvs", "-a", "-o", "lv_name", testVG), "[pvmove0]") {
			return func() {
				_ = cmd.Process.Kill()
				<-ended
				lvm(t, "pvmove", "--config", b.tool.config, "--abort")
			}
		}
		select {
		case err := <-ended:
			t.Fatalf("pvmove: %v\n%s", err, out.Bytes())
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Fatal("pvmove does not begin")
	return nil
}

// movedMeanwhile: while pvmove is at a volume, lvm has it locked. It may be used; what
// lvm does not do to it then is to be asked for again, and is no final answer. What
// pvmove takes of other disks is not free.
func movedMeanwhile(t *testing.T) {
	b := open(t, testOptions())
	v := createVolume(t, b, "pvc-1", "linear", 40<<20)
	src := opened(t, b, v.ID, true)
	write(t, src.Device.Path, []byte("before"), 1<<20)
	abort := moving(t, b, v.ID)
	sameAsLVM(t, b, "pvmove")
	write(t, src.Device.Path, []byte("meanwhile"), 2<<20)
	calls := map[string]error{
		"expand":   second(b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 60 << 20})),
		"snapshot": second(b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: v.ID})),
		"clone":    second(b.CloneVolume(t.Context(), *v, backends.CreateVolumeRequest{Name: "copy", Size: 40 << 20})),
	}
	for call, err := range calls {
		if !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("%s: %v", call, err)
		}
	}
	room, err := b.Capacity(t.Context(), backends.CapacityRequest{})
	if err != nil {
		t.Fatal(err)
	}
	big := createVolume(t, b, "pvc-2", "linear", room.MaxVolume)
	sameAsLVM(t, b, "all taken")
	deleted(t, b, big.ID)
	closed(t, b, v.ID, src)
	if src = opened(t, b, v.ID, true); string(read(t, src.Device.Path, 9, 2<<20)) != "meanwhile" {
		t.Error("what was written meanwhile is not there")
	}
	abort()
	for at, want := range map[int64]string{1 << 20: "before", 2 << 20: "meanwhile"} {
		if got := string(read(t, src.Device.Path, len(want), at)); got != want {
			t.Errorf("%q after it, want %q", got, want)
		}
	}
	if n, err := b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 60 << 20}); err != nil || n < 60<<20 {
		t.Errorf("expanded after it: %d, %v", n, err)
	}
	closed(t, b, v.ID, src)
	abort = moving(t, b, v.ID)
	err = b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID})
	if !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrNotFound) {
		t.Errorf("delete: %v", err)
	}
	abort()
	deleted(t, b, v.ID)
	wantOnly(t)
}
