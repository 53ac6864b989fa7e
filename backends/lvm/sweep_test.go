package lvm

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

// What a call that was cut short has left, and that no call comes back for, goes without
// a start of the driver; not before a CO would have asked again.
func TestLeftIsSwept(t *testing.T) {
	for _, c := range []struct {
		at           string
		stays, until time.Duration
	}{{"copy:piece", keepRest, keepRest + sweepEvery}, {"copy:noted", keepCopies, keepCopies + sweepEvery}} {
		testenv.Bubble(t, func(t *testing.T) {
			f := newFake()
			b := onFake(t, f, optionsFor("linear"))
			b.noteEvery = 2 << 20
			ctx, cancel := context.WithCancel(t.Context())
			b.step = func(s string) { // before there is a watch
				if s == c.at {
					cancel()
				}
			}
			if err := b.RecoverController(t.Context()); err != nil {
				t.Fatal(err)
			}
			v := createVolume(t, b, "pvc-1", "linear", 8<<20)
			if _, err := b.CloneVolume(ctx, *v, backends.CreateVolumeRequest{Name: "copy", Size: 8 << 20}); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			time.Sleep(c.stays - time.Minute)
			b.jobs.Wait()
			if _, other := f.mine(); other != 2 { // with the snapshot that it is of
				t.Errorf("%s: %d are half-made, want 2", c.at, other)
			}
			time.Sleep(c.until - c.stays + 2*time.Minute)
			f.wantWhole(t, b, 1)
			_ = b.Close() // else the bubble has a watch that never ends
		})
	}
}

// What a call is at is not swept, however long it takes.
func TestSweepOfWhatIsBeingMade(t *testing.T) {
	late := func(b *Backend) {
		b.now = func() time.Time { return time.Now().Add(30 * 24 * time.Hour) }
		b.clean(context.Background(), keepRest)
		b.now = time.Now
	}
	for what, do := range map[string]func(t *testing.T, b *Backend) error{
		"copy:piece": func(t *testing.T, b *Backend) error {
			v := createVolume(t, b, "pvc-1", "linear", 8<<20)
			return second(b.CloneVolume(t.Context(), *v, backends.CreateVolumeRequest{Name: "copy", Size: 8 << 20}))
		},
		"create:zeroed": func(t *testing.T, b *Backend) error {
			return second(b.CreateVolume(t.Context(), backends.CreateVolumeRequest{Name: "pvc-1", Size: 8 << 20, Parameters: map[string]string{paramClass: "fresh"}}))
		},
		"expand:zeroed": func(t *testing.T, b *Backend) error {
			v := createVolume(t, b, "pvc-1", "fresh", 8<<20)
			return second(b.ExpandVolume(t.Context(), backends.ExpandVolumeRequest{ID: v.ID, Size: 16 << 20}))
		},
	} {
		f := newFake()
		o := testOptions()
		o.Classes = append(o.Classes, Class{Name: "fresh", VG: testVG, ZeroNew: true})
		b := onFake(t, f, o)
		seen := false
		b.step = func(s string) {
			if s == what && !seen {
				seen = true
				late(b)
			}
		}
		if err := do(t, b); err != nil || !seen {
			t.Errorf("%s: %v, %v", what, seen, err)
		}
		b.jobs.Wait()
		if _, other := f.mine(); other != 0 {
			t.Errorf("%s: %d are half-made", what, other)
		}
	}
}

// Whoever waited for the VG's turn changes the LV that he looked at, whatever is called
// so by then.
func TestNameGivenAwayMeanwhile(t *testing.T) {
	for what, do := range map[string]func(b *Backend, c *Class, v *volume) error{
		"activated":        func(b *Backend, c *Class, v *volume) error { return b.switchOn(ctxOf(), c, v, nil) },
		"deactivated":      func(b *Backend, c *Class, v *volume) error { return b.deactivate(ctxOf(), c, v) },
		"some deactivated": func(b *Backend, c *Class, v *volume) error { return b.deactivateSome(ctxOf(), c, []*volume{v}) },
		"split":            func(b *Backend, c *Class, v *volume) error { return second(b.split(ctxOf(), c, v)) },
		"noted":            func(b *Backend, c *Class, v *volume) error { return b.note(ctxOf(), c, v, &fakeDisk{}, 0, 1) },
	} {
		f := newFake()
		b := onFake(t, f, optionsFor("linear"))
		made := createVolume(t, b, "pvc-1", "linear", 8<<20)
		if _, err := b.CreateSnapshot(t.Context(), backends.CreateSnapshotRequest{Name: "s", VolumeID: made.ID}); err != nil {
			t.Fatal(err)
		}
		l, snap := f.lvs[1], f.lvs[2]
		if what == "split" {
			l = snap
		} else {
			f.lvs = f.lvs[:2]
		}
		c := b.order[0]
		g, err := b.look(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		v := g.named(l.name)
		foreign := *l
		foreign.uuid, foreign.tags = f.newUUID(), nil
		l.name = "renamed"
		l.active = what != "activated"
		f.lvs = append(f.lvs, &foreign)
		was, changes := foreign, f.changes
		if err := do(b, c, v); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if foreign.active != was.active || foreign.cow != was.cow || !slices.Equal(foreign.tags, was.tags) || f.changes == changes {
			t.Errorf("%s: %+v, %d changes", what, foreign, f.changes-changes)
		}
	}
}
