package sanity

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
)

// TestLeftMount: a driver that forgets a mount fails, and the mount is gone
// before its directory is cleaned.
func TestLeftMount(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	inner := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(inner, 0o750); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{filepath.Dir(inner), dir + "x"} {
		if err := os.MkdirAll(p, 0o750); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", p, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(inner, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", inner, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	err := leftMounts(dir)
	if err == nil || strings.Count(err.Error(), "mount left behind") != 2 || !strings.Contains(err.Error(), inner) {
		t.Errorf("left: %v", err)
	}
	if err := leftMounts(dir); err != nil {
		t.Errorf("and still: %v", err)
	}
	if err := syscall.Unmount(dir+"x", 0); err != nil {
		t.Errorf("the mount beside the directory: %v", err)
	}
}
