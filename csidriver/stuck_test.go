package csidriver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/idempotency"
	"github.com/csikit/csikit/idempotency/debug"
)

// stuckStage starts a driver with a NodeStageVolume of volume v that was cancelled
// and does not end before release is closed.
func stuckStage(t *testing.T, r *recorder) (*rig, chan struct{}) {
	t.Helper()
	begun, release := make(chan struct{}), make(chan struct{})
	s := telemetryRig(t, r, func(s *setup) {
		s.engine.hook = func(ctx context.Context, method string) error {
			if method == "Stage" {
				backends.Progress(ctx, "mkfs.ext4")
				close(begun)
				<-release
			}
			return nil
		}
	})
	// As New makes it, but that nothing is waited for.
	s.driver.operations = idempotency.NewTable(&idempotency.Options{Wait: -1, Grace: -1, Observer: s.driver.operationEvent})
	go func() { _, _ = s.NodeStageVolume(t.Context(), stageReq("v", "/s")) }() // its answer is of no interest
	<-begun
	_, err := s.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: "v", StagingTargetPath: "/s"})
	wantCode(t, err, codes.Aborted, "NodeStageVolume v", "mkfs.ext4")
	for in := s.driver.Running(); len(in) != 1 || !in[0].Stuck; in = s.driver.Running() {
		runtime.Gosched()
	}
	return s, release
}

// TestStuckIsNamed: in the log, the metrics, the table that HTTP shows, the health of
// its volume and of no other, and nowhere any more when it has ended after all.
func TestStuckIsNamed(t *testing.T) {
	m := new(recorder)
	r, release := stuckStage(t, m)
	page := func() string {
		w := httptest.NewRecorder()
		debug.Handler(r.driver).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
		return w.Body.String()
	}
	if p := page(); !strings.Contains(p, "NodeStageVolume v") || !strings.Contains(p, "stuck") || !strings.Contains(p, "mkfs.ext4") {
		t.Errorf("page %s", p)
	}
	if p := m.wait(t, "csikit.operation.stuck", 1); p[0].value != 1 || p[0].attrs.Encoded(attributeEncoder) != "csikit.operation=NodeStageVolume" {
		t.Errorf("stuck %v", p)
	}
	for !strings.Contains(r.log.String(), "does not end; its volume stays locked") {
		runtime.Gosched()
	}
	got, err := nodeHealth(t, r, "v") // which is not staged, as far as the engine knows
	wantCode(t, err, codes.OK)
	if len(got) != 1 || got[0].GetReason() != "OperationStuck" || !strings.Contains(got[0].GetMessage(), "mkfs.ext4") {
		t.Errorf("health %v", got)
	}
	_, err = nodeHealth(t, r, "w")
	wantCode(t, err, codes.NotFound)
	close(release)
	sum := 0.
	for _, p := range m.wait(t, "csikit.operation.stuck", 2) {
		sum += p.value
	}
	for len(r.driver.Running()) > 0 {
		runtime.Gosched()
	}
	if sum != 0 || !strings.HasPrefix(page(), "0 operations") {
		t.Errorf("%v are stuck for ever; page %s", sum, page())
	}
	got, err = nodeHealth(t, r, "v")
	wantCode(t, err, codes.OK)
	wantEntries(t, got)
}

// TestDrainTellsWhatItWaitsFor: in the log at once, and in its error with what was
// cut, its step and its age.
func TestDrainTellsWhatItWaitsFor(t *testing.T) {
	begun := make(chan struct{})
	r := startRig(t, func(s *setup) {
		s.opts.Drain = time.Millisecond
		s.backend.hook = hookOn("CreateVolume", func(ctx context.Context) error {
			backends.Progress(ctx, "copying")
			close(begun)
			<-ctx.Done()
			return ctx.Err()
		})
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	_, err := r.CreateVolume(ctx, createReq("v"))
	wantCode(t, err, codes.Canceled)
	if err := r.stop(); err == nil || !strings.Contains(err.Error(), `CreateVolume v (at step "copying") for `) {
		t.Errorf("Serve: %v", err)
	}
	if log := r.log.String(); !strings.Contains(log, "waiting for operations to end") || !strings.Contains(log, "CreateVolume v") {
		t.Errorf("log %s", log)
	}
}
