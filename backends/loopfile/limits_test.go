package loopfile

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit"
	"github.com/csikit/csikit/backends/internal/iolimit/iolimittest"
)

// withLimits opens a backend whose limits a fake keeps.
func withLimits(t testing.TB, o Options, f *iolimittest.Fake) *Backend {
	t.Helper()
	o.Cgroup = "/sys/fs/cgroup/pods"
	b := open(t, o)
	b.throttle = f
	return b
}

func modify(t testing.TB, b *Backend, id string, pairs ...string) error {
	t.Helper()
	req := backends.ModifyVolumeRequest{ID: id, Mutable: map[string]string{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		req.Mutable[pairs[i]] = pairs[i+1]
	}
	return b.ModifyVolume(t.Context(), req)
}

// wantMutable says what a volume was asked for last.
func wantMutable(t testing.TB, b *Backend, id string, want map[string]string) {
	t.Helper()
	v, err := b.Volume(t.Context(), backends.VolumeRequest{ID: id})
	if err != nil || !maps.Equal(v.Mutable, want) {
		t.Errorf("mutable %v, %v; want %v", v.Mutable, err, want)
	}
}

func TestModify(t *testing.T) {
	o := testOptions(t)
	b := withLimits(t, o, &iolimittest.Fake{})
	req := request("v", mib, paramType, typeThin, "read-bps", "1Mi", "read-iops", "50")
	req.Mutable = map[string]string{"read-iops": "70", "write-iops": "max"}
	v, err := b.CreateVolume(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"read-bps": "1Mi", "read-iops": "70", "write-iops": "max"}
	if !maps.Equal(v.Mutable, want) {
		t.Errorf("created with %v", v.Mutable)
	}
	wantMutable(t, b, v.ID, want)
	for range 2 {
		if err := modify(t, b, v.ID, "write-bps", "5M", "read-bps", "0"); err != nil {
			t.Fatal(err)
		}
	}
	want["write-bps"], want["read-bps"] = "5M", "0"
	wantMutable(t, b, v.ID, want)
	for _, bad := range [][]string{{"read-bps", "2Mi", "x", "y"}, {"read-bps", "2Mi", "write-bps", "fast"}, {"type", "thick"}} {
		if err := modify(t, b, v.ID, bad...); !errors.Is(err, backends.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := modify(t, b, v.ID); err != nil {
		t.Errorf("nothing: %v", err)
	}
	missing := strings.TrimSuffix(v.ID, dirOf("v")) + dirOf("missing")
	if err := modify(t, b, missing, "read-bps", "1Mi"); !notFoundIs(err, missing) {
		t.Errorf("missing: %v", err)
	}
	b.Close()
	b = withLimits(t, o, &iolimittest.Fake{})
	wantMutable(t, b, v.ID, want)
	// A copy has the limits that it is asked for, not its source's.
	c, err := b.CloneVolume(t.Context(), *v, request("c", mib, paramType, typeThin, "write-iops", "20"))
	if err != nil || !maps.Equal(c.Mutable, map[string]string{"write-iops": "20"}) {
		t.Errorf("clone %+v, %v", c, err)
	}
}

// TestLimitsWithoutCgroup: what nobody keeps is refused, at creation and later;
// lifting a limit needs nothing.
func TestLimitsWithoutCgroup(t *testing.T) {
	f := &iolimittest.Fake{Missing: fmt.Errorf("%w: no io.max", backends.ErrPrecondition)}
	b := withLimits(t, testOptions(t), f)
	req := request("v", mib, paramType, typeThin)
	req.Mutable = map[string]string{"read-bps": "1Mi"}
	if _, err := b.CreateVolume(t.Context(), req); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("create: %v", err)
	}
	if left := entries(t, b.o.Pool, volumesDir); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	wantClean(t, b.o.Pool)
	req.Mutable = map[string]string{"read-bps": "max"}
	v, err := b.CreateVolume(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := modify(t, b, v.ID, "write-iops", "100"); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("modify: %v", err)
	}
	wantMutable(t, b, v.ID, map[string]string{"read-bps": "max"})
	if err := modify(t, b, v.ID, "write-iops", "0"); err != nil {
		t.Errorf("lift: %v", err)
	}
	// The real one, on a directory that is none, and on none.
	for _, dir := range []string{t.TempDir(), "/nonexistent"} {
		if err := iolimit.Cgroup(dir).Check(); !errors.Is(err, backends.ErrPrecondition) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// TestLimitsOff: without Options.Cgroup there is no such parameter.
func TestLimitsOff(t *testing.T) {
	b := open(t, testOptions(t))
	for _, p := range b.Traits().Parameters {
		if p.Mutable {
			t.Errorf("%+v", p)
		}
	}
	if backends.DetectController(b).Modifier != nil {
		t.Error("a Modifier")
	}
	if _, err := b.CreateVolume(t.Context(), request("v", mib, paramType, typeThin, "read-bps", "1Mi")); !errors.Is(err, backends.ErrInvalid) {
		t.Error(err)
	}
	v := create(t, b, "v", mib, paramType, typeThin)
	if v.Mutable != nil {
		t.Errorf("%+v", v)
	}
	o := b.o
	o.Cgroup = "pods"
	if err := o.check(); err == nil {
		t.Error("a relative path")
	}
	o.Cgroup = "/sys/fs/cgroup/pods"
	if f := backends.DetectController(&Backend{o: o}); f.Modifier == nil || len(Traits(o).Parameters) != len(Traits(b.o).Parameters)+len(iolimit.Limits{}) {
		t.Errorf("%+v", Traits(o))
	}
}
