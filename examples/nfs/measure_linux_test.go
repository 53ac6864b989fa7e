package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/internal/testenv"
)

// TestMeasure prints what a volume costs, beside what an administrator does for the
// same: mkdir on the mounted share, mount.nfs, mount --bind, and back. It checks
// nothing: make bench-nfs.
func TestMeasure(t *testing.T) {
	if os.Getenv("CSIKIT_MEASURE") == "" {
		t.Skip("CSIKIT_MEASURE is not set: it measures, and checks nothing")
	}
	if !testenv.InVM(t, "1G", "128M") {
		return
	}
	serve(t, "/dev/ubdb", "xfs")
	r := newRig(t, disk(t, "/dev/ubdc"), "-share", "main=127.0.0.1:/,vers=4.2", "-init")
	share := filepath.Join(r.dir, "share")
	r.must(os.Mkdir(share, 0o700))
	r.must(tool("mount.nfs", "127.0.0.1:/", share, "-o", "vers=4.2"))
	t.Cleanup(func() { _ = tool("umount", share) })
	r.life("warm-up")
	r.plain(share, "warm-up")
	t.Log("| create to published, and back                | median up | median down | lives/s |")
	r.compare("csikit, 1 at a time", 1, 40, r.life)
	r.compare("plain mkdir, mount.nfs, bind, 1 at a time", 1, 40, func(n string) (up, down time.Duration) { return r.plain(share, n) })
	r.compare("csikit, 16 at a time", 16, 160, r.life)
	r.compare("plain mkdir, mount.nfs, bind, 16 at a time", 16, 160, func(n string) (up, down time.Duration) { return r.plain(share, n) })
	r.calls()
	r.thousand()
}

// calls prints how many calls to the server a volume costs: what a server that is far
// away makes slow.
func (r *rig) calls() {
	count := func() int {
		b, err := os.ReadFile("/proc/net/rpc/nfs")
		r.must(err)
		for line := range strings.Lines(string(b)) {
			var n int
			if _, err := fmt.Sscanf(line, "rpc %d", &n); err == nil {
				return n
			}
		}
		r.t.Fatalf("no line rpc in\n%s", b)
		return 0
	}
	const n = 20
	var made [n]vol
	before := count()
	for i := range n {
		made[i], _ = r.create(fmt.Sprintf("c%d", i))
	}
	created := count()
	for _, v := range made {
		r.remove(v)
	}
	r.t.Logf("| %-44s | %d | %d, with the emptying of the trash |", "calls to the server for a creation, a deletion", (created-before)/n, (count()-created)/n)
}

func tool(argv ...string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w\n%s", argv, err, out)
	}
	return nil
}

// compare prints the medians of n lives of which some are led at a time.
func (r *rig) compare(what string, workers, n int, life func(name string) (up, down time.Duration)) {
	var mu sync.Mutex
	var ups, downs []time.Duration
	next := make(chan int)
	var wg sync.WaitGroup
	start := time.Now()
	for range workers {
		wg.Go(func() {
			for i := range next {
				up, down := life(fmt.Sprintf("m%d-%d", workers, i))
				mu.Lock()
				ups, downs = append(ups, up), append(downs, down)
				mu.Unlock()
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	took := time.Since(start)
	slices.Sort(ups)
	slices.Sort(downs)
	r.t.Logf("| %-44s | %6.1f ms | %8.1f ms | %7.1f |", what, ms(ups[len(ups)/2]), ms(downs[len(downs)/2]), float64(n)/took.Seconds())
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// create makes a volume by the controller.
func (r *rig) create(name string) (vol, map[string]string) {
	ctx, cancel := r.ctx()
	defer cancel()
	v := vol{}
	resp, err := r.ctrl.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: name, VolumeCapabilities: []*csi.VolumeCapability{v.capability()}})
	if err != nil {
		r.t.Errorf("create: %v", err)
		return v, nil
	}
	v.id = resp.GetVolume().GetVolumeId()
	return v, resp.GetVolume().GetVolumeContext()
}

func (r *rig) remove(v vol) {
	ctx, cancel := r.ctx()
	defer cancel()
	if _, err := r.ctrl.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: v.id}); err != nil {
		r.t.Errorf("delete: %v", err)
	}
}

// bring stages and publishes a volume of the controller's.
func (r *rig) bring(v vol, dir string, attributes map[string]string) error {
	ctx, cancel := r.ctx()
	defer cancel()
	staging, target := filepath.Join(dir, "s"), filepath.Join(dir, "t")
	_, err := r.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: v.id, StagingTargetPath: staging, VolumeCapability: v.capability(), VolumeContext: attributes})
	if err != nil {
		return err
	}
	_, err = r.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{VolumeId: v.id, StagingTargetPath: staging, TargetPath: target, VolumeCapability: v.capability(), VolumeContext: attributes})
	return err
}

