package blockdev

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
)

// mkfs is killed after each of its writes (every few, for btrfs): what is left is
// never called a whole file system unless it mounts, and InProgress, which is a
// licence to format, never is said of one that does.
func TestProbeAfterKilledMkfs(t *testing.T) {
	for fstype, args := range map[string][]string{
		"ext4":  {"mkfs.ext4", "-q", "-F"},
		"xfs":   {"mkfs.xfs", "-q", "-f"},
		"btrfs": {"mkfs.btrfs", "-q", "-f"},
	} {
		t.Run(fstype, func(t *testing.T) {
			testenv.Root(t)
			testenv.Tool(t, "strace", args[0])
			seen := map[string]int{}
			step := 1
			for n := 1; ; n += step {
				what, ended := killedMkfs(t, fstype, args, n)
				seen[what]++
				if ended {
					break
				}
				if n > 40 {
					step = n / 8 // the rest is more of the same
				}
			}
			t.Log(seen)
			if seen["whole"] == 0 || seen["whole"] == 1 && len(seen) == 1 {
				t.Error("mkfs was never killed, or never ended")
			}
		})
	}
}

// killedMkfs reports what is on a device whose mkfs was killed at its nth write.
func killedMkfs(t *testing.T, fstype string, args []string, n int) (what string, ended bool) {
	t.Helper()
	img := image(t, 512<<20)
	cmd := exec.Command("strace", append([]string{"-f", "-qq", "-o", "/dev/null",
		"-e", fmt.Sprintf("inject=pwrite64:signal=SIGKILL:when=%d", n), args[0]}, append(args[1:], img)...)...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	ended = cmd.ProcessState.Success()
	c := probeFile(t, img)
	whole := c.State == Filesystem && !c.Errors && !c.InProgress
	switch {
	case ended && !whole:
		t.Errorf("mkfs ended, and the device is %+v\n%s", c, out)
	case whole || c.InProgress:
		if err := tryMount(t, img, fstype); (err == nil) != whole {
			t.Errorf("killed at write %d: %+v, and mount says %v", n, c, err)
		}
	}
	if whole {
		return "whole", ended
	}
	what = c.State.String()
	if c.InProgress {
		what += " in progress"
	}
	if c.Errors {
		what += " damaged"
	}
	return strings.TrimSpace(what), ended
}

// tryMount mounts an image and unmounts it.
func tryMount(t *testing.T, img, fstype string) error {
	t.Helper()
	f := openImage(t, img)
	defer f.Close() //nolint:errcheck // nothing was written
	l, err := AttachLoop(context.Background(), f, AttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := DetachLoop(context.Background(), l.Path, l.Dev, l.Ino); err != nil {
			t.Error(err)
		}
	}()
	dir := t.TempDir()
	if err := unix.Mount(l.Path, dir, fstype, 0, ""); err != nil {
		return err
	}
	return unix.Unmount(dir, 0)
}
