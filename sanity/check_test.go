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
	ended []Spec
	onEnd func(Spec)
}

func (h *heard) Begin(name string) { h.begun = append(h.begun, name) }
func (h *heard) End(s Spec) {
	h.ended = append(h.ended, s)
	if h.onEnd != nil {
		h.onEnd(s)
	}
}

func count(specs []Spec, o Outcome) (n int) {
	for _, s := range specs {
		if s.Outcome == o {
			n++
		}
	}
	return n
}

// TestCheck: the same specs as Run's, told while they run; nothing is left.
func TestCheck(t *testing.T) {
	s := newStorage()
	s.onPublish = func(string) error { return fmt.Errorf("%w: no room for the mount", backends.ErrFailed) }
	var h heard
	dir := t.TempDir()
	specs, err := Check(t.Context(), Config{Endpoint: serve(t, s), Dir: dir}, &h)
	if err != nil {
		t.Fatal(err)
	}
	if count(specs, Passed) < 30 || count(specs, Failed) == 0 || count(specs, Skipped) == 0 {
		t.Errorf("passed %d, failed %d, skipped %d", count(specs, Passed), count(specs, Failed), count(specs, Skipped))
	}
	if !slices.Equal(h.ended, specs) {
		t.Errorf("told of %d specs, returned %d", len(h.ended), len(specs))
	}
	if len(h.begun) == 0 || !slices.ContainsFunc(specs, func(s Spec) bool { return s.Name == h.begun[0] }) {
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
	h := heard{onEnd: func(s Spec) {
		if s.Outcome == Passed && strings.Contains(s.Name, "CreateVolume") {
			cancel()
		}
	}}
	specs, err := Check(ctx, Config{Endpoint: serve(t, s)}, &h)
	if !errors.Is(err, context.Canceled) || count(specs, Skipped) < 30 {
		t.Errorf("%v; skipped %d", err, count(specs, Skipped))
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
	_, err := Check(t.Context(), Config{Endpoint: serve(t, s), Dir: dir}, nil)
	if err == nil || !strings.Contains(err.Error(), "something is left below "+dir) {
		t.Errorf("check: %v", err)
	}
	if found, err := filepath.Glob(filepath.Join(dir, "*", "target", "forgotten")); err != nil || len(found) != 1 {
		t.Errorf("left: %v, %v", found, err)
	}
}

func TestCheckRefused(t *testing.T) {
	for _, cfg := range []Config{{}, newStorage().config(), {Endpoint: "x"}} {
		if _, err := Check(t.Context(), cfg, nil); err == nil {
			t.Errorf("accepted: %+v", cfg)
		}
	}
}
