package csidriver

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// blockedStage is a NodeStageVolume that waits for release, or for its context.
func blockedStage(release <-chan struct{}) (f *fakeServices, entered chan struct{}) {
	entered = make(chan struct{}, 8)
	return &fakeServices{stage: func(ctx context.Context, _ *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
		entered <- struct{}{}
		select {
		case <-release:
			return &csi.NodeStageVolumeResponse{}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}, entered
}

func stageAsync(t *testing.T, c csi.NodeClient, id string) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := c.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: id})
		done <- err
	}()
	return done
}

// TestDrainWaits: a call that runs when the driver is told to stop is answered.
func TestDrainWaits(t *testing.T) {
	release := make(chan struct{})
	f, entered := blockedStage(release)
	draining := make(chan struct{})
	o := &ServerOptions{Operations: func(context.Context) []string { close(draining); return nil }}
	conn, stop := serveFake(t, o, f)
	answer := stageAsync(t, csi.NewNodeClient(conn), "pvc-1")
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	select {
	case err := <-stopped:
		t.Fatalf("stopped under a running call: %v", err)
	case <-draining:
		t.Fatal("operations were drained before the calls that may start some")
	case <-refused(conn.Target()):
	}
	close(release)
	if err := <-answer; err != nil {
		t.Errorf("the call: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve: %v", err)
	}
	<-draining
}

// refused is closed when nobody accepts at target any more.
func refused(target string) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := net.Dial("unix", strings.TrimPrefix(target, "unix://"))
			if err != nil {
				return
			}
			_ = c.Close() // only asks whether it can be opened
		}
	}()
	return done
}

// TestDrainCuts: what does not end in time is cut and named, and its caller is
// answered with a code that is not final.
func TestDrainCuts(t *testing.T) {
	f, entered := blockedStage(nil)
	conn, stop := serveFake(t, &ServerOptions{Drain: time.Nanosecond}, f)
	answer := stageAsync(t, csi.NewNodeClient(conn), "pvc-slow")
	<-entered
	err := stop()
	var cut *DrainError
	if !errors.As(err, &cut) || len(cut.Cut) != 1 {
		t.Fatalf("Serve: %v", err)
	}
	if s := cut.Cut[0]; !strings.HasPrefix(s, "NodeStageVolume pvc-slow (request ") || !strings.Contains(s, "running for ") {
		t.Errorf("cut: %s", s)
	}
	if code := status.Code(<-answer); code != codes.Unavailable && code != codes.Canceled {
		t.Errorf("the cut call got the final code %v", code)
	}
}

// TestDrainLeavesHungHandler: a handler that looks at nothing does not hold the
// process.
func TestDrainLeavesHungHandler(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	entered := make(chan struct{}, 1)
	f := &fakeServices{stage: func(context.Context, *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
		entered <- struct{}{}
		<-release
		return nil, errors.New("late")
	}}
	conn, stop := serveWith(t, patience{}, &ServerOptions{Drain: time.Nanosecond}, f)
	stageAsync(t, csi.NewNodeClient(conn), "pvc-hung")
	<-entered
	var cut *DrainError
	if err := stop(); !errors.As(err, &cut) || len(cut.Cut) != 1 {
		t.Errorf("Serve: %v", err)
	}
}

// TestDrainOperations: what the operations had to cut is in the report, and a
// call that waits for one still gets its answer.
func TestDrainOperations(t *testing.T) {
	cancelled := make(chan struct{})
	entered := make(chan struct{}, 1)
	f := &fakeServices{stage: func(context.Context, *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
		entered <- struct{}{}
		<-cancelled
		return nil, status.Error(codes.Aborted, "its operation was cut")
	}}
	o := &ServerOptions{Drain: time.Nanosecond, Operations: func(ctx context.Context) []string {
		<-ctx.Done()
		close(cancelled)
		return []string{"NodeStageVolume pvc-1 (mkfs, 3s)"}
	}}
	conn, stop := serveFake(t, o, f)
	answer := stageAsync(t, csi.NewNodeClient(conn), "pvc-1")
	<-entered
	var cut *DrainError
	if err := stop(); !errors.As(err, &cut) || len(cut.Cut) != 1 || cut.Cut[0] != "NodeStageVolume pvc-1 (mkfs, 3s)" {
		t.Errorf("Serve: %v", err)
	}
	if err := <-answer; status.Code(err) != codes.Aborted {
		t.Errorf("the call: %v", err)
	}
}

// TestDrainHungOperations: operations that do not even answer are given up on.
func TestDrainHungOperations(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	o := &ServerOptions{Drain: time.Nanosecond, Operations: func(context.Context) []string { <-hang; return nil }}
	conn, stop := serveWith(t, patience{}, o, new(fakeServices))
	if err := probe(t, conn); err != nil {
		t.Fatal(err)
	}
	var cut *DrainError
	if err := stop(); !errors.As(err, &cut) {
		t.Errorf("Serve: %v", err)
	}
}

// TestCallsRunning: in order of their start, whichever end first.
func TestCallsRunning(t *testing.T) {
	for gone := range 4 {
		var l calls
		all := make([]*call, 4)
		for i := range all {
			all[i] = &call{method: newMethod("/csi.v1.Node/M" + string(rune('0'+i))), ids: newRequestIDs()}
			l.add(all[i])
		}
		l.remove(all[gone])
		got := ""
		for _, name := range l.running() {
			got += name[1:2]
		}
		if want := strings.Replace("0123", string(rune('0'+gone)), "", 1); got != want {
			t.Errorf("without %d: %s, want %s", gone, got, want)
		}
		for _, c := range all[:gone] {
			l.remove(c)
		}
		for _, c := range all[gone+1:] {
			l.remove(c)
		}
		if left := l.running(); l.first != nil || len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
}

func TestServeListenerBreaks(t *testing.T) {
	lis := mustListen(t, t.TempDir()+"/csi.sock")
	closeListener(t, lis)
	if err := NewServer(nil, new(fakeServices).register).Serve(t.Context(), lis); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
}
