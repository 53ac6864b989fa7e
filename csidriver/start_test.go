package csidriver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
)

func TestListenEarlyReadyLate(t *testing.T) {
	release := make(chan struct{})
	r, ctx := newRig(t, func(s *setup) {
		s.engine.hook = func(_ context.Context, method string) error {
			if method == "Start" {
				<-release
			}
			return nil
		}
	}), t.Context()
	probed, err := r.Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
	wantCode(t, err, codes.OK)
	if probed.GetReady() == nil || probed.GetReady().GetValue() {
		t.Errorf("probe while starting: %v", probed)
	}
	for name, call := range map[string]func() error{
		"GetPluginInfo":         func() error { _, err := r.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}); return err },
		"GetPluginCapabilities": func() error { _, err := r.GetPluginCapabilities(ctx, &csi.GetPluginCapabilitiesRequest{}); return err },
		"NodeGetInfo":           func() error { _, err := r.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{}); return err },
		"NodeGetCapabilities":   func() error { _, err := r.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{}); return err },
		"ControllerGetCapabilities": func() error {
			_, err := r.ControllerGetCapabilities(ctx, &csi.ControllerGetCapabilitiesRequest{})
			return err
		},
	} {
		if err := call(); err != nil {
			t.Errorf("%s while starting: %v", name, err)
		}
	}
	_, err = r.CreateVolume(ctx, createReq("v"))
	wantCode(t, err, codes.Unavailable, "starting")
	_, err = r.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "v", TargetPath: "/t"})
	wantCode(t, err, codes.Unavailable, "starting")
	close(release)
	r.ready(t)
	_, err = r.CreateVolume(ctx, createReq("v"))
	wantCode(t, err, codes.OK)
}

func TestRecoveryFails(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.backend.hook = func(_ context.Context, method string) error {
			if method == "Recover" {
				return errors.New("the pool is not ours")
			}
			return nil
		}
	})
	// Serve ends by itself: stop only waits for it.
	for !strings.Contains(r.log.String(), "draining") {
		time.Sleep(time.Millisecond)
	}
	if err := r.stop(); err == nil || !strings.Contains(err.Error(), "recover controller: the pool is not ours") {
		t.Errorf("Serve: %v", err)
	}
}

// TestStopWhileStarting: a recovery that is cut short is no failure, and is waited
// for.
func TestStopWhileStarting(t *testing.T) {
	begun := make(chan struct{})
	r := newRig(t, func(s *setup) {
		s.engine.hook = func(ctx context.Context, method string) error {
			if method == "Start" {
				close(begun)
				<-ctx.Done()
				time.Sleep(50 * time.Millisecond) // later than the server; too short proves less, and breaks nothing
			}
			return ctx.Err()
		}
	})
	<-begun
	if err := r.stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestRecoveryIsTriedAgain(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		tries := 0
		d := &Driver{logger: slog.New(slog.DiscardHandler)}
		begin := time.Now()
		err := d.retry(t.Context(), "node", func(context.Context) error {
			if tries++; tries < 8 {
				return fmt.Errorf("no route: %w", backends.ErrUnavailable)
			}
			return nil
		})
		if err != nil || tries != 8 || time.Since(begin) != (1+2+4+8+16+30+30)*time.Second {
			t.Errorf("%d tries in %v: %v", tries, time.Since(begin), err)
		}
		if err := d.retry(t.Context(), "node", func(context.Context) error { panic("x") }); !errors.Is(err, errPanic) {
			t.Errorf("a panic gave %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := d.retry(ctx, "node", func(context.Context) error { return backends.ErrNotReady }); !errors.Is(err, backends.ErrNotReady) {
			t.Errorf("at the end of the context: %v", err)
		}
	})
}

// TestRecoveryThatHangs: it does not keep the driver from stopping.
func TestRecoveryThatHangs(t *testing.T) {
	release := make(chan struct{})
	r := newRig(t, func(s *setup) {
		s.wait.stop = 0
		s.engine.hook = func(_ context.Context, method string) error {
			if method == "Start" {
				<-release
			}
			return nil
		}
	})
	defer close(release)
	_, err := r.Probe(t.Context(), &csi.ProbeRequest{}, grpc.WaitForReady(true))
	wantCode(t, err, codes.OK)
	drain := (*DrainError)(nil)
	if err := r.stop(); !errors.As(err, &drain) || !strings.Contains(drain.Error(), "recovery") {
		t.Errorf("stopped with %v", err)
	}
}

func TestServesOnce(t *testing.T) {
	r := startRig(t, nil)
	lis, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.driver.Serve(t.Context(), lis); err == nil || !strings.Contains(err.Error(), "serves once") {
		t.Errorf("Serve: %v", err)
	}
}

