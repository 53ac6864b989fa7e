package co

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends/mem"
)

// full runs what make soak runs; make test runs a part of it.
var full = flag.Bool("co.all", false, "all schedules, and ten times as many random ones")

// TestStories: when nothing goes wrong, every place is passed.
func TestStories(t *testing.T) {
	for _, sc := range scenarios() {
		s := newSchedule()
		play(t, sc.name, sc, s)
		for _, p := range sc.places {
			if !s.seen[p.method] {
				t.Errorf("%s: %s is not passed", sc.name, p.method)
			}
		}
	}
}

// TestSchedules: each thing goes wrong at each place.
func TestSchedules(t *testing.T) {
	var all []func()
	n := 0
	for _, sc := range scenarios() {
		for _, s := range pairs(sc.places) {
			if n++; *full || n%13 == 0 {
				all = append(all, func() { play(t, fmt.Sprint(sc.name, "/", s), sc, s) })
			}
		}
	}
	atOnce(all)
	t.Logf("%d of %d schedules", len(all), n)
}

// TestRandomSchedules: a few things go wrong in one story.
func TestRandomSchedules(t *testing.T) {
	seeds := uint64(20)
	if *full {
		seeds = 1000
	}
	var all []func()
	for _, sc := range scenarios() {
		for seed := uint64(1); seed <= seeds; seed++ {
			all = append(all, func() { play(t, fmt.Sprint(sc.name, "/", seed), sc, random(seed, sc.places)) })
		}
	}
	atOnce(all)
}

// plant is a fault of a driver, as an interceptor of it, and a schedule that shows it.
type plant struct {
	name        string
	story       *scenario
	schedule    *schedule
	interceptor grpc.UnaryServerInterceptor
}

func planted() []plant {
	code := func(turn func(st *status.Status) codes.Code) grpc.UnaryServerInterceptor {
		return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			resp, err := h(ctx, req)
			if err == nil {
				return resp, nil
			}
			st := status.Convert(err)
			if c := turn(st); c != codes.OK {
				return nil, status.Error(c, st.Message())
			}
			return nil, err
		}
	}
	atEnd := func(method, what string) *schedule {
		return newSchedule(trouble{method: method, at: mem.After, nth: 1, times: 1, what: what})
	}
	atBegin := func(method, what string) *schedule {
		return newSchedule(trouble{method: method, at: mem.Before, nth: 1, times: 2, what: what})
	}
	volume, snapshot := volumeStory(), snapshotStory()
	return []plant{
		{"DEADLINE_EXCEEDED turned INTERNAL", volume, atEnd("CreateVolume", foreignEnd), code(func(st *status.Status) codes.Code {
			if st.Code() == codes.DeadlineExceeded {
				return codes.Internal
			}
			return codes.OK
		})},
		{"a panic is INTERNAL", volume, atEnd("CreateVolume", panics), code(func(st *status.Status) codes.Code {
			if strings.Contains(st.Message(), "panic") {
				return codes.Internal
			}
			return codes.OK
		})},
		{"who joins gets NOT_FOUND", volume, atBegin("OpenVolume", untilCancelled), code(func(st *status.Status) codes.Code {
			if st.Code() == codes.Aborted {
				return codes.NotFound
			}
			return codes.OK
		})},
		{"the unknown is FAILED_PRECONDITION", volume, atEnd("kernel.Mount", plainError), code(func(st *status.Status) codes.Code {
			if st.Code() == codes.Unavailable {
				return codes.FailedPrecondition
			}
			return codes.OK
		})},
		{"a stage's OK is replayed", twiceStory(), newSchedule(), replayed("NodeStageVolume")},
		{"an attachment's OK is replayed", twiceStory(), newSchedule(), replayed("ControllerPublishVolume")},
		{"a delete that fails is OK", volume, atBegin("DeleteVolume", plainError), always("DeleteVolume")},
		{"a delete of a snapshot that fails is OK", snapshot, atBegin("DeleteSnapshot", plainError), always("DeleteSnapshot")},
		{"an unstage that fails is OK", volume, atBegin("CloseVolume", plainError), always("NodeUnstageVolume")},
		{"a detach that fails is OK", volume, atBegin("DetachVolume", plainError), always("ControllerUnpublishVolume")},
	}
}

// replayed answers from memory what was OK once.
func replayed(name string) grpc.UnaryServerInterceptor {
	var known sync.Map
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		if !strings.HasSuffix(info.FullMethod, "/"+name) {
			return h(ctx, req)
		}
		id := req.(interface{ GetVolumeId() string }).GetVolumeId()
		if resp, ok := known.Load(id); ok {
			return resp, nil
		}
		resp, err := h(ctx, req)
		if err == nil {
			known.Store(id, resp)
		}
		return resp, err
	}
}

// always answers OK.
func always(name string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		resp, err := h(ctx, req)
		if err == nil || !strings.HasSuffix(info.FullMethod, "/"+name) {
			return resp, err
		}
		switch req.(type) {
		case *csi.DeleteVolumeRequest:
			return &csi.DeleteVolumeResponse{}, nil
		case *csi.DeleteSnapshotRequest:
			return &csi.DeleteSnapshotResponse{}, nil
		case *csi.NodeUnstageVolumeRequest:
			return &csi.NodeUnstageVolumeResponse{}, nil
		}
		return &csi.ControllerUnpublishVolumeResponse{}, nil
	}
}

// TestPlanted: each fault of a driver is found.
func TestPlanted(t *testing.T) {
	for _, p := range planted() {
		t.Run(p.name, func(t *testing.T) {
			failures, trace := tell(t, p.story, p.schedule, p.interceptor)
			if len(failures) == 0 {
				t.Fatalf("not found\n%s", strings.Join(trace, "\n"))
			}
			t.Logf("found: %s", failures[0])
		})
	}
}
