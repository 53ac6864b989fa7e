package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(envList); spec != "" {
		os.Exit(serveList(spec)) // started by the test of the benchmark
	}
	testenv.Main(m)
}

// TestQuick: the benchmark itself, as short as it can be, prints every row, each
// with a figure, and leaves nothing.
func TestQuick(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "go", "mkfs.ext4", "mkfs.xfs", "losetup")
	if testing.Short() {
		t.Skip("builds every example")
	}
	dir := t.TempDir()
	var b strings.Builder
	if err := run(t.Context(), &b, config{dir: dir}.quick()); err != nil {
		t.Fatalf("%v\n%s", err, &b)
	}
	for _, item := range []string{
		"logging off", "a line each call", "a line each call and the request",
		"telemetry off", "telemetry, no-op providers", "telemetry, recording providers",
		"a key of one's own, 1 goroutines", "a key of one's own, 16 goroutines", "a key of one's own, 64 goroutines",
		"one shared key, 1 goroutines", "one shared key, 16 goroutines", "one shared key, 64 goroutines",
		"an operation, inline", "an operation", "an operation, caller with a deadline", "to join one", "kept after 1000 IDs",
		"1 goroutines", "16 goroutines", "64 goroutines",
		"Probe, p50, c=1", "Probe, c=16", "NodePublishVolume, p50, c=1", "NodePublishVolume, c=16",
		"one volume, 5 targets", "5 volumes", "both, 10 calls",
		"mem, 300 volumes, 1 page", "mem, 300 volumes, 3 pages", "loopfile, 300 volumes, 1 page", "loopfile, 300 volumes, 3 pages",
		"bind", "bind, read-only", "unmount", "unmount, no mount there", "is it a mount point, 3 mounts", "is it a mount point, 10 mounts",
		"the 2 mounts of a device, 10 mounts", "ext4, fresh", "ext4, clean, again", "xfs, fresh", "xfs, clean, again",
		"  part: probe, blank", "  part: mkfs.ext4", "  part: probe, ext4", "  part: mount(2), ext4", "  part: a record",
		"attach", "detach", "one of 5 publishes, 10 mounts",
		"binary, stripped, grpcnotrace", "start to first Probe", "RSS at rest", "lifecycles, c=1", "lifecycles, c=16",
		"  NodeStageVolume, c=1",
	} {
		row := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(item) + ` +\| [0-9]`)
		if n := len(row.FindAllString(b.String(), -1)); n != 1 {
			t.Errorf("%d rows %q", n, item)
		}
	}
	if t.Failed() {
		t.Log(b.String())
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
