package sanity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

// serve gives the endpoint of a driver of s.
func serve(t *testing.T, s *storage) string {
	t.Helper()
	return serveConfig(t, s.config().Driver, s)
}

// heard notes what a Listener is told.
type heard struct {
	begun []string
	ended []Result
	onEnd func(Result)
}

func (h *heard) Begin(name string) { h.begun = append(h.begun, name) }
func (h *heard) End(r Result) {
	h.ended = append(h.ended, r)
	if h.onEnd != nil {
		h.onEnd(r)
	}
}

// TestCheck: the same specs as Run's, told while they run; nothing is left.
func TestCheck(t *testing.T) {
	s := newStorage()
	s.onPublish = func(string) error { return fmt.Errorf("%w: no room for the mount", backends.ErrFailed) }
	var h heard
	dir := t.TempDir()
	r, err := Check(t.Context(), Config{Endpoint: serve(t, s), Dir: dir, Only: []string{csiSanity}}, &h)
	if err != nil {
		t.Fatal(err)
	}
	if r.Count(Pass) < 30 || r.Count(Fail) == 0 || r.Count(NotApplicable) == 0 {
		t.Errorf("%v", r.Counts)
	}
	if len(h.ended) != len(r.Results) {
		t.Errorf("told of %d specs, returned %d", len(h.ended), len(r.Results))
	}
	if len(h.begun) == 0 || !slices.ContainsFunc(r.Results, func(r Result) bool { return r.ID == h.begun[0] }) {
		t.Errorf("begun: %v", h.begun)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestCheckStops: when the caller has had enough, the rest is skipped, and
// csi-sanity deletes what it made.
func TestCheckStops(t *testing.T) {
	s := newStorage()
	ctx, cancel := context.WithCancel(t.Context())
	h := heard{onEnd: func(r Result) {
		if r.Verdict == Pass && strings.Contains(r.ID, "CreateVolume") {
			cancel()
		}
	}}
	r, err := Check(ctx, Config{Endpoint: serve(t, s)}, &h)
	if !errors.Is(err, context.Canceled) || r.Count(NotApplicable) < 30 {
		t.Errorf("%v; %v", err, r.Counts)
	}
	if len(s.volumes) > 0 {
		t.Errorf("volumes left: %v", s.volumes)
	}
}

// TestCheckLeft: what a driver forgets is named and stays.
func TestCheckLeft(t *testing.T) {
	s, dir := newStorage(), t.TempDir()
	s.onPublish = func(path string) error {
		return os.WriteFile(filepath.Join(filepath.Dir(path), "forgotten"), nil, 0o600)
	}
	_, err := Check(t.Context(), Config{Endpoint: serve(t, s), Dir: dir, Only: []string{csiSanity}}, nil)
	if err == nil || !strings.Contains(err.Error(), "something is left below "+dir) {
		t.Errorf("check: %v", err)
	}
	if found, err := filepath.Glob(filepath.Join(dir, "*", "target", "forgotten")); err != nil || len(found) != 1 {
		t.Errorf("left: %v, %v", found, err)
	}
}

func TestCheckRefused(t *testing.T) {
	for _, cfg := range []Config{{}, newStorage().config(), {Endpoint: "x"}, {Endpoint: "/x", Only: []string{"H-99"}}, {Endpoint: "/x", Host: "perhaps"}} {
		if _, err := Check(t.Context(), cfg, nil); err == nil {
			t.Errorf("accepted: %+v", cfg)
		}
	}
}
