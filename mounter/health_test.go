package mounter_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
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

// reasons are what is wrong with a volume.
func reasons(t testing.TB, e interface {
	Health(context.Context, mounter.HealthRequest) ([]backends.Health, error)
}, id string,
) []string {
	t.Helper()
	found, err := e.Health(t.Context(), mounter.HealthRequest{ID: id})
	must(t, err)
	var list []string
	for _, h := range found {
		if h.Message == "" || h.Status == 0 {
			t.Errorf("incomplete: %+v", h)
		}
		list = append(list, h.Reason)
	}
	slices.Sort(list)
	return list
}

func (r *rig) ails(want ...string) {
	r.t.Helper()
	if got := reasons(r.t, r, "v"); !slices.Equal(got, want) {
		r.t.Errorf("found %v, want %v", got, want)
	}
}

// TestHealth: what befalls a volume that stands is found, and is gone when it is.
func TestHealth(t *testing.T) {
	for name, tc := range map[string]struct {
		want       []string
		fall, mend func(*rig)
	}{
		"well":                         {nil, func(*rig) {}, func(*rig) {}},
		"staging path is unmounted":    {[]string{"MountLost"}, func(r *rig) { r.Kernel.UnmountForeign(r.staging) }, nil},
		"target is unmounted":          {[]string{"MountLost"}, func(r *rig) { r.Kernel.UnmountForeign(r.target) }, nil},
		"staging path is covered":      {[]string{"MountLost"}, func(r *rig) { r.Kernel.MountForeign(r.staging) }, func(r *rig) { r.Kernel.UnmountForeign(r.staging) }},
		"target is remounted":          {[]string{"RemountedReadOnly"}, func(r *rig) { r.Kernel.TurnReadOnly(r.target) }, nil},
		"device goes":                  {[]string{"DeviceGone"}, func(r *rig) { r.disk.Remove() }, nil},
		"device goes and comes":        {[]string{"DeviceReplaced"}, func(r *rig) { r.disk.Remove(); r.disk.Insert() }, nil},
		"device has no size":           {[]string{"DeviceGone"}, func(r *rig) { r.disk.Resize(0) }, func(r *rig) { r.disk.Resize(gib) }},
		"another device":               {[]string{"DeviceReplaced"}, func(r *rig) { r.disk.Replace(backends.Identity{Serial: "B"}) }, nil},
		"device turns read-only":       {[]string{"DeviceReadOnly"}, func(r *rig) { r.disk.SetReadOnly(true) }, func(r *rig) { r.disk.SetReadOnly(false) }},
		"device cannot be read":        {[]string{"DeviceReadFailed"}, func(r *rig) { r.Kernel.Fail("ReadEnds", -1, errors.New("I/O error")) }, func(r *rig) { r.Kernel.Fail("ReadEnds", 0, nil) }},
		"statfs fails":                 {[]string{"FilesystemFailing"}, func(r *rig) { r.Kernel.Fail("StatFS", -1, errors.New("stale")) }, func(r *rig) { r.Kernel.Fail("StatFS", 0, nil) }},
		"the file system has findings": {[]string{"A"}, func(r *rig) { r.Kernel.SetHealth(r.staging, backends.Health{Status: 1, Reason: "A", Message: "a"}) }, func(r *rig) { r.Kernel.SetHealth(r.staging) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.stage()
			r.publish()
			r.ails()
			tc.fall(r)
			r.ails(tc.want...)
			must(t, r.Restart())
			r.ails(tc.want...)
			if tc.mend != nil {
				tc.mend(r)
				r.ails()
			}
		})
	}
}

// TestHealthOfBlock: a raw block volume has a device, a flag and targets.
func TestHealthOfBlock(t *testing.T) {
	r := newRig(t, nil)
	stage, pub := r.stageRequest(), r.publishRequest()
	stage.Capability.Block, pub.Capability.Block, pub.ReadOnly = true, true, true
	must(t, r.Stage(t.Context(), stage))
	r.ails()
	must(t, r.Publish(t.Context(), pub))
	r.ails() // read-only is what was asked for
	r.unpublish()
	pub.ReadOnly = false
	must(t, r.Publish(t.Context(), pub))
	r.disk.SetReadOnly(true)
	r.ails("DeviceReadOnly")
	r.disk.SetReadOnly(false)
	r.Kernel.UnmountForeign(r.target)
	r.ails("MountLost")
	r.disk.Remove()
	r.ails("DeviceGone", "MountLost")
}

