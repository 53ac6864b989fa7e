package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/internal/testenv"
)

const (
	quick = 2 * time.Second  // what asks no server, and what knows that it is dead
	first = 12 * time.Second // who finds out
)

// TestOutage is a server that dies under mounted volumes, one of NFS 4.1 and one of
// 4.2, both hard, and comes back.
func TestOutage(t *testing.T) {
	if !testenv.InVM(t, "1G", "128M") {
		return
	}
	serve(t, "/dev/ubdb", "xfs")
	r := newRig(t, disk(t, "/dev/ubdc"), "-any-share", "-share", "main=127.0.0.1:/,vers=4.2", "-init")
	made, attributes := r.create("made")
	own := filepath.Join(r.dir, "own")
	r.must(r.bring(made, own, attributes))
	v41, v42, cold := vol{id: "v41", subDir: "v41", options: "vers=4.1"}, vol{id: "v42", subDir: "v42", options: "vers=4.2"}, vol{id: "cold", subDir: "cold"}
	var left []vol
	for i := range 3 {
		id := fmt.Sprintf("left%d", i)
		left = append(left, vol{id: id, subDir: id, options: "vers=4.2,nconnect=2"})
	}
	for _, v := range append([]vol{v41, v42}, left...) {
		r.up(v)
		r.must(os.WriteFile(filepath.Join(r.target(v, 1), "f"), []byte(v.id), 0o600))
		_, err := r.stats(v, 1)
		r.must(err)
	}
	nfsd(t, "stop")
	t.Log("the server is stopped; 65 s pass, so that no attributes are cached any more")
	time.Sleep(65 * time.Second)
	stop := r.watch()
	defer stop()
	t.Log("| with a dead server                           | answer       |     after   |")
	dead := func(most time.Duration, what string, f func() error) {
		t.Helper()
		r.timed(what, codes.Unavailable, most, f)
	}
	fine := func(what string, f func() error) { t.Helper(); r.timed(what, codes.OK, quick, f) }
	each := func(what string, f func(i int) error) {
		t.Helper()
		r.best(what, quick, 3, func(i int) (time.Duration, error) { return lasts(func() error { return f(i) }) })
	}
	dead(first, "NodeGetVolumeStats, the first", func() error { _, err := r.stats(v41, 1); return err })
	dead(quick, "NodeGetVolumeStats", func() error { _, err := r.stats(v41, 1); return err })
	dead(quick, "NodeGetVolumeStats of another volume", func() error { _, err := r.stats(v42, 1); return err })
	fine("NodeGetVolumeHealth", func() error {
		ails, err := r.ails(v42, 1)
		if !strings.Contains(ails, "ServerUnreachable") {
			t.Errorf("health says %q", ails)
		}
		return err
	})
	dead(quick, "NodeStageVolume of a new volume", func() error { return r.stage(cold) })
	fine("NodeStageVolume, staged already", func() error { return r.stage(v42) })
	fine("NodePublishVolume, published already", func() error { return r.publish(v42, 1, false) })
	each("NodePublishVolume at a second target", func(i int) error { return r.publish(v42, 2+i, true) })
	each("NodeUnpublishVolume", func(i int) error { return r.unpublish(v42, 2+i) })
	fine("NodeGetInfo, NodeGetCapabilities", func() error {
		ctx, cancel := r.ctx()
		defer cancel()
		if _, err := r.node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{}); err != nil {
			return err
		}
		_, err := r.node.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
		return err
	})
	controller := func(what string, f func(ctx context.Context) error) {
		t.Helper()
		dead(quick, what, func() error {
			ctx, cancel := r.ctx()
			defer cancel()
			return f(ctx)
		})
	}
	controller("CreateVolume", func(ctx context.Context) error {
		_, err := r.ctrl.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: "late", VolumeCapabilities: []*csi.VolumeCapability{vol{}.capability()}})
		return err
	})
	controller("ControllerGetVolume", func(ctx context.Context) error {
		_, err := r.ctrl.ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: made.id})
		return err
	})
	controller("GetCapacity", func(ctx context.Context) error {
		_, err := r.ctrl.GetCapacity(ctx, &csi.GetCapacityRequest{})
		return err
	})
	r.timed("NodeUnpublishVolume and NodeUnstageVolume", codes.OK, first, func() error { return r.fetch(made, own) }) // once
	controller("DeleteVolume", func(ctx context.Context) error {
		_, err := r.ctrl.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: made.id})
		return err
	})
	each("NodeUnpublishVolume, the last target", func(i int) error { return r.unpublish(left[i], 1) })
	each("NodeUnstageVolume, the last mount", func(i int) error { return r.unstage(left[i]) })
	fine("NodeUnstageVolume of what never was staged", func() error { return r.unstage(cold) })
	// Sixteen at once, each of which would leave a thread behind.
	start, answers := time.Now(), make(chan error, 16)
	for range cap(answers) {
		go func() { _, err := r.stats(v41, 1); answers <- err }()
	}
	for range cap(answers) {
		if err := <-answers; status.Code(err) != codes.Unavailable {
			t.Errorf("one of sixteen: %v", err)
		}
	}
	t.Logf("| %-44s | %-12s | %8.1f ms |", "NodeGetVolumeStats, 16 at once", codes.Unavailable, float64(time.Since(start).Microseconds())/1000)
	stop()

	nfsd(t, "start")
	start = time.Now()
	for _, v := range []vol{v41, v42} {
		for {
			if _, err := r.stats(v, 1); err == nil {
				break
			}
			if time.Since(start) > timeout {
				t.Fatal("the server is back, and the driver does not see it")
			}
			time.Sleep(50 * time.Millisecond)
		}
		if b, err := os.ReadFile(filepath.Join(r.target(v, 1), "f")); err != nil || string(b) != v.id {
			t.Errorf("%s: %q, %v", v.id, b, err)
		}
		if ails, err := r.ails(v, 1); err != nil || ails != "" {
			t.Errorf("%s is healed, and its health is %q, %v", v.id, ails, err)
		}
	}
	t.Logf("healed %.1f s after the server was back", time.Since(start).Seconds())
	for _, v := range left {
		r.up(v)
		if b, err := os.ReadFile(filepath.Join(r.target(v, 1), "f")); err != nil || string(b) != v.id {
			t.Errorf("mounted anew: %q, %v", b, err)
		}
	}
	for _, v := range append([]vol{v41, v42}, left...) {
		r.down(v)
	}
	late, _ := r.create("late")
	r.remove(late)
	r.remove(made)
	for _, w := range r.workers() { // those that wait for tasks
		b, err := os.ReadFile("/proc/" + w + "/stat")
		if _, state, _ := strings.Cut(string(b), ") "); err == nil && !strings.HasPrefix(state, "S") && !strings.HasPrefix(state, "R") {
			t.Errorf("a worker hangs: %s", b)
		}
	}
	if n := len(r.workers()); n > 8 {
		t.Errorf("%d processes of the driver are left", n)
	}
	if b, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(b), "127.0.0.1:/") {
		t.Errorf("mounts are left:\n%s", b)
	}
}
