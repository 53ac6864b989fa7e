package loopfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/backendtest"
	"github.com/csikit/csikit/backends/internal/iolimit"
	"github.com/csikit/csikit/backends/internal/iolimit/iolimittest"
	"github.com/csikit/csikit/internal/testenv"
)

// TestLimitsOfLoop: they come with the loop device and go with it, and another
// process finds them again.
func TestLimitsOfLoop(t *testing.T) {
	testenv.Root(t)
	o, f := testOptions(t), &iolimittest.Fake{}
	b := withLimits(t, o, f)
	if err := b.RecoverNode(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	v := create(t, b, "v", mib, paramType, typeThin, "read-bps", "1Mi")
	src := openIt(t, b, v.ID, nil)
	want := iolimit.Limits{1 << 20}
	on := func(when string, want ...iolimit.Limits) {
		t.Helper()
		if got := f.Some(); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	on("opened", want)
	if err := modify(t, b, v.ID, "write-iops", "100"); err != nil {
		t.Fatal(err)
	}
	want = iolimit.Limits{1 << 20, 0, 0, 100}
	on("modified", want)
	// Written down and not applied: UNAVAILABLE, so that it is asked for again.
	f.Broken = errors.New("I/O error")
	if err := modify(t, b, v.ID, "write-bps", "1Mi"); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("not applied: %v", err)
	}
	f.Broken = nil
	if err := modify(t, b, v.ID, "write-bps", "1Mi"); err != nil {
		t.Fatal(err)
	}
	want[1] = 1 << 20
	on("asked for again", want)
	ill := func(want ...string) {
		t.Helper()
		bad, err := b.NodeVolumeHealth(t.Context(), backends.NodeHealthRequest{ID: v.ID, State: src.State})
		var got []string
		for _, h := range bad {
			got = append(got, h.Reason)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("health %+v, %v", bad, err)
		}
	}
	ill()
	// The cgroup is made anew, and then the driver starts anew.
	f.Forget()
	ill(reasonLimits)
	b.Close()
	b = withLimits(t, o, f)
	if err := b.RecoverNode(t.Context(), []backends.OpenVolume{{ID: v.ID, State: src.State}}); err != nil {
		t.Fatal(err)
	}
	on("restarted", want)
	// In use, it stays, with its limits.
	held, err := os.Open(src.Device.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.CloseVolume(t.Context(), backends.CloseVolumeRequest{ID: v.ID, State: src.State}); !errors.Is(err, backends.ErrInUse) {
		t.Errorf("closed in use: %v", err)
	}
	held.Close()
	on("still open", want)
	closeIt(t, b, v.ID, src.State)
	on("closed")
	// What a loop device was left with is not the next volume's.
	dev := "7:" + filepath.Base(src.Device.Path)[len("loop"):]
	f.Set(dev, want)
	other := create(t, b, "other", mib, paramType, typeThin)
	src = openIt(t, b, other.ID, nil)
	if src.Device.Path == "/dev/loop"+dev[len("7:"):] {
		on("another volume")
	}
	closeIt(t, b, other.ID, src.State)
	// Limits that nobody can keep are no limits: the volume is not opened.
	f.Missing = fmt.Errorf("%w: no io.max", backends.ErrPrecondition)
	if _, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("opened without its limits: %v", err)
	}
	closeIt(t, b, v.ID, nil)
	b.Close()
	o.Cgroup = ""
	b = openNode(t, o)
	if _, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("opened without Options.Cgroup: %v", err)
	}
	closeIt(t, b, v.ID, nil)
}

func TestKilledModify(t *testing.T) {
	testenv.Root(t)
	b := withLimits(t, testOptions(t), &iolimittest.Fake{})
	v := create(t, b, "v", mib, paramType, typeThin)
	b.Close()
	runKilled(t, order{Pool: b.o.Pool, Op: "modify", ID: v.ID, KillAt: "loopfile.modify.saved"})
	b = withLimits(t, b.o, &iolimittest.Fake{})
	wantMutable(t, b, v.ID, map[string]string{"read-bps": "1Mi"})
}

// newCgroup makes a cgroup whose I/O can be limited, in the VM.
func newCgroup(t *testing.T) iolimit.Cgroup {
	t.Helper()
	const root = "/sys/fs/cgroup"
	if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+io +memory"), 0); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "pods-"+t.Name())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return iolimit.Cgroup(dir)
}

// ddIn runs dd with direct I/O as a process of a cgroup.
func ddIn(t *testing.T, dir string, args ...string) time.Duration {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c := exec.Command("dd", append(args, "status=none")...)
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(d.Fd())}
	start := time.Now()
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("dd %q: %v\n%s", args, err, out)
	}
	return time.Since(start)
}

