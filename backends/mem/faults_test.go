package mem

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

func TestInject(t *testing.T) {
	b, ctx := open(t, nil), t.Context()
	v := create(t, b, "v")
	look := func() error {
		_, err := b.Volume(ctx, backends.VolumeRequest{ID: v.ID})
		return err
	}
	ill := errors.New("ill")
	remove := b.Inject(Fault{Method: "Volume", Object: v.ID, Times: 2, Err: ill})
	for i, want := range []error{ill, ill, nil} {
		if err := look(); !errors.Is(err, want) {
			t.Errorf("call %d: %v, want %v", i, err, want)
		}
	}
	remove()
	remove = b.Inject(Fault{Err: ill})
	if err := b.Probe(ctx); !errors.Is(err, ill) || !errors.Is(look(), ill) {
		t.Errorf("a fault of every method: %v", err)
	}
	remove()
	if err := look(); err != nil {
		t.Errorf("removed, and still: %v", err)
	}
	b.Inject(Fault{Method: "Volume", Object: "another", Err: ill})
	if err := look(); err != nil {
		t.Errorf("a fault of another volume: %v", err)
	}

	var seen []Call
	b.Inject(Fault{Method: "DeleteVolume", At: After, Do: func(_ context.Context, c Call) error {
		seen = append(seen, c)
		return nil
	}})
	if err := b.DeleteVolume(ctx, backends.DeleteVolumeRequest{ID: v.ID}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 1 || seen[0].Object != v.ID || seen[0].Request.(backends.DeleteVolumeRequest).ID != v.ID {
		t.Errorf("the hook saw %+v", seen)
	}
}

func TestInjectPanic(t *testing.T) {
	b := open(t, nil)
	b.Inject(Fault{Method: "CreateVolume", At: Midway, Times: 1, Panic: "boom"})
	func() {
		defer func() {
			if p := recover(); p != "boom" {
				t.Errorf("panic %v", p)
			}
		}()
		create(t, b, "v")
	}()
	create(t, b, "v") // no lock is left held
}

func TestInjectDelay(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		b, start := open(t, nil), time.Now()
		b.Inject(Fault{Method: "CreateVolume", At: Midway, Delay: time.Hour})
		create(t, b, "v")
		if d := time.Since(start); d != time.Hour {
			t.Errorf("took %v", d)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("enough"))
		defer cancel()
		_, err := b.CreateVolume(ctx, backends.CreateVolumeRequest{Name: "w"})
		if err == nil || context.Cause(ctx).Error() != "enough" || !errors.Is(err, context.Cause(ctx)) {
			t.Errorf("a context that ended: %v", err)
		}
	})
}

// TestHold: snapshots are being copied until somebody says that they are done.
func TestHold(t *testing.T) {
	b := open(t, nil)
	v := create(t, b, "v")
	b.Store().Hold(true)
	s := snap(t, b, "s", v.ID)
	req := backends.CreateVolumeRequest{Name: "r", Size: v.Capacity}
	if _, err := b.RestoreSnapshot(t.Context(), *s, req); s.Ready || !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("ready %v, restored %v", s.Ready, err)
	}
	b.Store().Hold(false)
	if _, err := b.RestoreSnapshot(t.Context(), *s, req); err != nil {
		t.Error(err)
	}
}

// TestIll: what tests say is wrong is told to those who ask.
func TestIll(t *testing.T) {
	b, ctx := open(t, &Options{Node: "n"}), t.Context()
	v, s := create(t, b, "v"), b.Store()
	ill := backends.Health{Status: backends.HealthInaccessible, Reason: "Unplugged"}
	err := errors.Join(s.SetHealth(v.ID, "", ill), s.SetHealth(v.ID, "n", ill),
		s.SetStorageHealth("n", backends.StorageHealth{Status: backends.StorageDegraded, Reason: "Slow"}))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		controller, err1 := b.VolumeHealth(ctx, backends.VolumeRequest{ID: v.ID})
		list, _, err2 := b.ListVolumeHealth(ctx, backends.ListVolumeHealthRequest{})
		node, err3 := b.NodeVolumeHealth(ctx, backends.NodeHealthRequest{ID: v.ID})
		storage, err4 := b.StorageHealth(ctx, backends.StorageHealthRequest{})
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			t.Fatal(err)
		}
		want := 0
		if ill.Reason != "" {
			want = 1
		}
		if len(controller) != want || len(list) != want || len(node) != want || len(storage) != want {
			t.Errorf("%v, %v, %v, %v; want %d of each", controller, list, node, storage, want)
		}
		ill = backends.Health{}
		if err := errors.Join(s.SetHealth(v.ID, ""), s.SetHealth(v.ID, "n"), s.SetStorageHealth("n")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInjectAnswer: a method may answer what no backend should.
func TestInjectAnswer(t *testing.T) {
	b, ctx := open(t, nil), t.Context()
	v := create(t, b, "v")
	remove := b.Inject(Fault{Method: "Volume", At: After, Answer: func(a any) any {
		other := *a.(*backends.Volume)
		other.Capacity = -1
		return &other
	}})
	got, err := b.Volume(ctx, backends.VolumeRequest{ID: v.ID})
	if err != nil || got.Capacity != -1 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := b.Volume(ctx, backends.VolumeRequest{ID: "none"}); got != nil || !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("of a method that failed: %+v, %v", got, err)
	}
	remove()
	b.Inject(Fault{Method: "Volume", At: After, Answer: func(any) any { return (*backends.Volume)(nil) }})
	if got, err := b.Volume(ctx, backends.VolumeRequest{ID: v.ID}); got != nil || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}
