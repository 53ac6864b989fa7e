package mounter_test

import (
	"sync"
	"testing"

	"github.com/csikit/csikit/mounter"
)

// TestRealStatsBesideUnstage: a question about a volume, which holds its file system
// for a moment, does not make an unpublish or an unstage fail.
func TestRealStatsBesideUnstage(t *testing.T) {
	n := newLoopNode(t)
	r := newRealRig(t, n, n)
	n.make("v", 64*mib)
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
		r.unpublish("v", "t")
		r.unstage("v")
	}
	close(stop)
	all.Wait()
	r.gone("v")
}