// TestLimitsInVM measures. What is limited takes 2 s by its limit and milliseconds
// without, and what tells them apart is whether it takes 1 s.
func TestLimitsInVM(t *testing.T) {
	if !testenv.InVM(t, "1G") {
		return
	}
	pods := newCgroup(t)
	pod := filepath.Join(string(pods), "pod") // of which nobody told the driver
	if err := os.Mkdir(pod, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(pod)
	pool := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(pool, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.xfs", "-q", "/dev/ubdb")
	run(t, "mount", "/dev/ubdb", pool)
	defer run(t, "umount", pool)
	o := testOptions(t)
	o.Pool, o.Cgroup = pool, string(pods)
	b := openNode(t, o)
	v := create(t, b, "v", 16*mib, paramType, typeThick, "write-bps", "512Ki")
	other := create(t, b, "other", 16*mib, paramType, typeThick)
	src, free := openIt(t, b, v.ID, nil), openIt(t, b, other.ID, nil)
	ioOf := map[string]func(dev string) []string{
		"write-bps": func(dev string) []string {
			return []string{"if=/dev/zero", "of=" + dev, "bs=64k", "count=16", "oflag=direct"}
		},
		"read-bps": func(dev string) []string {
			return []string{"if=" + dev, "of=/dev/null", "bs=64k", "count=16", "iflag=direct"}
		},
		"write-iops": func(dev string) []string {
			return []string{"if=/dev/zero", "of=" + dev, "bs=4k", "count=100", "oflag=direct"}
		},
		"read-iops": func(dev string) []string {
			return []string{"if=" + dev, "of=/dev/null", "bs=4k", "count=100", "iflag=direct"}
		},
	}
	const line = time.Second
	slow := func(when, what, dev string) {
		t.Helper()
		if d := ddIn(t, pod, ioOf[what](dev)...); d < line {
			t.Errorf("%s: %s is not limited: %v", when, what, d)
		} else {
			t.Logf("%s: %s took %v", when, what, d)
		}
	}
	fastIn := func(cgroup, when, what, dev string) {
		t.Helper()
		d := ddIn(t, cgroup, ioOf[what](dev)...)
		for try := 0; d >= line && try < 3; try++ { // a VM that was kept waiting
			d = ddIn(t, cgroup, ioOf[what](dev)...)
		}
		if d >= line {
			t.Errorf("%s: %s is limited: %v", when, what, d)
		} else {
			t.Logf("%s: %s took %v", when, what, d)
		}
	}
	fast := func(when, what, dev string) { t.Helper(); fastIn(pod, when, what, dev) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	slow("created with a limit", "write-bps", src.Device.Path)
	fast("created with a limit", "read-bps", src.Device.Path)
	fast("another volume", "write-bps", free.Device.Path)
	fastIn("/sys/fs/cgroup", "a process of another cgroup", "write-bps", src.Device.Path)
	must(modify(t, b, v.ID, "write-bps", "max", "read-bps", "524288"))
	fast("lifted", "write-bps", src.Device.Path)
	slow("modified", "read-bps", src.Device.Path)
	must(modify(t, b, v.ID, "read-bps", "0", "write-iops", "50"))
	slow("modified", "write-iops", src.Device.Path)
	must(modify(t, b, v.ID, "write-iops", "0", "read-iops", "50"))
	slow("modified", "read-iops", src.Device.Path)
	fast("modified", "write-iops", src.Device.Path)
	closeIt(t, b, v.ID, src.State)
	if got, err := os.ReadFile(pods.File()); err != nil || len(bytes.TrimSpace(got)) != 0 {
		t.Errorf("closed: io.max %q, %v", got, err)
	}
	b.Close()
	b = openNode(t, o, backends.OpenVolume{ID: other.ID, State: free.State})
	src = openIt(t, b, v.ID, nil)
	slow("opened again", "read-iops", src.Device.Path)
	// Driver restarted, cgroup lost its limits meanwhile.
	dev, err := iolimit.Number(src.Device.Path)
	must(err)
	b.Close()
	must(pods.Set(dev, iolimit.Limits{}))
	b = openNode(t, o, backends.OpenVolume{ID: other.ID, State: free.State}, backends.OpenVolume{ID: v.ID, State: src.State})
	slow("restarted", "read-iops", src.Device.Path)
	fast("another volume", "read-iops", free.Device.Path)
	closeIt(t, b, v.ID, src.State)
	closeIt(t, b, other.ID, free.State)
	b.Close()
	// The root cannot be limited, nor a cgroup whose parent does not let it.
	for _, dir := range []string{"/sys/fs/cgroup", pod} {
		if err := iolimit.Cgroup(dir).Check(); !errors.Is(err, backends.ErrPrecondition) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestConformanceWithLimitsInVM(t *testing.T) {
	if testenv.InVM(t) {
		backendtest.Run(t, conformance(true, false, ControllerHalf|NodeHalf, newCgroup(t)))
	}
}
