package mounter_test

import (
	"fmt"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
	"github.com/csikit/csikit/mounter/mountertest"
)

// killed is what a driver dies of.
type killed struct{ where string }

// killer kills the driver at one of the points at which something has just
// changed, or is about to.
type killer struct {
	points int // passed so far
	at     int // 0: never
	seen   []string
}

func (k *killer) pass(where string) {
	k.points++
	k.seen = append(k.seen, where)
	if k.points == k.at {
		panic(killed{where})
	}
}

// dies runs one call and says whether the driver survived it.
func dies(call func() error) (where string, err error) {
	defer func() {
		if p := recover(); p != nil {
			k, ok := p.(killed)
			if !ok {
				panic(p)
			}
			where = k.where
		}
	}()
	return "", call()
}

// newCrashRig is a rig whose driver dies at point n.
func newCrashRig(t *testing.T, n int, wrap func(*node) backends.Node) (*rig, *killer) {
	k := &killer{}
	r := &rig{t: t, node: newNode(), dir: t.TempDir()}
	r.staging, r.target = r.dir+"/staging", r.dir+"/pods/1/mount"
	var b backends.Node = r.node
	if wrap != nil {
		b = wrap(r.node)
	}
	r.Engine = mountertest.New(t, b, &mountertest.Options{Adjust: func(o *mounter.Options) { o.Observer = k.pass }})
	r.disk = r.Kernel.AddDisk("/dev/a", gib, backends.Identity{Serial: "A"})
	r.node.sources["v"] = &backends.Source{
		Device: &backends.Device{Path: "/dev/a", Identity: backends.Identity{Serial: "A"}}, State: []byte("state of v"),
	}
	r.Kernel.OnChange(k.pass)
	r.node.changed = k.pass
	k.at = n
	return r, k
}

func asRecorder(n *node) backends.Node { return &recorder{node: n} }

// after tells what happens between the death and the next call.
type after struct {
	name   string
	reboot bool
	wrap   func(*node) backends.Node
	block  bool
}

// TestKilledAnywhere kills the driver at every point of a volume's life. The CO
// repeats the call, and all goes on as if nothing had been.
func TestKilledAnywhere(t *testing.T) {
	for _, a := range []after{
		{name: "restart"},
		{name: "restart, recorder", wrap: asRecorder},
		{name: "reboot, recorder", wrap: asRecorder, reboot: true},
		{name: "restart, block", block: true},
		{name: "reboot, block", block: true, reboot: true},
	} {
		t.Run(a.name, func(t *testing.T) {
			n := 1
			for ; walk(t, a, n); n++ {
			}
			if n < 10 {
				t.Errorf("only %d points", n)
			}
		})
	}
}

// walk runs one volume's life with a death at point n, and says whether there
// was such a point.
func walk(t *testing.T, a after, n int) (died bool) {
	t.Helper()
	r, k := newCrashRig(t, n, a.wrap)
	stage, publish := r.stageRequest(), r.publishRequest()
	if a.block {
		stage.Capability = backends.Capability{Mode: backends.SingleNodeWriter, Block: true}
		publish.Capability, publish.ReadOnly = stage.Capability, true
	}
	ctx := t.Context()
	calls := []struct {
		name string
		do   func() error
	}{
		{"stage", func() error { return r.Stage(ctx, stage) }},
		{"publish", func() error { return r.Publish(ctx, publish) }},
		{"unpublish", func() error { return r.Unpublish(ctx, r.unpublishRequest()) }},
		{"unstage", func() error { return r.Unstage(ctx, r.unstageRequest()) }},
	}
	uuid := ""
	for i := 0; i < len(calls); i++ {
		where, err := dies(calls[i].do)
		if where != "" {
			died = true
			k.at = 0
			if a.reboot {
				r.Kernel.Reboot()
			}
			must(t, r.Restart())
			if a.reboot && i == 1 {
				i-- // kubelet stages again after a reboot
			}
			i--
			continue
		}
		if err != nil {
			t.Fatalf("killed at %d of %v: then %s: %v", n, k.seen, calls[i].name, err)
		}
		if a.block {
			continue
		}
		if got := r.disk.Content(); uuid == "" {
			uuid = got.UUID
		} else if got.UUID != uuid || got.State != blockdev.Filesystem {
			t.Fatalf("killed at %d of %v: the file system changed to %+v", n, k.seen, got)
		}
	}
	r.clean()
	if r.disk.IsReadOnly() {
		t.Errorf("killed at %d of %v: the device is left read-only", n, k.seen)
	}
	if t.Failed() {
		t.Fatalf("killed at %d of %v", n, k.seen)
	}
	return died
}

