package mounter_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mountertest"
)

// clinging is a kernel whose unmounts hang until they are let go, or forced.
type clinging struct {
	*mountertest.Kernel
	mu       sync.Mutex
	hang     bool // unmounts do
	deaf     bool // force and detach hang, too
	busy     bool
	let      chan struct{}
	unwinds  int
	forced   int
	detached int
}

func (k *clinging) set(hang, busy, deaf bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hang, k.busy, k.deaf = hang, busy, deaf
}

func (k *clinging) counts() (forced, detached int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.forced, k.detached
}

func (k *clinging) Unwind(path string) (int, error) {
	k.mu.Lock()
	hang, busy := k.hang, k.busy
	k.unwinds++
	k.mu.Unlock()
	if hang {
		<-k.let
	}
	if busy {
		return 0, errors.Join(backends.ErrInUse, unix.EBUSY)
	}
	return k.Kernel.Unwind(path)
}

func (k *clinging) harder(path string, count *int) (bool, error) {
	k.mu.Lock()
	deaf := k.deaf
	*count++
	k.mu.Unlock()
	if deaf {
		<-k.let
	}
	is, err := k.IsMountPoint(path)
	k.UnmountForeign(path)
	return is, err
}

func (k *clinging) Force(path string) (bool, error)  { return k.harder(path, &k.forced) }
func (k *clinging) Detach(path string) (bool, error) { return k.harder(path, &k.detached) }

// newClinging is an engine with a volume of that type, staged.
func newClinging(t *testing.T, fsType string, policy mounter.UnmountPolicy) (*rig, *clinging) {
	n := newNode()
	k := &clinging{Kernel: mountertest.NewKernel(), let: make(chan struct{})}
	r := &rig{t: t, node: n, dir: t.TempDir()}
	r.Engine = mountertest.New(t, n, &mountertest.Options{Kernel: k.Kernel, Adjust: func(o *mounter.Options) {
		o.Kernel, o.Unmount = k, policy
	}})
	r.disk = k.AddDisk("/dev/a", gib, backends.Identity{Serial: "A"})
	n.sources["v"] = &backends.Source{Device: &backends.Device{Path: "/dev/a", Identity: backends.Identity{Serial: "A"}}}
	if fsType != "ext4" {
		n.sources["v"] = &backends.Source{Mount: &backends.Mount{Source: "server:/v", FSType: fsType, Remote: true}}
	}
	r.staging, r.target = r.dir+"/staging", r.dir+"/pods/1/mount"
	req := r.stageRequest()
	req.Capability.FSType = ""
	must(t, r.Stage(t.Context(), req))
	return r, k
}

// TestUnmountLadder: how far an unmount goes that hangs, or is busy, by type and
// policy.
func TestUnmountLadder(t *testing.T) {
	for _, c := range []struct {
		name, fsType     string
		policy           mounter.UnmountPolicy
		busy, deaf       bool
		forced, detached int // at least
		ok               bool
	}{
		{"remote hangs: force", "nfs4", mounter.UnmountForce, false, false, 1, 0, true},
		{"FUSE hangs: force", "fuse.x", mounter.UnmountForce, false, false, 1, 0, true},
		{"remote hangs, policy only", "nfs4", mounter.UnmountOnly, false, false, 0, 0, false},
		{"disk hangs: nothing", "ext4", mounter.UnmountForce, false, false, 0, 0, false},
		{"disk hangs: not with lazy for remote", "ext4", mounter.UnmountLazyRemote, false, false, 0, 0, false},
		{"disk hangs: lazy when asked", "ext4", mounter.UnmountLazy, false, false, 0, 1, true},
		{"remote busy: not by force", "nfs4", mounter.UnmountForce, true, false, 0, 0, false},
		{"remote busy: lazy", "nfs4", mounter.UnmountLazyRemote, true, false, 0, 1, true},
		{"disk busy: not with lazy for remote", "ext4", mounter.UnmountLazyRemote, true, false, 0, 0, false},
		{"all of it hangs", "nfs4", mounter.UnmountLazyRemote, false, true, 1, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			testenv.Bubble(t, func(t *testing.T) {
				r, k := newClinging(t, c.fsType, c.policy)
				k.set(!c.busy, c.busy, c.deaf)
				err := r.Unstage(t.Context(), r.unstageRequest())
				if (err == nil) != c.ok {
					t.Errorf("%v", err)
				}
				if err != nil {
					wantKind(t, err, backends.ErrUnavailable)
				}
				forced, detached := k.counts()
				if (forced > 0) != (c.forced > 0) || (detached > 0) != (c.detached > 0) {
					t.Errorf("%d times forced, %d times detached", forced, detached)
				}
				if (r.mountsAt(r.staging) == 0) != c.ok {
					t.Errorf("%d mounts", r.mountsAt(r.staging))
				}
				if r.node.isOpen("v") == c.ok {
					t.Error("closed below its mount, or left open")
				}
				k.set(false, false, false)
				close(k.let)
				synctest.Wait()
				must(t, r.Unstage(t.Context(), r.unstageRequest()))
				if r.node.isOpen("v") {
					t.Error("left open")
				}
			})
		})
	}
}

