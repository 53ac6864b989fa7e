package lvm

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/iolimit"
	"github.com/csikit/csikit/backends/internal/iolimit/iolimittest"
)

// withLimits is a Backend over a fakeVG whose limits a fake keeps.
func withLimits(t testing.TB, f *fakeVG, o Options) (*Backend, *iolimittest.Fake) {
	t.Helper()
	o.Cgroup = "/sys/fs/cgroup/pods"
	b := onFake(t, f, o)
	limits := &iolimittest.Fake{}
	b.throttle = limits
	return b, limits
}

func modify(t testing.TB, b *Backend, id string, pairs ...string) error {
	t.Helper()
	req := backends.ModifyVolumeRequest{ID: id, Mutable: map[string]string{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		req.Mutable[pairs[i]] = pairs[i+1]
	}
	return b.ModifyVolume(t.Context(), req)
}

func TestModify(t *testing.T) {
	f := newFake()
	b, kept := withLimits(t, f, testOptions())
	v, err := b.CreateVolume(t.Context(), backends.CreateVolumeRequest{
		Name: "pvc-1", Size: 8 << 20,
		Parameters: map[string]string{paramClass: "raid1", "read-bps": "1Mi", "write-iops": "100"},
		Mutable:    map[string]string{"write-iops": "200", paramReadAhead: "128Ki", paramResync: "10Mi"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"read-bps": "1Mi", "write-iops": "200", paramReadAhead: "128Ki", paramResync: "10Mi"}
	if !maps.Equal(v.Mutable, want) {
		t.Errorf("%v", v.Mutable)
	}
	if c := f.last("lvcreate"); !strings.Contains(c, "--readahead 256 ") || !strings.Contains(c, "--maxrecoveryrate 10240k ") {
		t.Error(c)
	}
	opened(t, b, v.ID, false)
	if got := kept.Some(); !slices.Equal(got, []iolimit.Limits{{1 << 20, 0, 0, 200}}) {
		t.Errorf("opened: %v", got)
	}
	if err := modify(t, b, v.ID, "read-bps", "max", "write-bps", "2Mi", paramReadAhead, "auto", paramResync, "max"); err != nil {
		t.Fatal(err)
	}
	if got := kept.Some(); !slices.Equal(got, []iolimit.Limits{{0, 2 << 20, 0, 200}}) {
		t.Errorf("modified: %v", got)
	}
	maps.Copy(want, map[string]string{"read-bps": "max", "write-bps": "2Mi", paramReadAhead: "auto", paramResync: "max"})
	if got, err := b.Volume(t.Context(), backends.VolumeRequest{ID: v.ID}); err != nil || !maps.Equal(got.Mutable, want) {
		t.Errorf("%v, %v", got, err)
	}
	if c := f.last("lvchange"); !strings.Contains(c, "--readahead auto ") || !strings.Contains(c, "--maxrecoveryrate 0 ") {
		t.Error(c)
	}
	before := len(f.commands)
	if err := modify(t, b, v.ID, "read-bps", "max"); err != nil || f.count(before, "lvchange") != 0 {
		t.Errorf("what it is already: %v, %q", err, f.commands[before:])
	}
	for _, bad := range [][]string{
		{"read-bps", "1"}, {paramReadAhead, "1000"}, {paramReadAhead, "1Gi"}, {paramReadAhead, ""}, {paramResync, "1"}, {paramClass, "thin"}, {"size", "1"}, {"write-bps", "3Mi", "x", "y"},
	} {
		if err := modify(t, b, v.ID, bad...); !errors.Is(err, backends.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	plain := createVolume(t, b, "pvc-2", "linear", 8<<20)
	if err := modify(t, b, plain.ID, paramResync, "1Mi"); !errors.Is(err, backends.ErrInvalid) {
		t.Errorf("no RAID: %v", err)
	}
	// The limits go with the device: the next one with its number is somebody else's.
	if err := b.CloseVolume(t.Context(), backends.CloseVolumeRequest{ID: v.ID}); err != nil {
		t.Fatal(err)
	}
	if got := kept.Some(); len(got) != 0 {
		t.Errorf("closed: %v", got)
	}
	// Written down and not applied is UNAVAILABLE, so that it is asked for again.
	opened(t, b, v.ID, false)
	kept.Broken = errors.New("I/O error")
	if err := modify(t, b, v.ID, "read-bps", "4Mi"); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("not applied: %v", err)
	}
	kept.Broken = nil
	if err := modify(t, b, v.ID, "read-bps", "4Mi"); err != nil || !slices.Equal(kept.Some(), []iolimit.Limits{{4 << 20, 2 << 20, 0, 200}}) {
		t.Errorf("again: %v, %v", err, kept.Some())
	}
	// A cgroup that was made anew has none, until the driver starts.
	kept.Forget()
	h, err := b.NodeVolumeHealth(t.Context(), backends.NodeHealthRequest{ID: v.ID})
	if err != nil || len(h) != 1 || h[0].Reason != "LimitsNotApplied" {
		t.Errorf("%+v, %v", h, err)
	}
	if err := b.RecoverNode(t.Context(), []backends.OpenVolume{{ID: v.ID}}); err != nil || len(kept.Some()) != 1 {
		t.Errorf("recovered: %v, %v", err, kept.Some())
	}
}

// last is the last command of a kind.
func (f *fakeVG) last(what string) string {
	for _, c := range slices.Backward(f.commands) {
		if strings.HasPrefix(c, what+" ") {
			return c
		}
	}
	return ""
}

// count tells how many commands there were of a kind, "": of any, from one on.
func (f *fakeVG) count(from int, what string) (n int) {
	for _, c := range f.commands[from:] {
		if strings.HasPrefix(c, what) {
			n++
		}
	}
	return n
}

// Limits that nobody keeps are no limits.
func TestLimitsWithoutCgroup(t *testing.T) {
	f := newFake()
	b, kept := withLimits(t, f, testOptions())
	v := createVolume(t, b, "pvc-1", "linear", 8<<20)
	if err := modify(t, b, v.ID, "read-bps", "1Mi"); err != nil {
		t.Fatal(err)
	}
	kept.Missing = backends.ErrPrecondition
	if _, err := b.OpenVolume(t.Context(), backends.OpenVolumeRequest{ID: v.ID}); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("opened without its limits: %v", err)
	}
	if err := modify(t, b, v.ID, "read-bps", "2Mi"); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("modified: %v", err)
	}
	if err := modify(t, b, v.ID, "read-bps", "0"); err != nil {
		t.Errorf("lifted: %v", err)
	}
	off := onFake(t, f, testOptions())
	if slices.ContainsFunc(off.Traits().Parameters, func(p backends.Parameter) bool { return iolimit.Is(p.Name) }) {
		t.Error("parameters without Options.Cgroup")
	}
	if err := modify(t, off, v.ID, "read-bps", "1Mi"); !errors.Is(err, backends.ErrInvalid) {
		t.Errorf("without Options.Cgroup: %v", err)
	}
}

func TestModifyKilled(t *testing.T) {
	id := makeID("linear", nameOf(kindVolume, "pvc-1"))
	change := func(t *testing.T, b *Backend) error { return modify(t, b, id, paramReadAhead, "1Mi") }
	killed(t, "linear", create("pvc-1", "linear"), change, func(t *testing.T, _ *fakeVG, b *Backend) {
		v, err := b.Volume(t.Context(), backends.VolumeRequest{ID: id})
		if err != nil || v.Mutable[paramReadAhead] != "" && v.Mutable[paramReadAhead] != "1Mi" {
			t.Errorf("%+v, %v", v, err)
		}
		if err := change(t, b); err != nil {
			t.Error(err)
		}
	})
}
