package nfs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
)

const envChild = "NFS_TEST_CHILD"

// order is what a child process does before it is killed.
type order struct {
	Share, State string
	Op, Name, ID string
	Params       []string
	KillAt       string // a step, or "" for none
}

// obey runs an order, printing each step.
func obey() error {
	var o order
	if err := json.Unmarshal([]byte(os.Getenv(envChild)), &o); err != nil {
		return err
	}
	b, err := New(Options{
		Shares:   []Share{{Name: "share", LocalDir: o.Share, Server: "nfs.example.com", Export: "/srv/nfs"}},
		StateDir: o.State, Init: true, Legacy: LegacyDelete, Quota: QuotaGuard,
	})
	if err != nil {
		return err
	}
	b.step = func(at string) {
		fmt.Println(at)
		if at == o.KillAt {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	ctx := context.Background()
	switch o.Op {
	case "create":
		if _, err = b.FindVolume(ctx, request(o.Name, o.Params...)); err != nil {
			_, err = b.CreateVolume(ctx, request(o.Name, o.Params...))
		}
	case "delete":
		err = b.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: o.ID})
		b.wg.Wait() // the purge
	case "expand":
		_, err = b.ExpandVolume(ctx, backends.ExpandVolumeRequest{ID: o.ID, Size: 2 << 20})
	case "snapshot":
		var s *backends.Snapshot
		if s, err = b.CreateSnapshot(ctx, backends.CreateSnapshotRequest{Name: o.Name, VolumeID: o.ID}); err == nil {
			b.jobs.wait(ctx, s.ID, time.Minute)
		}
	case "restore":
		_, err = b.RestoreSnapshot(ctx, backends.Snapshot{ID: o.ID}, request(o.Name, o.Params...))
	case "clone":
		_, err = b.CloneVolume(ctx, backends.Volume{ID: o.ID}, request(o.Name, o.Params...))
	case "deletesnapshot":
		err = b.DeleteSnapshot(ctx, backends.DeleteSnapshotRequest{ID: o.ID})
		b.wg.Wait()
	default:
		err = fmt.Errorf("no order %q", o.Op)
	}
	return err
}

// run has a child run an order, and gives the steps that it reached.
func (o order) run(t *testing.T) []string {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), envChild+"="+string(b))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	switch {
	case o.KillAt == "" && err != nil:
		t.Fatalf("%s: %v: %s", o.Op, err, out)
	case o.KillAt != "" && err == nil:
		t.Fatalf("%s was not killed at %s", o.Op, o.KillAt)
	}
	var steps []string
	for s := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(s, "nfs.") && !slices.Contains(steps, s) {
			steps = append(steps, s)
		}
	}
	return steps
}