// TestLazyEndsAtDisk: what is detached is what has a server, and not the volume of a
// disk on which somebody mounted it.
func TestLazyEndsAtDisk(t *testing.T) {
	r, k := newClinging(t, "ext4", mounter.UnmountLazyRemote)
	r.publish()
	must(t, k.Mount(t.Context(), mounter.MountRequest{Source: "server:/x", FSType: "nfs4", Target: r.target}))
	k.set(false, true, false)
	wantKind(t, r.Unpublish(t.Context(), r.unpublishRequest()), backends.ErrUnavailable)
	if _, detached := k.counts(); detached != 1 || r.mountsAt(r.target) != 1 {
		t.Errorf("%d times detached, %d mounts left", detached, r.mountsAt(r.target))
	}
	k.set(false, false, false)
	r.unpublish()
	r.unstage()
}

// TestHangingUnmountIsOne: however often the caller asks, and however short his
// deadlines are, there is one unmount, he hears of it before his deadline, and
// nothing is brought to the path meanwhile.
func TestHangingUnmountIsOne(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		r, k := newClinging(t, "ext4", mounter.UnmountForce)
		k.set(true, false, false)
		before := 0
		for i := range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			err := r.Unstage(ctx, r.unstageRequest())
			wantKind(t, err, backends.ErrUnavailable)
			if ctx.Err() != nil {
				t.Error("the answer came after the deadline")
			}
			if !strings.Contains(err.Error(), "unmount of "+r.staging) || !strings.Contains(err.Error(), "ext4") {
				t.Errorf("it does not say what hangs: %v", err)
			}
			cancel()
			synctest.Wait()
			if i == 0 {
				before = inBubble()
			}
		}
		if now := inBubble(); now > before || before < 2 || k.unwinds != 1 {
			t.Errorf("%d goroutines, and %d before; %d unmounts", now, before, k.unwinds)
		}
		req := r.stageRequest()
		req.Capability.FSType = ""
		wantKind(t, r.Stage(t.Context(), req), backends.ErrUnavailable)
		wantKind(t, r.Publish(t.Context(), r.publishRequest()), backends.ErrUnavailable)
		k.set(false, false, false)
		close(k.let)
		synctest.Wait()
		must(t, r.Unstage(t.Context(), r.unstageRequest()))
		if r.mountsAt(r.staging) != 0 || r.node.isOpen("v") {
			t.Error("something is left")
		}
	})
}

// inBubble counts the goroutines of the bubble that this one is in: what earlier tests
// and the runtime have beside it comes and goes.
func inBubble() int {
	trace := func(all bool) string {
		for b := make([]byte, 1<<20); ; b = make([]byte, 2*len(b)) {
			if n := runtime.Stack(b, all); n < len(b) {
				return string(b[:n])
			}
		}
	}
	self, _, _ := strings.Cut(trace(false), "\n") // goroutine 8 [running, synctest bubble 3]:
	_, bubble, _ := strings.Cut(self, "synctest ")
	return strings.Count(trace(true), "synctest "+bubble+"\n")
}

func TestUnmountPolicyIsChecked(t *testing.T) {
	_, err := mounter.New(newNode(), &mounter.Options{StateDir: "/x", Unmount: 9})
	wantKind(t, err, backends.ErrInvalid)
}

// TestUnstageNumberOfAnother: the disk was pulled, and its number is another
// volume's by now, which is mounted: no reason to keep the first one.
func TestUnstageNumberOfAnother(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	r.Kernel.UnmountForeign(r.staging)
	r.disk.Replace(backends.Identity{Serial: "B"})
	r.node.sources["w"] = &backends.Source{Device: &backends.Device{Path: "/dev/a", Identity: backends.Identity{Serial: "B"}}}
	req := r.stageRequest()
	req.ID, req.Path = "w", r.staging+"-w"
	must(t, r.Stage(t.Context(), req))
	r.unstage()
	if r.node.isOpen("v") || !r.node.isOpen("w") || r.mountsAt(req.Path) != 1 {
		t.Error("v is open, or w was touched")
	}
	must(t, r.Unstage(t.Context(), mounter.UnstageRequest{ID: "w", Path: req.Path}))
	r.clean()
}
