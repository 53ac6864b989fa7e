package mounter_test

import (
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// TestRealStatsBesideUnstage: a question about a volume, which holds its file system
// for a moment, does not make an unpublish or an unstage fail.
func TestRealStatsBesideUnstage(t *testing.T) {
	_, r := newRealVolume(t, 64*mib)
	stop := make(chan struct{})
	var all sync.WaitGroup
	ask := func(f func()) {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					f()
				}
			}
		})
	}
	for _, path := range []string{"staging-v", "t"} {
		ask(func() {
			st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path(path)})
			if err == nil && st.Total > 64*mib {
				t.Errorf("figures of the node's own disk: %+v", st)
			}
		})
	}
	ask(func() { _, _ = r.Health(t.Context(), mounter.HealthRequest{ID: "v"}) })
	for range 30 {
		r.stage("v", "ext4")
		r.publish("v", "t")
		askUntilFree(t, func() error {
			return r.Unpublish(t.Context(), mounter.UnpublishRequest{ID: "v", Path: r.path("t")})
		})
		askUntilFree(t, func() error {
			return r.Unstage(t.Context(), mounter.UnstageRequest{ID: "v", Path: r.path("staging-v")})
		})
	}
	close(stop)
	all.Wait()
	r.gone("v")
}

// askUntilFree calls once; where the kernel cannot look at a mount from aside, a
// question keeps it busy, and the call is repeated as a CO does.
func askUntilFree(t *testing.T, call func() error) {
	t.Helper()
	err := call()
	for i := 0; i < 1000 && os.Getenv(envAPI) == "old" && err != nil && (errors.Is(err, backends.ErrInUse) || errors.Is(err, backends.ErrUnavailable)); i++ {
		err = call()
	}
	must(t, err)
}
