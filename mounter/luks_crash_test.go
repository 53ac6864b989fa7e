package mounter_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// TestLUKSRotates, killed at every point in between: one of the keys always opens
// it, and in the end it is the new one alone.
func TestLUKSRotates(t *testing.T) {
	for n := 1; ; n++ {
		r, k := newCrashRig(t, 0, nil)
		r.encrypt("old")
		r.stage()
		r.unstage()
		r.encrypt("new", "old")
		k.points, k.at = 0, n
		where, err := dies(func() error { return r.Stage(t.Context(), r.stageRequest()) })
		must(t, err)
		keys := r.disk.Keys()
		if !slices.Contains(keys, "old") && !slices.Contains(keys, "new") {
			t.Fatalf("killed at %s: keys %q", where, keys)
		}
		k.at = 0
		must(t, r.Restart())
		r.stage()
		if got := r.disk.Keys(); !slices.Equal(got, []string{"new"}) {
			t.Errorf("killed at %s: keys %q, then %q", where, keys, got)
		}
		r.unstage()
		r.encrypt("new", "new") // a careless backend
		r.stage()
		r.unstage()
		r.closed()
		if t.Failed() || where == "" {
			return
		}
	}
}

// TestLUKSKilledAnywhere kills the driver at every point of an encrypted volume's
// life. What is inside stays as it is once it was shown to somebody.
func TestLUKSKilledAnywhere(t *testing.T) {
	for _, a := range []after{
		{name: "restart"},
		{name: "restart, recorder", wrap: asRecorder},
		{name: "reboot, recorder", wrap: asRecorder, reboot: true},
		{name: "restart, block", block: true},
		{name: "reboot, block, recorder", wrap: asRecorder, block: true, reboot: true},
	} {
		t.Run(a.name, func(t *testing.T) {
			n := 1
			for ; luksWalk(t, a, n); n++ {
			}
			if n < 20 {
				t.Errorf("only %d points", n)
			}
		})
	}
}

func luksWalk(t *testing.T, a after, n int) (died bool) {
	t.Helper()
	r, k := newCrashRig(t, n, a.wrap)
	r.encrypt(luksKey)
	stage, publish := r.stageRequest(), r.publishRequest()
	if a.block {
		stage, publish = r.blockRequests()
	}
	ctx := t.Context()
	calls := []func() error{
		func() error { return r.Stage(ctx, stage) },
		func() error { return r.Publish(ctx, publish) },
		func() error { return r.Unpublish(ctx, r.unpublishRequest()) },
		func() error { return r.Unstage(ctx, r.unstageRequest()) },
	}
	uuid := ""
	for i := 0; i < len(calls); i++ {
		where, err := dies(calls[i])
		if where != "" {
			died, k.at = true, 0
			if a.reboot {
				r.Kernel.Reboot()
			}
			must(t, r.Restart())
			if a.reboot && i == 1 {
				i--
			}
			i--
			continue
		}
		if err != nil {
			t.Fatalf("killed at %d of %v: then call %d: %v", n, k.seen, i, err)
		}
		if in := r.disk.Inside(); i < 2 && !a.block {
			if c := in.Content(); uuid == "" {
				uuid = c.UUID
			} else if c.UUID != uuid {
				t.Fatalf("killed at %d of %v: the file system changed to %+v", n, k.seen, c)
			}
		}
		if i < 3 && r.disk.Mark() != mounter.LUKSUsed {
			t.Errorf("mark %q", r.disk.Mark())
		}
	}
	r.closed()
	if t.Failed() {
		t.Fatalf("killed at %d of %v", n, k.seen)
	}
	return died
}

// TestLUKSKilledInside: a luksFormat that ended, or left a header without a key,
// and an mkfs inside that did not, are taken up again although node and backend
// have forgotten everything: the header remembers.
func TestLUKSKilledInside(t *testing.T) {
	for _, point := range []string{"LUKSFormat without a key", "LUKSFormat", "LUKSOpen", "half of Mkfs", "Mkfs", "LUKSMark"} {
		t.Run(point, func(t *testing.T) {
			r, _ := newCrashRig(t, 0, nil)
			r.encrypt(luksKey)
			armed := true
			r.Kernel.OnChange(func(op string) {
				if op == point && armed {
					armed = false
					panic(killed{op})
				}
			})
			if where, err := dies(func() error { return r.Stage(t.Context(), r.stageRequest()) }); where == "" {
				t.Fatalf("survived: %v", err)
			}
			r.Kernel.Reboot()
			r.loseRecords()
			r.stage()
			r.unstage()
			r.closed()
		})
	}
	t.Run("half of LUKSFormat", func(t *testing.T) { // noise, and no memory
		r := newLUKSRig(t, nil)
		r.Kernel.Fail("LUKSFormat", 1, errors.New("no"))
		wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrUnavailable)
		r.Kernel.Reboot()
		must(t, r.Restart())
		wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
		r.closed()
	})
}

// TestLUKSKilledAndGivenUp: after the death the CO undoes the call.
func TestLUKSKilledAndGivenUp(t *testing.T) {
	for n := 1; ; n++ {
		r, k := newCrashRig(t, n, nil)
		r.encrypt(luksKey)
		where, err := dies(func() error { return r.Stage(t.Context(), r.stageRequest()) })
		must(t, err)
		k.at = 0
		if where != "" {
			must(t, r.Restart())
		}
		r.unstage()
		r.closed()
		if t.Failed() {
			t.Fatalf("killed at %d of %v", n, k.seen)
		}
		if where == "" {
			return
		}
	}
}
