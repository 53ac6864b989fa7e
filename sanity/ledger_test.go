package sanity

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csikit/csikit/csidriver"
)

// TestLedger: what was made and not deleted is known, once.
func TestLedger(t *testing.T) {
	var l ledger
	volume := func(id string) *csi.CreateVolumeResponse {
		return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: id}}
	}
	l.note(nil, volume("a"))
	l.note(nil, volume("a"))
	l.note(nil, volume("b"))
	l.note(nil, volume(""))
	l.note(nil, &csi.CreateSnapshotResponse{Snapshot: &csi.Snapshot{SnapshotId: "a"}})
	l.note(nil, &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: &csi.VolumeGroupSnapshot{GroupSnapshotId: "g", Snapshots: []*csi.Snapshot{{SnapshotId: "m"}}}})
	l.note(&csi.DeleteVolumeRequest{VolumeId: "a"}, &csi.DeleteVolumeResponse{})
	if len(l.made) != 3 || !l.made[0].is("volume", "b") || !l.made[1].is("snapshot", "a") || !l.made[2].is("group", "g") || l.made[2].Members[0] != "m" {
		t.Errorf("made: %+v", l.made)
	}
}

// TestTakeBack deletes what csi-sanity left, and names what it cannot.
func TestTakeBack(t *testing.T) {
	s := newStorage()
	cfg := Config{Endpoint: serve(t, s)}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	if err := waitReady(t.Context(), cfg.Endpoint); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "left.json")
	if err := takeBack(t.Context(), file, &cfg); err != nil {
		t.Errorf("no child: %v", err)
	}
	s.volumes["v1"] = nil
	if err := writeJSON(file, []made{{Kind: "volume", ID: "v1"}, {Kind: "snapshot", ID: "s1"}}); err != nil {
		t.Fatal(err)
	}
	err := takeBack(t.Context(), file, &cfg)
	if _, there := s.volumes["v1"]; there || err == nil || !strings.Contains(err.Error(), "left behind: snapshot s1: rpc error: code = Unimplemented") || strings.Contains(err.Error(), "v1") {
		t.Errorf("%v, volumes %v", err, s.volumes)
	}
	cfg.Endpoint = "unix://" + t.TempDir() + "/gone"
	if err := takeBack(t.Context(), file, &cfg); err == nil || !strings.Contains(err.Error(), "volume v1: the driver does not answer") {
		t.Errorf("nobody answers: %v", err)
	}
}

// TestWrongEndpoint: said once, before anything is made.
func TestWrongEndpoint(t *testing.T) {
	half := func(what csidriver.Services) string {
		s := newStorage()
		c := s.config().Driver
		c.Serve = what
		return serveConfig(t, c, s)
	}
	controller, node := half(csidriver.ServeController), half(csidriver.ServeNode)
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"controller alone": {Config{Endpoint: controller}, "no Node service at unix:"},
		"node alone":       {Config{Endpoint: node}, "has a Controller service, and it is not at unix:"},
		"swapped":          {Config{Endpoint: controller, ControllerEndpoint: node}, "no Node service"},
	} {
		r, err := Check(t.Context(), c.cfg, nil)
		if len(r.Results) > 0 || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %d results, %v", name, len(r.Results), err)
		}
	}
}

// serveConfig gives the endpoint of a driver.
func serveConfig(t *testing.T, c csidriver.Config, s *storage) string {
	t.Helper()
	d, err := csidriver.New(c, &csidriver.Options{NodeID: "n", Engine: engine{s}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "csi.sock")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, path) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

// TestDriverGone: said once, beside all that fails then.
func TestDriverGone(t *testing.T) {
	s := newStorage()
	d, err := csidriver.New(s.config().Driver, &csidriver.Options{NodeID: "n", Engine: engine{s}, Drain: time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, kill := context.WithCancel(t.Context())
	path := filepath.Join(t.TempDir(), "csi.sock")
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, path) }()
	h := heard{onEnd: func(Result) { kill() }}
	r, err := Check(t.Context(), Config{Endpoint: path}, &h)
	if r.Count(Fail) == 0 || err == nil || !strings.Contains(err.Error(), "does not answer any more") {
		t.Errorf("%v, %v", r.Counts, err)
	}
	if err := <-done; err != nil {
		t.Logf("the driver: %v", err)
	}
}