func TestRunRefuses(t *testing.T) {
	t.Setenv(EndpointEnv, "")
	d, err := New(plainConfig(), quietOptions())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Run(t.Context(), ""); err == nil {
		t.Error("no endpoint is accepted")
	}
	if err := d.Run(t.Context(), "tcp://127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("TCP in clear: %v", err)
	}
}

// TestDrainNamesOperations: what was cut at shutdown is named with its step.
func TestDrainNamesOperations(t *testing.T) {
	begun := make(chan struct{})
	r := startRig(t, func(s *setup) {
		s.opts.Drain = time.Millisecond
		s.backend.hook = func(ctx context.Context, method string) error {
			if method == "CreateVolume" {
				backends.Progress(ctx, "copying")
				close(begun)
				<-ctx.Done()
			}
			return nil
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	_, err := r.CreateVolume(ctx, createReq("v"))
	wantCode(t, err, codes.Canceled)
	cut := (*DrainError)(nil)
	if err := r.stop(); !errors.As(err, &cut) || len(cut.Cut) != 1 || !strings.Contains(cut.Cut[0], `CreateVolume v (at step "copying")`) {
		t.Errorf("Serve: %v", err)
	}
}

// TestInterceptorsAndServicesOfTheAuthor see statuses and may answer their own.
func TestInterceptorsAndServicesOfTheAuthor(t *testing.T) {
	var seen atomic.Uint32
	r, ctx := startRig(t, func(s *setup) {
		s.opts.UnaryInterceptors = []grpc.UnaryServerInterceptor{func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if info.FullMethod == csi.Controller_DeleteVolume_FullMethodName {
				return nil, status.Error(codes.PermissionDenied, "not you")
			}
			resp, err := handler(ctx, req)
			if err != nil {
				seen.Store(uint32(status.Code(err)))
			}
			return resp, err
		}}
		s.opts.Register = func(g *grpc.Server) { healthpb.RegisterHealthServer(g, grpchealth.NewServer()) }
	}), t.Context()
	_, err := r.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: "x"})
	wantCode(t, err, codes.PermissionDenied, "not you")
	_, err = r.ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: "x"})
	wantCode(t, err, codes.NotFound)
	if codes.Code(seen.Load()) != codes.NotFound {
		t.Errorf("the interceptor saw %v", codes.Code(seen.Load()))
	}
}

func TestProbe(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		var answer error
		asked := 0
		m := newMemory()
		m.hook = func(_ context.Context, method string) error {
			asked++
			if method == "Probe" && answer != nil && answer.Error() == "panic" {
				panic("x")
			}
			return answer
		}
		cfg, o := plainConfig(), quietOptions()
		cfg.Controller, cfg.Node, cfg.Traits = m, m, memoryTraits()
		d, err := New(cfg, o)
		if err != nil {
			t.Fatal(err)
		}
		defer d.server.grpc.Stop() // its workers
		ask := func(wantReady bool, wantErr error) {
			t.Helper()
			ready, err := d.health.ask(t.Context())
			if ready != wantReady || (err == nil) != (wantErr == nil) || wantErr != nil && !errors.Is(err, wantErr) {
				t.Errorf("ready %v, error %v; want %v, %v", ready, err, wantReady, wantErr)
			}
		}
		ask(false, nil) // starting
		if asked != 0 {
			t.Error("the backend was asked while starting")
		}
		d.ready.Store(true)
		ask(true, nil)
		ask(true, nil)
		if asked != 1 { // both halves are one value, and the answer is kept
			t.Errorf("asked %d times", asked)
		}
		answer = fmt.Errorf("warming up: %w", backends.ErrNotReady)
		ask(true, nil)
		time.Sleep(probeAge)
		ask(false, nil)
		answer = backends.ErrUnavailable
		time.Sleep(probeAge)
		ask(false, backends.ErrUnavailable)
		answer = errors.New("panic")
		time.Sleep(probeAge)
		ask(false, errPanic)
	})
}

// TestProbeOfASlowBackend: one question at a time, and no caller waits longer
// than it wants.
func TestProbeOfASlowBackend(t *testing.T) {
	testenv.Bubble(t, func(t *testing.T) {
		var asked atomic.Int32
		m := newMemory()
		m.hook = func(ctx context.Context, _ string) error {
			asked.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}
		cfg, o := plainConfig(), quietOptions()
		cfg.Controller, cfg.Node, cfg.Traits = m, m, memoryTraits()
		d, err := New(cfg, o)
		if err != nil {
			t.Fatal(err)
		}
		defer d.server.grpc.Stop() // its workers
		d.ready.Store(true)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := d.health.ask(ctx)
			wantCode(t, toRPC(ctx, csi.Identity_Probe_FullMethodName, err), codes.DeadlineExceeded)
			cancel()
		}
		if asked.Load() != 1 {
			t.Errorf("asked %d times", asked.Load())
		}
		ready, err := d.health.ask(t.Context()) // until probeLimit
		if ready || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ready %v, %v", ready, err)
		}
	})
}
