package loopfile

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit/iolimittest"
)

const envChild = "LOOPFILE_TEST_CHILD"

// order is what a child process does before it is killed.
type order struct {
	Pool, Op, Name, ID string
	Size               int64
	Type               string
	KillAt             string // a step, or "" for none
	IDs                []string
	Half               Half
	Dir                string // of the node's paths
}

// child runs an order, printing each step.
func child() error {
	var o order
	if err := json.Unmarshal([]byte(os.Getenv(envChild)), &o); err != nil {
		return err
	}
	b, err := New(Options{Pool: o.Pool, Node: "node-1", AllowRootFS: true, Reserve: -1, Half: o.Half, EphemeralMax: 1 << 30})
	if err != nil {
		return err
	}
	b.noteEvery = mib
	b.throttle = &iolimittest.Fake{}
	b.step = func(s string) {
		fmt.Println(s)
		if s == o.KillAt {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	ctx := context.Background()
	switch o.Op {
	case "create":
		_, err = b.CreateVolume(ctx, request(o.Name, o.Size, paramType, o.Type))
	case "delete":
		err = b.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: o.ID})
	case "expand":
		_, err = b.ExpandVolume(ctx, backends.ExpandVolumeRequest{ID: o.ID, Size: o.Size})
	case "open":
		_, err = b.OpenVolume(ctx, backends.OpenVolumeRequest{ID: o.ID})
	case "snapshot":
		var s *backends.Snapshot
		if s, err = b.CreateSnapshot(ctx, backends.CreateSnapshotRequest{Name: o.Name, VolumeID: o.ID}); err == nil {
			b.jobs.waitFor(ctx, s.ID, time.Minute)
		}
	case "group":
		var g *backends.GroupSnapshot
		if g, err = b.CreateGroupSnapshot(ctx, backends.CreateGroupSnapshotRequest{Name: o.Name, VolumeIDs: o.IDs}); err == nil {
			b.jobs.waitFor(ctx, g.ID, time.Minute)
		}
	case "restore":
		_, err = b.RestoreSnapshot(ctx, backends.Snapshot{ID: o.ID}, request(o.Name, o.Size, paramType, o.Type))
	case "clone":
		_, err = b.CloneVolume(ctx, backends.Volume{ID: o.ID}, request(o.Name, o.Size, paramType, o.Type))
	case "deletesnapshot":
		err = b.DeleteSnapshot(ctx, backends.DeleteSnapshotRequest{ID: o.ID})
	case "modify":
		err = b.ModifyVolume(ctx, backends.ModifyVolumeRequest{ID: o.ID, Mutable: map[string]string{"read-bps": "1Mi"}})
	case "life", "pod":
		err = life(ctx, b, o)
	case "churn":
		for i := 0; err == nil; i++ {
			err = churn(ctx, b, fmt.Sprint(o.Name, i%5))
		}
	}
	if err != nil && strings.Contains(err.Error(), "signal: killed") { // a tool was, and the driver goes with it
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return err
}

// churn gives one volume a life.
func churn(ctx context.Context, b *Backend, name string) error {
	v, err := b.FindVolume(ctx, request(name, mib))
	if err != nil {
		if v, err = b.CreateVolume(ctx, request(name, mib)); err != nil {
			return err
		}
	}
	if _, err := b.ExpandVolume(ctx, backends.ExpandVolumeRequest{ID: v.ID, Size: v.Capacity + mib}); err != nil {
		return err
	}
	return b.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: v.ID})
}

func orderCommand(t testing.TB, o order) *exec.Cmd {
	t.Helper()
	j, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), envChild+"="+string(j))
	return c
}

// runKilled runs an order that must end by SIGKILL at its step.
func runKilled(t testing.TB, o order) {
	t.Helper()
	out, err := orderCommand(t, o).CombinedOutput()
	if !killed(err) {
		t.Fatalf("%+v was not killed: %v\n%s", o, err, out)
	}
}

func killed(err error) bool {
	ee, ok := err.(*exec.ExitError) //nolint:errorlint // Run's own, unwrapped
	return ok && ee.Sys().(syscall.WaitStatus).Signaled()
}

// runUntil runs an order and kills it after so many lines of output, wherever it
// is by then.
func runUntil(t testing.TB, o order, lines int) {
	t.Helper()
	c := orderCommand(t, o)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewScanner(out)
	last := ""
	for range lines {
		if !r.Scan() {
			t.Fatalf("ended by itself: %s", last)
		}
		last = r.Text()
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out) // until the pipe breaks
	_ = c.Wait()                    // killed
}
