package main

import (
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/fusehost"
)

// TestFUSEHostCommand: it listens, and ends in order when it is told to.
func TestFUSEHostCommand(t *testing.T) {
	bin := build(t)
	socket := filepath.Join(t.TempDir(), "fuse.sock")
	cmd := exec.CommandContext(t.Context(), bin, "fuse-host", "-socket", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := fusehost.NewClient(socket)
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var st mounter.ServerStatus
		if st, err = c.Find(t.Context(), "v"); err == nil && st.State == mounter.ServerUnknown {
			break
		}
	}
	if err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{{"fuse-host"}, {"fuse-host", "-socket", "relative"}, {"fuse-host", "-socket", "/x", "more"}} {
		if _, code := runDemo(t, exec.CommandContext(t.Context(), bin, args...)); code != 2 {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
}
