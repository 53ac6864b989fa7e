package csidriver

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/idempotency"
)

// town has the locks of all replicas in it.
type town struct {
	mu     sync.Mutex
	free   *sync.Cond
	in     map[string]int // who shares a key; -1: somebody has it alone
	tokens int64
	lost   chan struct{}
}

func newTown() *town {
	l := &town{in: make(map[string]int), lost: make(chan struct{})}
	l.free = sync.NewCond(&l.mu)
	return l
}

func (l *town) Lock(ctx context.Context, key string) (idempotency.Lease, error) {
	return l.take(ctx, key, func() bool { return l.in[key] == 0 }, -1)
}

func (l *town) LockShared(ctx context.Context, key string) (idempotency.Lease, error) {
	return l.take(ctx, key, func() bool { return l.in[key] >= 0 }, 1)
}

func (l *town) take(ctx context.Context, key string, free func() bool, n int) (idempotency.Lease, error) {
	defer context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.free.Broadcast()
	})()
	l.mu.Lock()
	defer l.mu.Unlock()
	for !free() && ctx.Err() == nil {
		l.free.Wait()
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	l.tokens++
	l.in[key] += n
	return &townLease{l, key, n, l.tokens}, nil
}

type townLease struct {
	l     *town
	key   string
	n     int
	token int64
}

func (h *townLease) Token() int64          { return h.token }
func (h *townLease) Lost() <-chan struct{} { return h.l.lost }

func (h *townLease) Unlock(context.Context) error {
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	h.l.in[h.key] -= h.n
	h.l.free.Broadcast()
	return nil
}

// otherReplica is a second controller over d.
func otherReplica(t *testing.T, d *data, l idempotency.Locker) *rig {
	t.Helper()
	return startRig(t, func(s *setup) {
		s.cfg.Controller, s.opts.Locker = d, l
	})
}

// mustWaitFor sees to it that call waits for the lock of key, until it gives up.
func (r *rig) mustWaitFor(t *testing.T, key string, call func(context.Context) error) {
	t.Helper()
	ctx, giveUp := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- call(ctx) }()
	for {
		select {
		case err := <-done:
			t.Fatalf("did not wait for the lock of %s: %v", key, err)
		default:
		}
		if in := r.driver.operations.Running(); len(in) == 1 && in[0].Step == "waiting for the lock of "+key {
			break
		}
		runtime.Gosched()
	}
	giveUp()
	wantCode(t, <-done, codes.Canceled)
}

// TestSourceIsHeldAcrossReplicas: a replica does not delete, or change, what
// another one copies; the backend is told by which tokens it may know.
func TestSourceIsHeldAcrossReplicas(t *testing.T) {
	for name, s := range sources {
		t.Run(name, func(t *testing.T) {
			town, entered, leave := newTown(), make(chan int64, 1), make(chan struct{})
			r, d := startSources(t, func(s *setup, _ *data) { s.opts.Locker = town })
			other := otherReplica(t, d, town)
			key := map[string]string{"snapshot": "snapshot:", "volume": "id:"}[name] + s.id
			d.hook = hookOn(s.method, func(ctx context.Context) error {
				token, _ := idempotency.SharedFence(ctx, key)
				entered <- token
				<-leave
				return nil
			})
			done := make(chan error, 1)
			go func() { _, err := r.CreateVolume(t.Context(), restoreReq("new", s.source(s.id))); done <- err }()
			if token := <-entered; token == 0 {
				t.Errorf("no token of %s", key)
			}
			remove := func(ctx context.Context) error {
				if name == "snapshot" {
					_, err := other.DeleteSnapshot(ctx, deleteSnapshot(s.id))
					return err
				}
				_, err := other.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: s.id})
				return err
			}
			other.mustWaitFor(t, key, remove)
			_, err := other.CreateSnapshot(t.Context(), snapshotReq("beside", "id-v")) // shares the volume
			wantCode(t, err, codes.OK)
			close(leave)
			wantCode(t, <-done, codes.OK)
			wantCode(t, remove(t.Context()), codes.OK)
		})
	}
}

// TestReadersHoldSnapshotsAcrossReplicas: as in one process, but that a stream ends
// at its lease: nobody there sees who waits elsewhere.
func TestReadersHoldSnapshotsAcrossReplicas(t *testing.T) {
	town := newTown()
	r, d, begun, release := readerOf(t, town)
	other := otherReplica(t, d, town)
	s := readSnapshots(t, r, "", "sid-one")
	<-begun
	remove := func(ctx context.Context) error {
		_, err := other.DeleteSnapshot(ctx, deleteSnapshot("sid-one"))
		return err
	}
	other.mustWaitFor(t, "read:sid-one", remove)
	close(release)
	wantCode(t, (<-s).err, codes.OK)
	wantCode(t, remove(t.Context()), codes.OK)
}

func TestReaderOutlastsItsLease(t *testing.T) {
	r, _, _, _ := readerOf(t, newTown())
	r.driver.lease = 0
	wantCode(t, (<-readSnapshots(t, r, "", "sid-one")).err, codes.Aborted, "the stream was cut", "outlasted")
}

func TestReaderLosesItsLock(t *testing.T) {
	town := newTown()
	r, _, begun, _ := readerOf(t, town)
	s := readSnapshots(t, r, "", "sid-one")
	<-begun
	close(town.lost)
	wantCode(t, (<-s).err, codes.Unavailable, "the stream was cut", "lost")
}

// readerOf is startReader with a Locker.
func readerOf(t *testing.T, l idempotency.Locker) (r *rig, d *data, begun, release chan struct{}) {
	begun, release = make(chan struct{}, 9), make(chan struct{})
	r, d = startMetadata(t, nil, func(s *setup, _ *data) { s.opts.Locker = l })
	d.changed = func(ctx context.Context, _ backends.ChangedBlocksRequest) (backends.BlockMap, error) {
		return backends.BlockMap{VolumeSize: 100, Blocks: func(yield func(backends.Block, error) bool) {
			if !yield(backends.Block{Offset: 0, Size: 1}, nil) {
				return
			}
			begun <- struct{}{}
			select {
			case <-ctx.Done():
				yield(backends.Block{}, ctx.Err())
			case <-release:
			}
		}}, nil
	}
	return r, d, begun, release
}

// TestReplicasThatDoNotShare: with a Locker for exclusive keys alone nothing is
// asked of it for what is shared, and a deletion asks nothing for readers.
func TestReplicasThatDoNotShare(t *testing.T) {
	l := &leases{lost: make(chan struct{})}
	r, _ := startSources(t, func(s *setup, _ *data) { s.opts.Locker = l })
	_, err := r.CreateVolume(t.Context(), restoreReq("new", snapshotSource("sid-s")))
	wantCode(t, err, codes.OK)
	_, err = r.DeleteSnapshot(t.Context(), deleteSnapshot("sid-s"))
	wantCode(t, err, codes.OK)
	n := 0
	for _, key := range l.locked() {
		if key == "snapshot:sid-s" {
			n++
		}
		if strings.HasPrefix(key, "read:") {
			t.Errorf("locked: %q", key)
		}
	}
	if n != 2 { // of its creation and of its deletion
		t.Errorf("locked %q", l.locked())
	}
}
