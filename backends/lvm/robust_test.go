package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/backends/lvm/internal/vgda"
	"github.com/csikit/csikit/internal/testenv"
)

// untilReady gives a script that hangs more and more time until it has come to where it
// does, which it says with a line in a file.
func untilReady(t *testing.T, ready string, limit *time.Duration, run func()) (line string) {
	t.Helper()
	for *limit = 100 * time.Millisecond; *limit < time.Minute; *limit *= 2 {
		run()
		if b, err := os.ReadFile(ready); err == nil && strings.HasSuffix(string(b), "\n") {
			return strings.TrimSpace(string(b))
		}
	}
	t.Fatal("the script does not start")
	return ""
}

// A writer of metadata that hangs is asked to end, and has the time to finish what
// it writes.
func TestWriterIsInterrupted(t *testing.T) {
	dir := t.TempDir()
	written, ready := filepath.Join(dir, "written"), filepath.Join(dir, "ready")
	tl := script(t, "trap 'kill $!; sleep 0.2; echo > "+written+"; exit 5' TERM; sleep 1000 & echo > "+ready+"; wait")
	untilReady(t, ready, &tl.idle, func() {
		if err := os.Remove(written); err != nil && !os.IsNotExist(err) { // of a run that was not ready
			t.Fatal(err)
		}
		if err := tl.change(t.Context(), testVG, "lvchange"); err == nil || said(err, "") {
			t.Errorf("as if it had ended by itself: %v", err)
		}
	})
	if _, err := os.Stat(written); err != nil {
		t.Errorf("it was killed over what it wrote: %v", err)
	}
}

// What does not end is killed, with all that it has started.
func TestReportThatHangs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	tl := script(t, "trap '' TERM; sleep 1000 & echo $! > "+file+"; wait; wait")
	pid := untilReady(t, file, &tl.report, func() {
		if _, err := tl.read(t.Context(), testVG, "lvs"); !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("%v", err)
		}
	})
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Error("its child is still there")
}

// hung is an lvm of which nothing comes back before it is let go.
type hung struct {
	f  map[string]*fakeVG
	mu sync.Mutex
	// at are the writers that run, by VG, and most how many there were at a time.
	at, most map[string]int
	hold     chan struct{}
	refuse   string // a VG whose commands are refused, as the breaker does
	scopes   []string
}

func (h *hung) Run(ctx context.Context, c command.Cmd) (command.Result, error) {
	h.mu.Lock()
	h.scopes = append(h.scopes, c.Scope)
	if c.Scope == h.refuse {
		h.mu.Unlock()
		return command.Result{Code: -1}, fmt.Errorf("%w: 3 processes hang", backends.ErrUnavailable)
	}
	change := slices.Contains(c.Args, "--yes")
	if change {
		h.at[c.Scope]++
		h.most[c.Scope] = max(h.most[c.Scope], h.at[c.Scope])
	}
	h.mu.Unlock()
	if change {
		<-h.hold
	}
	res, err := h.f[c.Scope].Run(ctx, c)
	if change {
		h.mu.Lock()
		h.at[c.Scope]--
		h.mu.Unlock()
	}
	return res, err
}

func onHung(t *testing.T) (*hung, *Backend) {
	t.Helper()
	h := &hung{f: map[string]*fakeVG{}, at: map[string]int{}, most: map[string]int{}, hold: make(chan struct{})}
	o := Options{Driver: "lvm.csikit.dev", Node: "node-1"}
	for _, vg := range []string{"vga", "vgb"} {
		h.f[vg] = newFake()
		h.f[vg].name = vg
		o.Classes = append(o.Classes, Class{Name: vg, VG: vg})
	}
	b := onFake(t, h.f["vga"], o)
	b.tool.run = h
	return h, b
}

// Changes of one VG come one after the other; another VG does not wait for them.
func TestQueueOfEachVG(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		h, b := onHung(t)
		var all sync.WaitGroup
		for i := range 6 {
			vg := []string{"vga", "vgb"}[i%2]
			all.Go(func() {
				if _, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: fmt.Sprint(i), Size: 1, Parameters: map[string]string{paramClass: vg}}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		h.mu.Lock()
		if h.at["vga"] != 1 || h.at["vgb"] != 1 {
			t.Errorf("at work: %v", h.at)
		}
		h.mu.Unlock()
		close(h.hold)
		all.Wait()
		if h.most["vga"] != 1 || h.most["vgb"] != 1 {
			t.Errorf("at a time: %v", h.most)
		}
	})
}

// Where lvm hangs nobody waits for it any more, and the other VG goes on.
func TestLVMHangs(t *testing.T) {
	h, b := onHung(t)
	close(h.hold)
	v := createVolume(t, b, "a", "vga", 1)
	h.refuse = "vga"
	for what, err := range map[string]error{
		"create": create("b", "vga")(t, b),
		"delete": b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}),
		"look":   second(b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID})),
		"open":   second(b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID})),
		"modify": modify(t, b, v.ID, paramReadAhead, "1Mi"),
		"expand": second(b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 1 << 30})),
	} {
		if !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := b.Probe(t.Context()); !errors.Is(err, backends.ErrNotReady) {
		t.Errorf("probe: %v", err)
	}
	createVolume(t, b, "c", "vgb", 1)
	h.refuse = ""
	if err := b.DeleteVolume(t.Context(), backends.DeleteVolumeRequest{ID: v.ID}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if slices.Contains(h.scopes, "") {
		t.Error("a command is of no VG: the breaker would stop all of them")
	}
}

// direct is the kernel of a fakeVG that can be asked without lvm.
type direct struct{ *fakeVG }

func (direct) used(string) (int, error) { return 0, nil }
func (direct) pool(string) (data, meta float64, health string, err error) {
	return 0, 0, "", nil
}

// A disk that hangs holds up nobody but the one that reads it: lvm is asked, which can
// be killed.
func TestDiskHangs(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		f := newFake()
		b := onFake(t, f, optionsFor("linear"))
		b.kernel = direct{f}
		b.known(testVG).paths = map[string]string{"x": "/dev/hung"}
		hang := make(chan struct{})
		b.lookAt = func(string) (*vgda.Copy, error) {
			<-hang
			return nil, errors.New("no such disk")
		}
		look := func() time.Duration {
			t.Helper()
			start := time.Now()
			if _, _, err := b.ListVolumes(t.Context(), backends.ListVolumesRequest{}); err != nil {
				t.Error(err)
			}
			return time.Since(start)
		}
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if d := look(); d > patience+time.Second {
					t.Errorf("the first wait for %v", d)
				}
			})
		}
		all.Wait()
		before := len(f.commands)
		if d := look(); d != 0 || f.count(before, "lvs") != 1 {
			t.Errorf("the second waits for %v, %q", d, f.commands[before:])
		}
		close(hang)
		synctest.Wait()
		if b.known(testVG).stuck.Load() {
			t.Error("it is not asked again when it has answered")
		}
	})
}
