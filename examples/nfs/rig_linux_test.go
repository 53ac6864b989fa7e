package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/internal/driverproc"
)

// What follows runs in the VM, with the kernel's own NFS server and client.

const (
	export  = "/srv/export" // where the server has its disk; server:/ for clients
	timeout = 30 * time.Second
)

// nfsd runs test/vm/nfsd.sh.
func nfsd(t testing.TB, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "../../test/vm/nfsd.sh", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nfsd.sh %v: %v\n%s", args, err, out)
	}
}

// serve starts the server with a disk of the VM.
func serve(t testing.TB, dev, fs string) {
	t.Helper()
	nfsd(t, "setup", dev, fs)
	t.Cleanup(func() {
		if out, err := exec.Command("../../test/vm/nfsd.sh", "end").CombinedOutput(); err != nil {
			t.Errorf("nfsd.sh end: %v\n%s", err, out)
		}
	})
}

// serving reports whether the server runs.
func serving() bool {
	b, err := os.ReadFile("/proc/fs/nfsd/threads")
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

// rig is a driver as a process, with volumes that were made by hand.
type rig struct {
	t    testing.TB
	dir  string // short-lived things of the node, in memory
	disk string // of the node
	proc *driverproc.Process
	node csi.NodeClient
	ctrl csi.ControllerClient
}

// disk makes a file system for the state of the node, which must not lie in memory.
func disk(t testing.TB, dev string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{{"mkfs.ext4", "-q", "-F", dev}, {"mount", dev, dir}} {
		if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	return dir
}

func newRig(t testing.TB, state string, args ...string) *rig {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := &rig{t: t, dir: dir, disk: state}
	sock := filepath.Join(dir, "csi.sock")
	args = append([]string{exe, "-endpoint", "unix://" + sock, "-state-dir", filepath.Join(state, "nfs"), "-node-id", "node-1"}, args...)
	r.proc = &driverproc.Process{Argv: args, Env: []string{envDriver + "=1"}, Socket: sock, Log: filepath.Join(dir, "log")}
	if err := r.proc.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.node, r.ctrl = csi.NewNodeClient(r.proc.Conn()), csi.NewControllerClient(r.proc.Conn())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the driver's log:\n%s", r.proc.Tail(14))
		}
		if err := r.proc.Close(); err != nil {
			t.Errorf("stop: %v", err)
		}
		_ = exec.Command("sh", "-c", "umount -l "+dir+"/*/* "+dir+"/* 2>/dev/null").Run()
	})
	return r
}

// vol is a volume on the node.
type vol struct {
	id, subDir string
	share      string // "": /
	options    string // of the class
	mode       csi.VolumeCapability_AccessMode_Mode
	group      string
	flags      []string
}

func (v vol) capability() *csi.VolumeCapability {
	mode := v.mode
	if mode == 0 {
		mode = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	}
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{MountFlags: v.flags, VolumeMountGroup: v.group}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
	}
}

func (v vol) context() map[string]string {
	return map[string]string{"server": "127.0.0.1", "share": cmp.Or(v.share, "/"), "subDir": v.subDir, "mountOptions": v.options}
}

func (r *rig) staging(v vol) string { return filepath.Join(r.dir, v.id, "globalmount") }
func (r *rig) target(v vol, pod int) string {
	return filepath.Join(r.dir, v.id, fmt.Sprintf("pod%d", pod))
}
func (r *rig) ctx() (context.Context, func()) {
	return context.WithTimeout(context.WithoutCancel(r.t.Context()), timeout)
}

func (r *rig) stage(v vol) error {
	ctx, cancel := r.ctx()
	defer cancel()
	_, err := r.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: v.id, StagingTargetPath: r.staging(v), VolumeCapability: v.capability(), VolumeContext: v.context(),
	})
	return err
}

func (r *rig) publish(v vol, pod int, readOnly bool) error {
	ctx, cancel := r.ctx()
	defer cancel()
	_, err := r.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: v.id, StagingTargetPath: r.staging(v), TargetPath: r.target(v, pod), VolumeCapability: v.capability(),
		VolumeContext: v.context(), Readonly: readOnly,
	})
	return err
}

func (r *rig) unpublish(v vol, pod int) error {
	ctx, cancel := r.ctx()
	defer cancel()
	_, err := r.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.id, TargetPath: r.target(v, pod)})
	return err
}

func (r *rig) unstage(v vol) error {
	ctx, cancel := r.ctx()
	defer cancel()
	_, err := r.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: v.id, StagingTargetPath: r.staging(v)})
	return err
}