func (r *rig) fetch(v vol, dir string) error {
	ctx, cancel := r.ctx()
	defer cancel()
	if _, err := r.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.id, TargetPath: filepath.Join(dir, "t")}); err != nil {
		return err
	}
	_, err := r.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: v.id, StagingTargetPath: filepath.Join(dir, "s")})
	return err
}

// life is a volume's, from its creation to its deletion.
func (r *rig) life(name string) (up, down time.Duration) {
	dir, start := filepath.Join(r.dir, name), time.Now()
	v, attributes := r.create(name)
	if err := r.bring(v, dir, attributes); err != nil {
		r.t.Errorf("bring: %v", err)
	}
	up, start = time.Since(start), time.Now()
	if err := r.fetch(v, dir); err != nil {
		r.t.Errorf("fetch: %v", err)
	}
	r.remove(v)
	return up, time.Since(start)
}

// plain is the same by hand: without a marker, without a record, and a deletion that
// removes an empty directory.
func (r *rig) plain(share, name string) (up, down time.Duration) {
	dir, start := filepath.Join(r.dir, "p"+name), time.Now()
	s, p := filepath.Join(dir, "s"), filepath.Join(dir, "t")
	for _, d := range []string{filepath.Join(share, "p"+name), dir, s, p} {
		if err := os.Mkdir(d, 0o755); err != nil {
			r.t.Error(err)
		}
	}
	if err := tool("mount.nfs", "127.0.0.1:/p"+name, s, "-o", "vers=4.2"); err != nil {
		r.t.Error(err)
	}
	if err := syscall.Mount(s, p, "", syscall.MS_BIND, ""); err != nil {
		r.t.Error(err)
	}
	up, start = time.Since(start), time.Now()
	for _, d := range []string{p, s} {
		if err := syscall.Unmount(d, 0); err != nil {
			r.t.Error(err)
		}
	}
	for _, d := range []string{p, s, dir, filepath.Join(share, "p"+name)} {
		if err := os.Remove(d); err != nil {
			r.t.Error(err)
		}
	}
	return up, time.Since(start)
}

// thousand volumes on one share, all published on one node.
func (r *rig) thousand() {
	const n = 1000
	type held struct {
		v          vol
		attributes map[string]string
	}
	all := make([]held, n)
	each := func(what string, f func(i int)) {
		start := time.Now()
		next := make(chan int)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for i := range next {
					f(i)
				}
			})
		}
		for i := range n {
			next <- i
		}
		close(next)
		wg.Wait()
		r.t.Logf("| %-44s | %6.2f s | %6.1f ms each |", what, time.Since(start).Seconds(), ms(time.Since(start)/n))
	}
	dir := func(i int) string { return filepath.Join(r.dir, fmt.Sprintf("k%d", i)) }
	ok := func(err error) {
		if err != nil {
			r.t.Error(err)
		}
	}
	r.t.Logf("| 1,000 volumes on one share, 16 at a time     |")
	each("create", func(i int) { all[i].v, all[i].attributes = r.create(fmt.Sprintf("k%d", i)) })
	each("stage and publish", func(i int) { ok(r.bring(all[i].v, dir(i), all[i].attributes)) })
	each("figures (NodeGetVolumeStats)", func(i int) {
		ctx, cancel := r.ctx()
		defer cancel()
		_, err := r.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: all[i].v.id, VolumePath: filepath.Join(dir(i), "t")})
		ok(err)
	})
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.t.Context()), time.Minute)
	defer cancel()
	list, err := r.ctrl.ListVolumes(ctx, &csi.ListVolumesRequest{})
	ok(err)
	r.t.Logf("| %-44s | %6.2f s | %d entries |", "ListVolumes", time.Since(start).Seconds(), len(list.GetEntries()))
	up, down := r.life("one-more")
	r.t.Logf("| %-44s | up %.1f ms, down %.1f ms |", "one more volume", ms(up), ms(down))
	each("unpublish and unstage", func(i int) { ok(r.fetch(all[i].v, dir(i))) })
	each("delete", func(i int) { r.remove(all[i].v) })
}
