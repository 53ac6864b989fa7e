package csidriver

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/idempotency"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
)

// busyEngine takes its time for each publish, and so many at once, in the order in
// which they come.
type busyEngine struct {
	*fakeEngine
	queue *idempotency.Queue
	each  time.Duration

	mu    sync.Mutex
	waits map[string]time.Duration // by target: from the call to the beginning of its work
}

type cameKey struct{}

func (e *busyEngine) Publish(ctx context.Context, r mounter.PublishRequest) error {
	leave, err := e.queue.Enter(ctx, "mounts")
	if err != nil {
		return err
	}
	defer leave()
	came, _ := ctx.Value(cameKey{}).(time.Time)
	e.mu.Lock()
	e.waits[r.Path] = time.Since(came)
	e.mu.Unlock()
	time.Sleep(e.each)
	return nil
}

// fairNode is a node half over a busyEngine, without a server.
func fairNode(t *testing.T, e *busyEngine) *node {
	t.Helper()
	b := newMemory()
	d, err := New(Config{Name: "memory.csikit.dev", Version: "v1", Traits: memoryTraits(), Controller: b, Node: b},
		&Options{NodeID: "node-1", Engine: e, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.server.grpc.Stop) // ends its workers
	return newNode(d)
}

// TestThousandPublishes: a thousand publishes of one volume to a thousand targets,
// and a thousand volumes, all at once, take as long as the engine takes for them,
// are served in the order in which they came, and none waits for more than twice
// the median.
func TestThousandPublishes(t *testing.T) {
	const n, side, each = 1000, 20, 5 * time.Millisecond
	for name, volume := range map[string]func(i int) (id string){
		"one volume":   func(int) string { return "v" },
		"many volumes": func(i int) string { return fmt.Sprint("v-", i) },
		"both":         func(i int) string { return fmt.Sprint("v-", max(0, i%2*i)) },
	} {
		t.Run(name, func(t *testing.T) {
			testenv.Bubble(t, func(t *testing.T) {
				e := &busyEngine{fakeEngine: newFakeEngine(), queue: idempotency.NewQueue(&idempotency.QueueOptions{Limit: side}), each: each, waits: make(map[string]time.Duration)}
				nodes, begin := fairNode(t, e), time.Now()
				var calls sync.WaitGroup
				for i := range n {
					req := publishReq(volume(i), "/staging", fmt.Sprintf("/pods/%d", i))
					calls.Go(func() {
						if _, err := nodes.NodePublishVolume(context.WithValue(t.Context(), cameKey{}, time.Now()), req); err != nil {
							t.Error(err)
						}
					})
					synctest.Wait()
				}
				calls.Wait()
				if took := time.Since(begin); took != n/side*each {
					t.Errorf("took %v; the engine takes %v", took, n/side*each)
				}
				for i := range n {
					if got, turn := e.waits[fmt.Sprintf("/pods/%d", i)], time.Duration(i/side)*each; got != turn {
						t.Fatalf("call %d waited for %v; its turn came after %v", i, got, turn)
					}
				}
				waits := slices.Sorted(maps.Values(e.waits))
				if median, most := (waits[(n-1)/2]+waits[n/2])/2, waits[n-1]; most > 2*median {
					t.Errorf("one waited for %v, the median %v", most, median)
				}
				if left := nodes.operations.Running(); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
		})
	}
}

// TestKeepsNothingOfVolumes: whatever has come and gone, the driver keeps nothing.
func TestKeepsNothingOfVolumes(t *testing.T) {
	e := &busyEngine{fakeEngine: newFakeEngine()}
	nodes := fairNode(t, e)
	use := func(from, to int) {
		for i := from; i < to; i++ {
			id, target := fmt.Sprint("v-", i), fmt.Sprint("/pods/", i)
			_, err := nodes.NodeStageVolume(t.Context(), stageReq(id, "/staging/"+id))
			if err == nil {
				_, err = nodes.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: target})
			}
			if err == nil {
				_, err = nodes.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: "/staging/" + id})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	const n = 50_000
	use(0, 1000)
	before := liveHeap()
	use(1000, n)
	// One byte for each of the keys of an ID would be three times that.
	if after := liveHeap(); after > before+n {
		t.Errorf("%d bytes more after %d volumes", after-before, n)
	}
	runtime.KeepAlive(nodes)
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
