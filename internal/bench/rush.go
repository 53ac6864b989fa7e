package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/idempotency"
	"github.com/csikit/csikit/mounter"
)

// What a publish costs in a rush: its time, and how many a node does at once.
const (
	rushWork  = time.Millisecond
	rushAside = 64
)

// kubelet waits 500 ms after a failure, twice as long after each further one, and
// 2 min 2 s at most. The rush is a hundredth of one, in all that is waited for.
const (
	rushScale = 100
	firstWait = 500 * time.Millisecond / rushScale
	mostWait  = 122 * time.Second / rushScale
)

// rushEngine is a node engine whose publishes take their time.
type rushEngine struct {
	idleEngine
	queue *idempotency.Queue
}

func newRushEngine() *rushEngine {
	return &rushEngine{queue: idempotency.NewQueue(&idempotency.QueueOptions{Limit: rushAside})}
}

func (e *rushEngine) Publish(ctx context.Context, _ mounter.PublishRequest) error {
	leave, err := e.queue.Enter(ctx, "mounts")
	if err != nil {
		return err
	}
	defer leave()
	time.Sleep(rushWork)
	return nil
}

// locking is a driver by grpc-go alone that locks the volume for each publish.
type locking struct {
	idle
	engine *rushEngine
	lock   func(id string) (unlock func(), err error)
}

func (l *locking) NodePublishVolume(ctx context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	unlock, err := l.lock(r.GetVolumeId())
	if err != nil {
		return nil, status.Error(codes.Aborted, err.Error())
	}
	defer unlock()
	return &csi.NodePublishVolumeResponse{}, l.engine.Publish(ctx, mounter.PublishRequest{})
}

// mutexes waits for the volume.
func mutexes() func(string) (func(), error) {
	var all sync.Map
	return func(id string) (func(), error) {
		m, _ := all.LoadOrStore(id, new(sync.Mutex))
		mu := m.(*sync.Mutex)
		mu.Lock()
		return mu.Unlock, nil
	}
}

// tryLocks refuses a volume that is locked: drivers have these.
func tryLocks() func(string) (func(), error) {
	var all sync.Map
	return func(id string) (func(), error) {
		if _, is := all.LoadOrStore(id, true); is {
			return nil, errLocked
		}
		return func() { all.Delete(id) }, nil
	}
}

// rushes measures what comes when a node starts: a thousand pods of one volume, and
// a thousand volumes.
func rushes(ctx context.Context, c config, dir string) (t *table, err error) {
	servers, err := rushServers(ctx, dir)
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.stop())
		}
	}()
	if err != nil {
		return nil, err
	}
	t = &table{title: fmt.Sprintf("publishes of %v at once, %d side by side", rushWork, rushAside)}
	n := c.publishes
	for _, r := range []struct {
		item   string
		calls  int
		tries  int // of the try-locks
		volume func(i int) string
	}{
		{fmt.Sprintf("one volume, %d targets", n), n, min(n, fewTries), func(int) string { return "shared" }},
		{fmt.Sprintf("%d volumes", n), n, n, func(i int) string { return fmt.Sprint("v-", i) }},
		{fmt.Sprintf("both, %d calls", 2*n), 2 * n, 2 * min(n, fewTries), func(i int) string { return [2]string{"shared", fmt.Sprint("v-", i)}[i%2] }},
	} {
		took, wait := &row{item: r.item}, &row{item: "  longest wait to median", goal: atMost(times, 2, -1)}
		var tasks []task
		for i, s := range servers {
			a, b := &figure{name: rushNames[i]}, &figure{name: rushNames[i], unit: times}
			if i == 0 {
				took.csikit, wait.csikit = a, b
			} else {
				took.others, wait.others = append(took.others, a), append(wait.others, b)
			}
			calls := r.calls
			if i == rushTries {
				calls = r.tries
			}
			tasks = append(tasks, func(ctx context.Context) error { return rush(ctx, s, calls, r.volume, a, b) })
		}
		if err := interleave(ctx, min(3, c.rounds), tasks...); err != nil {
			return nil, fmt.Errorf("%s: %w", r.item, err)
		}
		t.rows = append(t.rows, took, wait)
	}
	t.rows[0].note = fmt.Sprintf("who gets ABORTED waits as kubelet does, by a hundredth: %v, and twice as long each time, to %v; with %d targets, for all come again together and one gets in: a thousand take minutes",
		firstWait, mostWait, min(n, fewTries))
	return t, nil
}

var rushNames = []string{"csikit", "a mutex for each volume", "a try-lock for each, ABORTED (of one volume 10)"}

// rushTries is the one with try-locks, and fewTries how many targets of one volume
// it gets.
const (
	rushTries = 2
	fewTries  = 10
)

func rushServers(ctx context.Context, dir string) (servers []*served, err error) {
	b, err := mem.New(&mem.Options{Node: "bench"})
	if err != nil {
		return nil, err
	}
	s, err := serveBackend(ctx, dir, "rush-csikit", b, func(o *csidriver.Options) { o.Engine = newRushEngine() })
	if err != nil {
		return nil, err
	}
	if err := awaitReady(ctx, s.ClientConn); err != nil {
		return []*served{s}, err
	}
	servers = append(servers, s)
	for i, lock := range []func(string) (func(), error){mutexes(), tryLocks()} {
		s, err := serveBare(ctx, dir, fmt.Sprintf("rush-%d", i), &locking{engine: newRushEngine(), lock: lock})
		if err != nil {
			return servers, err
		}
		servers = append(servers, s)
	}
	return servers, nil
}

// rush makes n calls at once and notes the time of all, and the longest wait as
// times the median.
func rush(ctx context.Context, s *served, n int, volume func(int) string, took, wait *figure) error {
	waits, errs := make(series, n), make([]error, n)
	var calls sync.WaitGroup
	begin := time.Now()
	for i := range n {
		calls.Go(func() {
			came := time.Now()
			errs[i] = publishUntilDone(ctx, s, volume(i), fmt.Sprintf("/pods/%d", i))
			waits[i] = float64(time.Since(came))
		})
	}
	calls.Wait()
	took.rounds.add(float64(time.Since(begin)))
	wait.rounds.add(slices.Max(waits) / waits.median())
	return errors.Join(errs...)
}

func publishUntilDone(ctx context.Context, s *served, id, target string) error {
	for pause := firstWait; ; pause = min(2*pause, mostWait) {
		_, err := csi.NewNodeClient(s.ClientConn).NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId: id, TargetPath: target, StagingTargetPath: "/staging/" + id,
			VolumeCapability: &csi.VolumeCapability{
				AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
				AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER},
			},
		})
		if status.Code(err) != codes.Aborted {
			return err
		}
		time.Sleep(pause)
	}
}
