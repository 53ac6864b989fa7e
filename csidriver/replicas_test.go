package csidriver

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/idempotency"
)

// leases is a Locker that nobody else uses.
type leases struct {
	mu   sync.Mutex
	keys []string
	lost chan struct{}
}

func (l *leases) Lock(_ context.Context, key string) (idempotency.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys = append(l.keys, key)
	return l, nil
}

func (l *leases) locked() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.keys)
}

func (l *leases) Token() int64                 { return 7 }
func (l *leases) Lost() <-chan struct{}        { return l.lost }
func (l *leases) Unlock(context.Context) error { return nil }

// What is of the controller is locked across replicas, and nothing of a node.
func TestLockerLocksTheController(t *testing.T) {
	l, token := &leases{lost: make(chan struct{})}, int64(0)
	r := startRig(t, func(s *setup) {
		s.opts.Locker = l
		s.backend.hook = func(ctx context.Context, method string) error {
			if method == "CreateVolume" {
				token, _ = idempotency.Fence(ctx, "name:v")
			}
			return nil
		}
	})
	v, err := r.CreateVolume(t.Context(), createReq("v"))
	wantCode(t, err, codes.OK)
	if token != 7 {
		t.Errorf("the backend has the fencing token %d", token)
	}
	id := v.GetVolume().GetVolumeId()
	_, err = r.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
	wantCode(t, err, codes.OK)
	keys := l.locked()
	if !slices.Contains(keys, "name:v") || !slices.Contains(keys, "id:"+id) {
		t.Errorf("locked: %q", keys)
	}
	for _, k := range keys {
		if strings.HasPrefix(k, "node:") || strings.HasPrefix(k, "path:") || strings.HasPrefix(k, "read:") {
			t.Errorf("locked across replicas: %q", k)
		}
	}
}

// An operation that has lost its lock is not answered with OK, nor with a code
// that is final.
func TestLostLockIsNoAnswer(t *testing.T) {
	l := &leases{lost: make(chan struct{})}
	var once sync.Once
	r := startRig(t, func(s *setup) {
		s.opts.Locker = l
		s.backend.hook = func(ctx context.Context, method string) error {
			if method == "CreateVolume" {
				once.Do(func() { close(l.lost) })
				<-ctx.Done()
			}
			return nil
		}
	})
	_, err := r.CreateVolume(t.Context(), createReq("v"))
	wantCode(t, err, codes.Unavailable, "lost")
	for !strings.Contains(r.log.String(), "has lost its lock") {
		runtime.Gosched() // who watches the lease may tell of it after the answer
	}
}
