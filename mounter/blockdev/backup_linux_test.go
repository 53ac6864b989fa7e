package blockdev

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
)

// TestProbeBackups: a device whose head was lost is not blank while it has a
// backup of its superblock.
func TestProbeBackups(t *testing.T) {
	for _, mkfs := range [][]string{
		{"mkfs.ext4", "-F", "-q", "-b", "1024"},
		{"mkfs.ext4", "-F", "-q", "-b", "2048"},
		{"mkfs.ext4", "-F", "-q", "-b", "4096"},
		{"mkfs.xfs", "-f", "-q", "-d", "agcount=4"},
	} {
		t.Run(mkfs[0]+mkfs[4%len(mkfs)], func(t *testing.T) {
			testenv.Tool(t, mkfs[0])
			img := image(t, 512*mib)
			if out, err := exec.Command(mkfs[0], append(mkfs[1:], img)...).CombinedOutput(); err != nil { //nolint:gosec // from the table above
				t.Fatalf("%v: %s", err, out)
			}
			f, err := os.OpenFile(img, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			wipe(t, f, 0, 6*mib)
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if c := probeFile(t, img); c.State != Unknown {
				t.Errorf("got %s", c)
			}
		})
	}
}

// TestProbeXFSBackups: the second superblock of an xfs that lost all else, wherever
// mkfs.xfs put it for the disk and the machine that it saw.
func TestProbeXFSBackups(t *testing.T) {
	testenv.Tool(t, "mkfs.xfs")
	for _, c := range []struct {
		size int64
		data string
	}{
		{512 * mib, "agcount=4"}, {512 * mib, "agcount=2"},
		{2 * gib, "su=64k,sw=4"}, {2*gib + 20*mib, "su=64k,sw=4"}, {20 * gib, "su=256k,sw=8"}, {100 * gib, "su=1m,sw=2"}, {100*gib + 12345*kib, "su=64k,sw=2"},
		{1024 * gib, "su=512k,sw=3"}, {1024 * gib, "su=128k,sw=3"}, {1024 * gib, "agcount=32"},
		{100 * gib, "agcount=24"}, {100*gib + 4*mib, "agcount=7"}, {1024 * gib, "agcount=64"}, {300 * gib, "agcount=48"},
	} {
		t.Run(fmt.Sprint(c.size/mib, " ", c.data), func(t *testing.T) {
			img := image(t, c.size)
			if out, err := exec.Command("mkfs.xfs", "-f", "-q", "-K", "-d", c.data, img).CombinedOutput(); err != nil { //nolint:gosec // from the table above
				t.Fatalf("%v: %s", err, out)
			}
			f, err := os.OpenFile(img, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			wipe(t, f, 0, 6*mib)
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if c := probeFile(t, img); c.State != Unknown {
				t.Errorf("got %s", c)
			}
		})
	}
}

// TestProbeBtrfsOfTwo: one device of several is no file system of its own.
func TestProbeBtrfsOfTwo(t *testing.T) {
	testenv.Tool(t, "mkfs.btrfs")
	a, b := image(t, 320*mib), image(t, 320*mib)
	if out, err := exec.Command("mkfs.btrfs", "-f", "-q", a, b).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, img := range []string{a, b} {
		if c := probeFile(t, img); c.State != Foreign || c.Type != "btrfs of 2 devices" {
			t.Errorf("got %s, %s", c.State, c)
		}
	}
}

// TestLockClaims: whoever has the file of Lock has the device.
func TestLockClaims(t *testing.T) {
	d, _, _ := loopDevice(t, 1<<20)
	claimed := func(want bool) {
		t.Helper()
		if got, err := d.Claimed(); err != nil || got != want {
			t.Errorf("claimed %v, %v; want %v", got, err, want)
		}
	}
	claimed(false)
	lock, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	claimed(true)
	if _, err := d.Lock(); err == nil {
		t.Error("locked twice")
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	claimed(false)
	// What udev takes for a moment is no claim.
	if err := unix.Flock(int(d.File().Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	claimed(false)
}
