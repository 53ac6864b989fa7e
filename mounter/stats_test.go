package mounter_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mountertest"
)

// hangingKernel is one whose statfs does not come back from one path.
type hangingKernel struct {
	mounter.Kernel
	path  string
	gate  atomic.Pointer[chan struct{}] // nil: it answers
	calls atomic.Int32
}

// hang has it hang until release is called, or no call from answer on.
func (k *hangingKernel) hang() (release func()) {
	gate := make(chan struct{})
	k.gate.Store(&gate)
	return func() { k.answer(); close(gate) }
}

func (k *hangingKernel) answer() { k.gate.Store(nil) }

func (k *hangingKernel) StatFS(path string) (backends.VolumeStats, error) {
	if gate := k.gate.Load(); gate != nil && path == k.path {
		k.calls.Add(1)
		<-*gate
	}
	return k.Kernel.StatFS(path)
}

// hangingRig has volumes v and w staged and published.
func hangingRig(t *testing.T, maxAge time.Duration) (*rig, *hangingKernel) {
	n, k := newNode(), &hangingKernel{}
	r := &rig{t: t, node: n, dir: t.TempDir()}
	r.staging, r.target = r.dir+"/staging", r.dir+"/target"
	k.path = r.target
	r.Engine = mountertest.New(t, n, &mountertest.Options{Adjust: func(o *mounter.Options) {
		k.Kernel, o.Kernel, o.StatsMaxAge = o.Kernel, k, maxAge
	}})
	for _, id := range []string{"v", "w"} {
		n.sources[id] = &backends.Source{Mount: &backends.Mount{Source: "server:/" + id, FSType: "nfs4", Remote: true}}
	}
	r.stageAll("v")
	w := r.stageRequest()
	w.ID, w.Path, w.Capability.FSType = "w", r.dir+"/staging-w", ""
	must(t, r.Stage(t.Context(), w))
	return r, k
}

func (r *rig) stageAll(id string) {
	req, pub := r.stageRequest(), r.publishRequest()
	req.ID, req.Capability.FSType, pub.ID, pub.Capability.FSType = id, "", id, ""
	must(r.t, r.Stage(r.t.Context(), req))
	must(r.t, r.Publish(r.t.Context(), pub))
}

// figures asks, and says how long the answer took.
func (r *rig) figures(ctx context.Context, id, path string) (*mounter.Stats, time.Duration, error) {
	start := time.Now()
	st, err := r.Stats(ctx, mounter.StatsRequest{ID: id, Path: path})
	return st, time.Since(start), err
}

// TestStatsLastKnown: while statfs hangs, the last known figures are given in time,
// with their age, until they are too old; one call hangs, and other volumes do not
// notice.
func TestStatsLastKnown(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		r, k := hangingRig(t, 0)
		if st, _, err := r.figures(t.Context(), "v", r.target); err != nil || st.Age != 0 {
			t.Fatalf("of the healthy one: %+v, %v", st, err)
		}
		release := k.hang()
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		st, took, err := r.figures(ctx, "v", r.target)
		if err != nil || st.Total == 0 || st.Age != time.Minute+took || took != 2500*time.Millisecond {
			t.Errorf("with a deadline of 3 s: %+v, %v after %s", st, took, err)
		}
		st, took, err = r.figures(t.Context(), "v", r.target)
		if err != nil || st.Age != 70*time.Second || took != 7500*time.Millisecond {
			t.Errorf("at the timeout of 10 s: %+v, %v after %s", st, took, err)
		}
		for range 100 {
			if st, took, err = r.figures(t.Context(), "v", r.target); err != nil || st.Age < 70*time.Second || took > time.Millisecond {
				t.Fatalf("later: %+v, %v after %s", st, took, err)
			}
		}
		if st, took, err := r.figures(t.Context(), "w", r.dir+"/staging-w"); err != nil || st.Age != 0 || took != 0 {
			t.Errorf("of another volume: %+v, %v after %s", st, took, err)
		}
		time.Sleep(5 * time.Minute)
		_, _, err = r.figures(t.Context(), "v", r.target)
		wantKind(t, err, backends.ErrUnavailable)
		if !strings.Contains(err.Error(), "the last ones are 6m10s old") || k.calls.Load() != 1 {
			t.Errorf("%d calls; got %v", k.calls.Load(), err)
		}
		release()
		synctest.Wait()
		if st, _, err := r.figures(t.Context(), "v", r.target); err != nil || st.Age != 0 {
			t.Errorf("of the healed one: %+v, %v", st, err)
		}
	})
}

