package mounter_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
)

// TestRealLostHead: the head of the device reads as zero, and a backup of the
// superblock in the middle says that there was a file system, which its own
// tools may still repair.
func TestRealLostHead(t *testing.T) {
	for _, c := range []struct {
		fsType string
		size   int64
		mkfs   []string
	}{
		{"ext4", 320 * mib, []string{"-F", "-q", "-b", "4096"}},
		{"ext4", 320 * mib, []string{"-F", "-q", "-b", "1024"}},
		{"ext4", 320 * mib, []string{"-F", "-q", "-b", "2048"}},
		{"xfs", 320 * mib, []string{"-f", "-q", "-d", "agcount=4"}},
	} {
		t.Run(c.fsType+strings.Join(c.mkfs, ""), func(t *testing.T) {
			n, r := newRealVolume(t, c.size)
			run(t, "mkfs."+c.fsType, append(c.mkfs, n.file("v"))...)
			n.write("v", 0, strings.Repeat("\x00", 6*mib))
			for range 2 {
				wantKind(t, r.Stage(t.Context(), r.stageReq("v", c.fsType)), backends.ErrPrecondition)
			}
			r.gone("v")
		})
	}
}

// TestRealShrunkDevice: a device that lost its end is neither repaired to its new
// size nor mounted; when it has its size again, everything is there.
func TestRealShrunkDevice(t *testing.T) {
	for _, fsType := range []string{"ext2", "ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			n, r := newRealVolume(t, 320*mib)
			r.stage("v", fsType)
			must(t, os.WriteFile(r.path("staging-v/file"), []byte("data"), 0o600))
			r.unstage("v")
			run(t, "cp", "--sparse=always", n.file("v"), n.file("whole"))
			must(t, os.Truncate(n.file("v"), 160*mib))
			for range 2 {
				if err := r.Stage(t.Context(), r.stageReq("v", fsType)); err == nil {
					t.Fatal("staged")
				}
			}
			r.unstage("v")
			run(t, "cmp", "-n", strconv.Itoa(160*mib), n.file("v"), n.file("whole"))
			run(t, "cp", "--sparse=always", n.file("whole"), n.file("v")) // into the same file
			r.stage("v", fsType)
			r.holds("staging-v/file", "data")
			r.unstage("v")
			r.gone("v")
		})
	}
}

// TestRealBtrfsOfTwoVolumes: a file system that a guest spread over two raw
// volumes is not mounted through one of them.
func TestRealBtrfsOfTwoVolumes(t *testing.T) {
	n, r := newRealVolume(t, 320*mib)
	n.make("w", 320*mib)
	raw := func(id string) mounter.StageRequest {
		q := r.stageReq(id, "")
		q.Capability.Block = true
		return q
	}
	must(t, r.Stage(t.Context(), raw("v")))
	must(t, r.Stage(t.Context(), raw("w")))
	run(t, "mkfs.btrfs", "-f", "-q", n.loop["v"].Path, n.loop["w"].Path)
	r.unstage("v")
	err := r.Stage(t.Context(), r.stageReq("v", "btrfs"))
	if err == nil {
		t.Error("staged v, and with it w")
	}
	t.Log(err)
	r.unstage("v")
	r.unstage("w")
	r.gone("v")
	r.gone("w")
}

// TestRealMkfsOutlivesItsDriver: an mkfs that goes on after its driver was killed
// is seen by the next one. mkfs.btrfs does not open the device exclusively.
func TestRealMkfsOutlivesItsDriver(t *testing.T) {
	n, r := newRealVolume(t, 320*mib)
	bin := t.TempDir()
	started, finish := filepath.Join(bin, "started"), filepath.Join(bin, "finish")
	must(t, unix.Mkfifo(started, 0o600))
	must(t, unix.Mkfifo(finish, 0o600))
	real, err := exec.LookPath("mkfs.btrfs")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(bin, "mkfs.btrfs"), []byte("#!/bin/sh\necho > "+started+"\nread x < "+finish+"\nexec "+real+" \"$@\"\n"), 0o700)) //nolint:gosec // a program
	slow, err := mounter.New(n, &mounter.Options{
		StateDir: r.path("killed"), AllowVolatileState: true, Command: command.New(&command.Options{Path: bin + ":/usr/sbin:/usr/bin:/sbin:/bin"}),
	})
	must(t, err)
	must(t, slow.Start(t.Context()))
	done := make(chan error, 1)
	go func() { done <- slow.Stage(t.Context(), r.stageReq("v", "btrfs")) }()
	_, err = os.ReadFile(started)
	must(t, err)
	req := r.stageReq("v", "btrfs")
	req.Path += "-next"
	wantKind(t, r.Stage(t.Context(), req), backends.ErrUnavailable)
	if r.isMount("staging-v-next") {
		t.Error("mounted while an mkfs works on it")
	}
	must(t, os.WriteFile(finish, []byte("\n"), 0o600))
	must(t, <-done)
	must(t, slow.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: r.path("staging-v")}))
	must(t, slow.Close())
	must(t, r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: req.Path}))
	r.gone("v")
}

// TestRealDamagedSuperblock: a file system whose first superblock is damaged is
// repaired or refused, and in the end its tools still find everything.
func TestRealDamagedSuperblock(t *testing.T) {
	const superblock = 1024
	for name, damage := range map[string]func(n *loopNode){
		"magic":    func(n *loopNode) { n.write("v", superblock+0x38, "\x00\x00") },
		"checksum": func(n *loopNode) { n.write("v", superblock+0x3fc, "\xde\xad") },
		"sizes":    func(n *loopNode) { n.write("v", superblock, strings.Repeat("\xff", 0x30)) },
		"all":      func(n *loopNode) { n.write("v", superblock, strings.Repeat("\x00", 1024)) },
	} {
		t.Run(name, func(t *testing.T) {
			testenv.Tool(t, "debugfs", "e2fsck")
			n, r := newRealVolume(t, 320*mib)
			run(t, "mkfs.ext4", "-F", "-q", "-b", "4096", n.file("v"))
			r.stage("v", "ext4")
			must(t, os.WriteFile(r.path("staging-v/file"), []byte("data"), 0o600))
			r.unstage("v")
			damage(n)
			for range 2 {
				err := r.Stage(t.Context(), r.stageReq("v", "ext4"))
				t.Log(err)
				r.unstage("v")
			}
			out, err := exec.Command("e2fsck", "-f", "-y", n.file("v")).CombinedOutput()
			var exit *exec.ExitError
			if err != nil && (!errors.As(err, &exit) || exit.ExitCode() > 3) {
				t.Fatalf("%v\n%s", err, out)
			}
			if got := run(t, "debugfs", "-R", "cat /file", n.file("v")); !strings.HasSuffix(got, "data") {
				t.Errorf("read back %q", got)
			}
			r.gone("v")
		})
	}
}

// TestRealDirty: a copy of a volume in use, or what a crash left, is mounted with all
// that was synced.
func TestRealDirty(t *testing.T) {
	for _, fsType := range []string{"ext2", "ext3", "ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			n, r := newRealVolume(t, 320*mib)
			r.stage("v", fsType)
			must(t, os.WriteFile(r.path("staging-v/file"), []byte("data"), 0o600))
			run(t, "sync", "-f", r.path("staging-v/file"))
			must(t, os.WriteFile(r.path("staging-v/more"), []byte("data"), 0o600))
			run(t, "cp", "--sparse=always", n.file("v"), n.file("w"))
			r.unstage("v")
			r.stage("w", "")
			r.holds("staging-w/file", "data")
			r.unstage("w")
			r.gone("w")
		})
	}
}
