package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// The benchmark itself, as short as it can be: all drivers are measured, and
// nothing is left.
func TestRun(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "go", "mkfs.ext4")
	if testing.Short() {
		t.Skip("builds every example")
	}
	dir := t.TempDir()
	var b strings.Builder
	err := run(t.Context(), &b, config{rounds: 1, duration: 10 * time.Millisecond, size: 64 << 20, dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bare gRPC", "minimal", "loopfile"} {
		if !strings.Contains(b.String(), name) {
			t.Errorf("%s was not measured:\n%s", name, &b)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What is left behind is named, and taken away.
func TestCleanUp(t *testing.T) {
	testenv.Root(t)
	dir := filepath.Join(t.TempDir(), "bench")
	vol := filepath.Join(dir, "run-1", "volumes", "bench-7")
	if err := os.MkdirAll(vol, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", vol, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	err := cleanUp(dir)
	if err == nil || !strings.Contains(err.Error(), "mount on "+vol) || !strings.Contains(err.Error(), "file "+vol) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}