// TestHealthErrors: what is not known is no finding, and does not hide one.
func TestHealthErrors(t *testing.T) {
	r := newRig(t, nil)
	health := func() error {
		_, err := r.Health(t.Context(), mounter.HealthRequest{ID: "v"})
		return err
	}
	wantKind(t, health(), backends.ErrNotFound)
	r.stage()
	for _, op := range []string{"OpenDevice", "ExamineFS", "DiskSeq", "Verify"} {
		r.Kernel.Fail(op, 1, errors.New("too many open files"))
		if err := health(); err == nil || op != "Verify" && !errors.Is(err, backends.ErrUnavailable) && op != "ExamineFS" {
			t.Errorf("%s: %v", op, err)
		}
		r.ails()
	}
	r.Kernel.Fail("ExamineFS", 1, errors.New("too many open files"))
	r.disk.SetReadOnly(true)
	r.ails("DeviceReadOnly")
	must(t, r.Close())
	wantKind(t, health(), backends.ErrUnavailable)
}

// TestHealthOfUnreadableRecord: such a volume can be neither used nor taken away.
func TestHealthOfUnreadableRecord(t *testing.T) {
	r := newRig(t, nil)
	r.stage()
	files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", "stage-*"))
	must(t, err)
	must(t, os.WriteFile(files[0], []byte("{"), 0o600))
	must(t, r.Restart())
	r.ails("NodeRecordUnreadable")
}

// watched is a kernel of which somebody asks something in the middle of an unmount.
type watched struct {
	mounter.Kernel
	unwound func()
}

func (w *watched) Unwind(path string) (int, error) {
	n, err := w.Kernel.Unwind(path)
	w.unwound()
	return n, err
}

// TestHealthDuringUnpublish: what a call is just taking off is not lost.
func TestHealthDuringUnpublish(t *testing.T) {
	w := &watched{}
	r := &rig{t: t, node: newNode(), dir: t.TempDir()}
	r.staging, r.target = r.dir+"/staging", r.dir+"/target"
	r.Engine = mountertest.New(t, r.node, &mountertest.Options{Adjust: func(o *mounter.Options) { w.Kernel, o.Kernel = o.Kernel, w }})
	r.node.sources["v"] = &backends.Source{Dir: t.TempDir()}
	asked := 0
	w.unwound = func() {
		asked++
		r.ails()
	}
	r.stageAll("v")
	r.unpublish()
	r.unstage()
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

// TestHealthHangs: a volume that does not answer is ill, in time; it costs one
// question more than its figures do, and nothing to another volume.
func TestHealthHangs(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		r, k := hangingRig(t, 0)
		k.path = r.staging
		release := k.hang()
		defer release()
		for i := range 10 {
			start := time.Now()
			found, err := r.Health(t.Context(), mounter.HealthRequest{ID: "v"})
			if err != nil || len(found) != 1 || found[0].Reason != "NotAnswering" || time.Since(start) > 10*time.Second || i > 0 && time.Since(start) > time.Second {
				t.Fatalf("got %v, %v after %s", found, err, time.Since(start))
			}
			if i == 9 && !strings.Contains(found[0].Message, "statfs has not come back for 10.0") {
				t.Errorf("got %+v", found)
			}
		}
		start := time.Now()
		if got := reasons(t, r, "w"); len(got) > 0 || time.Since(start) > 0 || k.calls.Load() != 1 {
			t.Errorf("of another: %v after %s; %d calls", got, time.Since(start), k.calls.Load())
		}
	})
}

// stuckDisk is a kernel with a disk from which no read comes back.
type stuckDisk struct {
	*mountertest.Kernel
	gate  chan struct{}
	reads atomic.Int32
}

func (k *stuckDisk) ReadEnds(context.Context, mounter.Device) error {
	k.reads.Add(1)
	<-k.gate
	return nil
}

// TestHealthDiskHangs: a disk that does not answer is found in time, by one read, with
// what is known without it.
func TestHealthDiskHangs(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		k := &stuckDisk{gate: make(chan struct{})}
		r := &rig{t: t, node: newNode(), dir: t.TempDir()}
		r.staging, r.target = r.dir+"/staging", r.dir+"/target"
		r.Engine = mountertest.New(t, r.node, &mountertest.Options{Adjust: func(o *mounter.Options) {
			k.Kernel, _ = o.Kernel.(*mountertest.Kernel)
			o.Kernel = k
		}})
		r.node.sources["v"] = &backends.Source{Device: &backends.Device{Path: "/dev/a", Identity: backends.Identity{Serial: "A"}}}
		r.stage()
		r.publish()
		r.Kernel.UnmountForeign(r.target)
		for range 5 {
			start := time.Now()
			r.ails("MountLost", "NotAnswering")
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("after %s", took)
			}
		}
		if n := k.reads.Load(); n != 1 {
			t.Errorf("%d reads", n)
		}
		close(k.gate)
		synctest.Wait()
		r.ails("MountLost")
	})
}
