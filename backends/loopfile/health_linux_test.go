package loopfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter/blockdev"
)

func reasons(t testing.TB, h []backends.Health, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var s []string
	for _, x := range h {
		s = append(s, fmt.Sprintf("%d %s", x.Status, x.Reason))
	}
	return fmt.Sprint(s)
}

func TestHealth(t *testing.T) {
	img, dir := disk(t, "xfs", "400M")
	mountDisk(t, img, dir)
	o := testOptions(t)
	o.Pool = dir
	b := openNode(t, o)
	good := create(t, b, "good", 4*mib)
	thin := create(t, b, "thin", 4*mib, paramType, typeThin)
	short := create(t, b, "short", 4*mib)
	lost := create(t, b, "lost", 4*mib)
	torn := create(t, b, "torn", 4*mib)
	health := func(id string) string {
		t.Helper()
		h, err := b.VolumeHealth(t.Context(), backends.VolumeRequest{ID: id})
		return reasons(t, h, err)
	}
	for _, v := range []*backends.Volume{good, thin, short} {
		if got := health(v.ID); got != "[]" {
			t.Errorf("%s: %s", v.Name, got)
		}
	}
	if _, err := b.VolumeHealth(t.Context(), backends.VolumeRequest{ID: "x"}); !notFoundIs(err, "x") {
		t.Errorf("unknown: %v", err)
	}
	if err := os.Truncate(imgPath(b, short.ID), mib); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(imgPath(b, lost.ID)); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(filepath.Dir(imgPath(b, torn.ID)), metaFile), 10); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{short.ID: "[3 BackingFileShort]", lost.ID: "[3 BackingFileMissing]", torn.ID: "[2 MetadataUnreadable]"}
	for id, w := range want {
		if got := health(id); got != w {
			t.Errorf("%s, want %s", got, w)
		}
	}
	seen := map[string]string{}
	for token := ""; ; {
		vols, next, err := b.ListVolumeHealth(t.Context(), backends.ListVolumeHealthRequest{Page: backends.Page{Token: token, Limit: 1}})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vols {
			seen[v.ID] = reasons(t, v.Health, nil)
		}
		if token = next; token == "" {
			break
		}
	}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("listed %v, want %v", seen, want)
	}

	t.Run("full", func(t *testing.T) {
		f, err := os.Create(filepath.Join(dir, "ballast"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, step := range []int64{16 * mib, mib, 64 << 10, 4096} {
			for off := stat(t, f.Name()).Size(); unix.Fallocate(int(f.Fd()), 0, off, step) == nil; off += step {
			}
		}
		if got := health(thin.ID); got != "[2 PoolFull]" {
			t.Errorf("thin: %s", got)
		}
		if got := health(good.ID); got != "[]" {
			t.Errorf("thick: %s", got)
		}
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("node", func(t *testing.T) {
		src := openIt(t, b, good.ID, nil)
		node := func() string {
			h, err := b.NodeVolumeHealth(t.Context(), backends.NodeHealthRequest{ID: good.ID, State: src.State})
			return reasons(t, h, err)
		}
		run(t, "mkfs.ext4", "-q", "-F", src.Device.Path)
		at, other := t.TempDir(), t.TempDir()
		for _, err := range []error{unix.Mount(src.Device.Path, at, "ext4", 0, ""), unix.Mount(at, other, "", unix.MS_BIND, "")} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := node(); got != "[]" {
			t.Errorf("mounted: %s", got)
		}
		if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		if got := node(); got != "[2 FilesystemReadOnly]" {
			t.Errorf("after an error: %s", got)
		}
		for _, dir := range []string{other, at} {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Fatal(err)
			}
		}
		s, err := decodeState(src.State)
		if err != nil {
			t.Fatal(err)
		}
		if err := blockdev.DetachLoop(t.Context(), s.Loop, s.Dev, s.Ino); err != nil {
			t.Fatal(err)
		}
		if got := node(); got != "[2 LoopDeviceLost]" {
			t.Errorf("detached: %s", got)
		}
		closeIt(t, b, good.ID, src.State)
	})
}

// TestHealthOfShutPool: the kernel shuts a file system that it found damaged.
func TestHealthOfShutPool(t *testing.T) {
	img, dir := disk(t, "ext4", "64M")
	run(t, "mount", "-o", "loop,errors=remount-ro", img, dir)
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	o := testOptions(t)
	o.Pool = dir
	b := open(t, o)
	v := create(t, b, "v", mib, paramType, typeThin)
	loop := filepath.Base(strings.TrimSpace(run(t, "findmnt", "-no", "SOURCE", dir)))
	if err := os.WriteFile(filepath.Join("/sys/fs/ext4", loop, "trigger_fs_error"), []byte("test"), 0); err != nil {
		t.Skipf("missing: a way to make ext4 find an error: %v", err)
	}
	h, err := b.VolumeHealth(t.Context(), backends.VolumeRequest{ID: v.ID})
	if got := reasons(t, h, err); got != "[2 PoolReadOnly]" {
		t.Errorf("%s", got)
	}
}
