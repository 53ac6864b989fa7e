package blockdev

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
)

// TestNeedsReplayXFS walks the log around its ring, and asks after each round what
// the tools of xfs think of the device, and of a copy that was made in use.
func TestNeedsReplayXFS(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "mkfs.xfs", "xfs_logprint", "xfs_repair")
	for _, log := range []string{"size=64m", "size=64m,su=256k", "size=64m,su=32k"} {
		t.Run(log, func(t *testing.T) {
			d, _, f := loopDevice(t, 320*mib)
			run(t, "mkfs.xfs", "-f", "-q", "-l", log, f.Name())
			dir := t.TempDir()
			wantReplay(t, d, false)
			for round := range 10 {
				wantReplay(t, d, state(t, d) != "CLEAN")
				if err := unix.Mount(d.Path(), dir, "xfs", 0, ""); err != nil {
					t.Fatal(err)
				}
				for i := range 60 { // a record each, and with su=256k a long one
					p := filepath.Join(dir, fmt.Sprintf("d%d-%d", round, i))
					if err := os.Mkdir(p, 0o700); err != nil {
						t.Fatal(err)
					}
					if i == 20 && round == 5 {
						wantReplay(t, d, true)
					}
					run(t, "sync", p)
				}
				run(t, "sync", "-f", dir)
				wantReplay(t, d, state(t, d) != "CLEAN")
				if s := state(t, d); s != "DIRTY" {
					t.Errorf("in use it is %s", s)
				}
				if err := unix.Unmount(dir, 0); err != nil {
					t.Fatal(err)
				}
				if s := state(t, d); s != "CLEAN" {
					t.Errorf("unmounted it is %s", s)
				}
			}
			wantReplay(t, d, false)
			run(t, "xfs_repair", "-L", d.Path()) // which writes the log anew, in a later round
			wantReplay(t, d, state(t, d) != "CLEAN")
		})
	}
}

// state is what xfs_logprint says of the log. It reads from the page cache, which is
// older than what a mounted xfs has written.
func state(t *testing.T, d *Device) string {
	t.Helper()
	run(t, "blockdev", "--flushbufs", d.Path())
	out, err := exec.Command("xfs_logprint", "-t", d.Path()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, s, _ := strings.Cut(string(out), "state: <")
	s, _, _ = strings.Cut(s, ">")
	return s
}

func wantReplay(t *testing.T, d *Device, want bool) {
	t.Helper()
	c, err := d.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.NeedsReplay(t.Context(), c); err != nil || got != want {
		t.Errorf("%s: needs replay: %v, %v; want %v", c, got, err, want)
	}
}

// TestNeedsReplay: in use, and afterwards.
func TestNeedsReplay(t *testing.T) {
	testenv.Root(t)
	for _, fsType := range []string{"ext3", "ext4", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			testenv.Tool(t, "mkfs."+fsType)
			d, _, f := loopDevice(t, 320*mib)
			force := "-F"
			if fsType == "btrfs" {
				force = "-f"
			}
			run(t, "mkfs."+fsType, force, "-q", f.Name())
			wantReplay(t, d, false)
			dir := t.TempDir()
			if err := unix.Mount(d.Path(), dir, fsType, 0, ""); err != nil {
				t.Fatal(err)
			}
			w, err := os.Create(filepath.Join(dir, "file"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.WriteString("data"); err != nil {
				t.Fatal(err)
			}
			if err := w.Sync(); err != nil { // btrfs: into the log tree
				t.Fatal(err)
			}
			wantReplay(t, d, true)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if err := unix.Unmount(dir, 0); err != nil {
				t.Fatal(err)
			}
			wantReplay(t, d, false)
		})
	}
}
