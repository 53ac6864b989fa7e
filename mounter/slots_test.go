package mounter_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mountertest"
)

// slowTools is a kernel whose tools end when they are told to.
type slowTools struct {
	mounter.Kernel
	mu       sync.Mutex
	running  int
	most     int
	finished chan struct{}
}

func (k *slowTools) slow() {
	k.mu.Lock()
	k.running++
	k.most = max(k.most, k.running)
	k.mu.Unlock()
	<-k.finished
	k.mu.Lock()
	k.running--
	k.mu.Unlock()
}

func (k *slowTools) Mkfs(ctx context.Context, d mounter.Device, fsType string, options []string) error {
	k.slow()
	return k.Kernel.Mkfs(ctx, d, fsType, options)
}

func (k *slowTools) Check(ctx context.Context, d mounter.Device, fsType string, force bool) error {
	k.slow()
	return k.Kernel.Check(ctx, d, fsType, force)
}

// waiting counts the operations that say why they stand still.
type waiting struct {
	mu sync.Mutex
	n  int
}

func (*waiting) Progress(string) {}

func (w *waiting) Busy(string) func() {
	w.add(1)
	return func() { w.add(-1) }
}

func (w *waiting) add(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n += n
	return w.n
}

// diskNode has a disk for each volume.
type diskNode struct{}

func (diskNode) OpenVolume(_ context.Context, req backends.OpenVolumeRequest) (*backends.Source, error) {
	return &backends.Source{Device: &backends.Device{Path: "/dev/" + req.ID, Identity: backends.Identity{Unverified: "a test"}}}, nil
}

func (diskNode) CloseVolume(context.Context, backends.CloseVolumeRequest) error { return nil }

// TestToolsAtOnce: of many stages no more than two run an mkfs or a check, the
// others say that they wait, and one whose caller has gone does not wait on.
func TestToolsAtOnce(t *testing.T) {
	for _, fsck := range []bool{false, true} {
		t.Run(fmt.Sprintf("fsck=%v", fsck), func(t *testing.T) {
			dir := t.TempDir()
			testenv.Bubble(t, func(t *testing.T) { toolsAtOnce(t, dir, fsck) })
		})
	}
}

func toolsAtOnce(t *testing.T, dir string, fsck bool) {
	const volumes = 6
	fake := mountertest.NewKernel()
	kernel := &slowTools{Kernel: fake, finished: make(chan struct{})}
	e := mountertest.New(t, diskNode{}, &mountertest.Options{
		StateDir: filepath.Join(dir, "state"), Kernel: fake, Adjust: func(o *mounter.Options) { o.Kernel, o.MaxTools = kernel, 2 },
	})
	w := &waiting{}
	ctx := backends.WithActivity(t.Context(), w)
	gone, leave := context.WithCancel(ctx)
	results := make(chan error, volumes)
	for i := range volumes {
		id, ctx := fmt.Sprintf("v%d", i), ctx
		if i == volumes-1 {
			synctest.Wait() // so that it has to wait
			ctx = gone
		}
		if fsck {
			d := fake.AddDisk("/dev/"+id, 1<<30, backends.Identity{})
			d.SetContent(blockdev.Content{State: blockdev.Filesystem, Type: "ext4", Size: 1 << 30, Errors: true})
		}
		go func() {
			results <- e.Stage(ctx, mounter.StageRequest{
				ID: id, Path: filepath.Join(dir, id), Capability: backends.Capability{Mode: backends.SingleNodeWriter},
			})
		}()
	}
	synctest.Wait()
	if n := w.add(0); n != volumes-2 {
		t.Errorf("%d wait and say so, want %d", n, volumes-2)
	}
	leave()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("whose caller has gone got %v", err)
	}
	for range volumes - 1 {
		kernel.finished <- struct{}{}
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if kernel.most != 2 || kernel.running != 0 {
		t.Errorf("%d tools at once, %d left", kernel.most, kernel.running)
	}
}