// TestStatsLateAnswer: what comes when nobody waits any more is known all the same;
// an error is no answer of before.
func TestStatsLateAnswer(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		r, k := hangingRig(t, 0)
		release := k.hang()
		_, took, err := r.figures(t.Context(), "v", r.target)
		wantKind(t, err, backends.ErrUnavailable)
		if took != 10*time.Second {
			t.Errorf("after %s: %v", took, err)
		}
		release()
		synctest.Wait()
		release = k.hang()
		if st, _, err := r.figures(t.Context(), "v", r.target); err != nil || st.Age != 10*time.Second {
			t.Errorf("got %+v, %v", st, err)
		}
		r.Kernel.Fail("StatFS", -1, errors.New("stale file handle"))
		release()
		synctest.Wait()
		_, _, err = r.figures(t.Context(), "v", r.target)
		wantKind(t, err, backends.ErrUnavailable)
	})
}

// TestStatsUnmountedMeanwhile: the figures of what lies below are not the volume's.
func TestStatsUnmountedMeanwhile(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		r, k := hangingRig(t, 0)
		release := k.hang()
		go func() {
			time.Sleep(time.Second)
			r.Kernel.UnmountForeign(r.target)
			release()
		}()
		st, took, err := r.figures(t.Context(), "v", r.target)
		if err == nil || took != time.Second {
			t.Errorf("got %+v, %v after %s", st, err, took)
		}
	})
}

// TestStatsNoOldFigures: they are not given where nobody wants them.
func TestStatsNoOldFigures(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		r, k := hangingRig(t, -1)
		_, _, err := r.figures(t.Context(), "v", r.target)
		must(t, err)
		defer k.hang()()
		_, _, err = r.figures(t.Context(), "v", r.target)
		wantKind(t, err, backends.ErrUnavailable)
	})
}

// TestStatsOfTheNextMount: a question that still hangs is not the one about the
// volume as it is mounted now, nor are its figures.
func TestStatsOfTheNextMount(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		r, k := hangingRig(t, 0)
		defer k.hang()()
		_, _, err := r.figures(t.Context(), "v", r.target)
		wantKind(t, err, backends.ErrUnavailable)
		r.unpublish()
		r.unstage()
		r.stageAll("v")
		k.answer()
		if st, took, err := r.figures(t.Context(), "v", r.target); err != nil || st.Age != 0 || took != 0 {
			t.Errorf("got %+v, %v after %s", st, took, err)
		}
	})
}

// reporting is a node whose VolumeStats is a function.
type reporting struct {
	*node
	f func(context.Context) (*backends.VolumeStats, error)
}

func (r *reporting) VolumeStats(ctx context.Context, _ backends.VolumeStatsRequest) (*backends.VolumeStats, error) {
	return r.f(ctx)
}

// TestStatsReporterHangs: figures of the backend are bounded as those of statfs are,
// whether it minds its context or not.
func TestStatsReporterHangs(t *testing.T) {
	for name, minds := range map[string]bool{"minds its context": true, "does not": false} {
		t.Run(name, func(t *testing.T) {
			testenv.Bubble(t, func(t *testing.T) {
				var calls atomic.Int32
				hang := make(chan struct{})
				n := &reporting{f: func(ctx context.Context) (*backends.VolumeStats, error) {
					switch first := calls.Add(1) == 1; {
					case first:
						return &backends.VolumeStats{Total: 5}, nil
					case minds:
						<-ctx.Done()
						return nil, backends.ErrUnavailable
					}
					<-hang
					return nil, backends.ErrUnavailable
				}}
				defer close(hang)
				r := newRig(t, func(x *node) backends.Node { n.node = x; return n })
				r.stage()
				for i := range 4 {
					st, took, err := r.figures(t.Context(), "v", r.staging)
					if err != nil || st.Total != 5 || (st.Age != 0) != (i > 0) || took > 10*time.Second {
						t.Errorf("%d: got %+v, %v after %s", i, st, took, err)
					}
				}
				if n := calls.Load(); n < 2 || n > 2 && !minds {
					t.Errorf("%d calls", n)
				}
			})
		})
	}
}

// TestStatsReporterPanics: where somebody can see it, and not the whole process.
func TestStatsReporterPanics(t *testing.T) {
	n := &reporting{f: func(context.Context) (*backends.VolumeStats, error) { panic("figures") }}
	r := newRig(t, func(x *node) backends.Node { n.node = x; return n })
	r.stage()
	defer func() {
		if p := recover(); p != "figures" {
			t.Errorf("got %v", p)
		}
	}()
	_, _, err := r.figures(t.Context(), "v", r.staging)
	t.Errorf("no panic: %v", err)
}