// TestKilledAndGivenUp: after the death the CO does not repeat the call but undoes
// it. Nothing is left.
func TestKilledAndGivenUp(t *testing.T) {
	for _, block := range []bool{false, true} {
		t.Run(fmt.Sprintf("block=%v", block), func(t *testing.T) {
			for n := 1; ; n++ {
				r, k := newCrashRig(t, n, nil)
				stage, publish := r.stageRequest(), r.publishRequest()
				stage.Capability.Block, publish.Capability.Block = block, block
				publish.ReadOnly = true
				where, err := dies(func() error {
					if err := r.Stage(t.Context(), stage); err != nil {
						return err
					}
					return r.Publish(t.Context(), publish)
				})
				must(t, err)
				if where != "" {
					must(t, r.Restart())
				}
				k.at = 0
				r.unpublish()
				r.unstage()
				r.clean()
				if r.disk.IsReadOnly() {
					t.Error("the device is left read-only")
				}
				if t.Failed() {
					t.Fatalf("killed at %d of %v", n, k.seen)
				}
				if where == "" {
					return
				}
			}
		})
	}
}

// TestPodKilledAnywhere kills the driver at every point of an ephemeral volume's
// life. The CO repeats the call, or undoes it, and in the end nothing is left.
func TestPodKilledAnywhere(t *testing.T) {
	for _, a := range []struct {
		name            string
		reboot, givesUp bool
	}{{"restart", false, false}, {"reboot", true, false}, {"given up", false, true}, {"reboot, given up", true, true}} {
		t.Run(a.name, func(t *testing.T) {
			n := 1
			for ; podWalk(t, a.reboot, a.givesUp, n); n++ {
			}
			if n < 15 {
				t.Errorf("only %d points", n)
			}
		})
	}
}

// podWalk publishes and unpublishes once, with a death at point n, and says
// whether there was such a point.
func podWalk(t *testing.T, reboot, givesUp bool, n int) (died bool) {
	t.Helper()
	var p *pods
	r, k := newCrashRig(t, n, func(n *node) backends.Node { p = newPods(n); return p })
	ctx, req := t.Context(), podRequest(r)
	calls := []func() error{
		func() error { return r.Publish(ctx, req) },
		func() error { return r.Unpublish(ctx, podGone(r)) },
	}
	for i := 0; i < len(calls); i++ {
		where, err := dies(calls[i])
		if where == "" {
			if err != nil {
				t.Fatalf("killed at %d of %v: then call %d: %v", n, k.seen, i, err)
			}
			continue
		}
		died, k.at = true, 0
		if reboot {
			r.Kernel.Reboot()
		}
		must(t, r.Restart())
		if !givesUp {
			i--
		}
	}
	if givesUp {
		must(t, r.Unpublish(ctx, podGone(r)))
	}
	p.clean(r)
	if t.Failed() {
		t.Fatalf("killed at %d of %v", n, k.seen)
	}
	return died
}

// TestKilledMkfsAfterReboot: without a backend that remembers, what a killed mkfs
// left cannot be told from data any more, so it is refused.
func TestKilledMkfsAfterReboot(t *testing.T) {
	r, k := newCrashRig(t, 0, nil)
	k.at = -1
	r.Kernel.OnChange(func(op string) {
		if op == "half of Mkfs" && k.at == -1 {
			panic(killed{op})
		}
	})
	where, err := dies(func() error { return r.Stage(t.Context(), r.stageRequest()) })
	if where != "half of Mkfs" {
		t.Fatalf("died at %q, %v", where, err)
	}
	k.at = 0
	r.Kernel.Reboot()
	must(t, r.Restart())
	wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
	if c := r.disk.Content(); c.State != blockdev.Unknown {
		t.Errorf("the device holds %s", c)
	}
	r.clean()
}