func (r *rig) stats(v vol, pod int) (*csi.NodeGetVolumeStatsResponse, error) {
	ctx, cancel := r.ctx()
	defer cancel()
	return r.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: v.id, VolumePath: r.target(v, pod), StagingTargetPath: r.staging(v)})
}

// ails are the reasons in a volume's health.
func (r *rig) ails(v vol, pod int) (string, error) {
	ctx, cancel := r.ctx()
	defer cancel()
	resp, err := r.node.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: v.id, VolumePublishPath: r.target(v, pod), StagingTargetPath: r.staging(v)})
	if err != nil {
		return "", err
	}
	var list []string
	for _, h := range resp.GetVolumeHealth().GetHealthStatuses() {
		list = append(list, h.GetReason())
	}
	return strings.Join(list, ","), nil
}

// up stages a volume and publishes it once, with a directory on the server.
func (r *rig) up(v vol) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Join(export, v.subDir), 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.must(r.stage(v))
	r.must(r.publish(v, 1, false))
}

func (r *rig) down(v vol) {
	r.t.Helper()
	r.must(r.unpublish(v, 1))
	r.must(r.unstage(v))
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// timed prints how long a call took and what it answered, and holds it to both. What is
// held to quick is made again if it was slow, for the VM may have been kept waiting: such
// a call changes nothing and knows already what it could find out.
func (r *rig) timed(what string, want codes.Code, most time.Duration, f func() error) {
	r.t.Helper()
	for try := 1; ; try++ {
		start := time.Now()
		err := f()
		took := time.Since(start)
		if status.Code(err) == want && took > most && most == quick && try < 3 {
			r.t.Logf("%s: %v", what, took)
			continue
		}
		r.row(what, want, most, err, took)
		return
	}
}

// best is for what can be done once: the quickest of several, each with something else,
// is held to most, and all of them have to be done.
func (r *rig) best(what string, most time.Duration, n int, f func(i int) (time.Duration, error)) {
	r.t.Helper()
	least := time.Duration(math.MaxInt64)
	for i := range n {
		took, err := f(i)
		if err != nil {
			r.t.Errorf("%s, %d: %v after %s", what, i, err, took)
		}
		least = min(least, took)
	}
	r.row(what, codes.OK, most, nil, least)
}

func (r *rig) row(what string, want codes.Code, most time.Duration, err error, took time.Duration) {
	r.t.Helper()
	r.t.Logf("| %-44s | %-12s | %8.1f ms |", what, status.Code(err), float64(took.Microseconds())/1000)
	if status.Code(err) != want || took > most {
		r.t.Errorf("%s: %v after %s, want %s within %s", what, err, took, want, most)
	}
}

// lasts is how long a call takes.
func lasts(f func() error) (time.Duration, error) {
	start := time.Now()
	err := f()
	return time.Since(start), err
}

// ofDisk tells a wait for the node's own disk, which may be slow, from one for a server.
func ofDisk(stack string) bool {
	return strings.Contains(stack, "ext4") && !strings.Contains(stack, "nfs") && !strings.Contains(stack, "rpc")
}

// watch looks at each thread of the driver until stop is called, and reports those
// that waited uninterruptibly for more than a moment.
func (r *rig) watch() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	type seen struct {
		n     int
		where string
	}
	threads, looks := map[string]*seen{}, 0
	var once sync.Once
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			case <-time.After(20 * time.Millisecond):
			}
			looks++
			tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", r.proc.PID()))
			for _, task := range tasks {
				b, _ := os.ReadFile(task + "/stat") // a thread may end meanwhile
				_, rest, _ := strings.Cut(string(b), ") ")
				s := threads[task]
				if s == nil {
					s = &seen{}
					threads[task] = s
				}
				if !strings.HasPrefix(rest, "D") {
					s.n = 0
					continue
				}
				if s.n++; s.n > 5 && s.where == "" {
					stack, _ := os.ReadFile(task + "/stack")
					if s.where = string(stack); ofDisk(s.where) {
						s.n, s.where = 0, ""
					}
				}
			}
		}
	}()
	return func() {
		once.Do(func() { close(quit) })
		<-done
		for task, s := range threads {
			if s.where != "" {
				r.t.Errorf("thread %s of the driver was in D state for longer than 100 ms:\n%s", task, s.where)
			}
		}
		r.t.Logf("looked %d times at %d threads of the driver", looks, len(threads))
	}
}

// workers are the driver's processes for what may hang.
func (r *rig) workers() (pids []string) {
	out, _ := exec.Command("pgrep", "-P", fmt.Sprint(r.proc.PID())).Output() // none is no error here
	return strings.Fields(string(out))
}
