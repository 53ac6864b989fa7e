package mutants

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// mutant is one over package mem; clauses are separated by spaces.
func mutant(class Class, name, clauses, does string, install func(*Rig)) Mutant {
	return Mutant{Name: name, Clauses: strings.Fields(clauses), Class: class, Does: does, Install: install}
}

// onLoop is the same over package loopfile.
func onLoop(m Mutant) Mutant {
	m.Base = Loop
	return m
}

// onBlock is onLoop, of raw block volumes.
func onBlock(m Mutant) Mutant {
	m.Base, m.Block = Loop, true
	return m
}

// unsure is the same, of a fault that is none in some drivers.
func unsure(m Mutant) Mutant {
	m.Unsure = true
	return m
}

// memory is what a driver keeps in its process.
type memory[V any] struct {
	mu sync.Mutex
	m  map[string]V
}

func (m *memory[V]) get(key string) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.m[key]
	return v, ok
}

func (m *memory[V]) put(key string, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil {
		m.m = make(map[string]V)
	}
	m.m[key] = v
}

func (m *memory[V]) drop(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.m, key)
}

func (m *memory[V]) hasPrefix(prefix string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.m {
		if strings.HasPrefix(k, prefix) {
			return true
		}
	}
	return false
}

func (m *memory[V]) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.m)
}

// remembering keeps the requests that were answered with OK, by key; failed gets
// each request that was not, with the one before of the same key.
func remembering[Q proto.Message](key func(Q) string, failed func(ctx context.Context, first, q Q, err error, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error)) func(*Rig) {
	return func(r *Rig) {
		var m memory[Q]
		around(r, func(ctx context.Context, q Q, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
			resp, err := next(ctx, q)
			first, ok := m.get(key(q))
			switch {
			case err == nil:
				m.put(key(q), q)
			case ok:
				return failed(ctx, first, q, err, next)
			}
			return resp, err
		})
	}
}

// conflictCode answers another code when a request conflicts with an earlier one in
// the way that differ tells.
func conflictCode[Q proto.Message](key func(Q) string, differ func(first, q Q) bool, from, to codes.Code) func(*Rig) {
	return remembering(key, func(_ context.Context, first, q Q, err error, _ func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
		if status.Code(err) == from && differ(first, q) {
			err = status.Error(to, status.Convert(err).Message())
		}
		return nil, err
	})
}

// conflictIgnored answers a request that conflicts with an earlier one as if it did
// not: like makes it equal in one field.
func conflictIgnored[Q proto.Message](key func(Q) string, with codes.Code, like func(q, first Q)) func(*Rig) {
	return remembering(key, func(ctx context.Context, first, q Q, err error, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
		if status.Code(err) != with {
			return nil, err
		}
		q = proto.Clone(q).(Q)
		like(q, first)
		return next(ctx, q)
	})
}

// when limits an edit of requests to some.
func requestWhen[Q proto.Message](when func(Q) bool, edit func(Q)) func(*Rig) {
	return request(func(q Q) {
		if when(q) {
			edit(q)
		}
	})
}

func always[Q any](Q) bool { return true }

// mountCapability is what drivers assume when nobody says.
func mountCapability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
}

func createName(q *csi.CreateVolumeRequest) string { return q.GetName() }

// controller is a client of the driver behind.
func (r *Rig) controller() csi.ControllerClient { return csi.NewControllerClient(r.conn) }

// exists asks the driver behind.
func (r *Rig) exists(ctx context.Context, volumeID string) bool {
	if volumeID == "" {
		return false
	}
	_, err := r.controller().ValidateVolumeCapabilities(ctx, &csi.ValidateVolumeCapabilitiesRequest{
		VolumeId: volumeID, VolumeCapabilities: []*csi.VolumeCapability{mountCapability()},
	})
	return status.Code(err) != codes.NotFound
}

// without takes capabilities out of a list.
func without[C any](list []C, drop func(C) bool) []C {
	var out []C
	for _, c := range list {
		if !drop(c) {
			out = append(out, c)
		}
	}
	return out
}

// printable leaves control characters out.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c <= 0x9f {
			return -1
		}
		return c
	}, s)
}

func relative(path string) bool { return path != "" && !strings.HasPrefix(path, "/") }

// after waits in a call, unless the call ends.
func after(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// detached is a context for work that goes on after its call.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
}

// unstageAgain finds fault with what is unstaged already.
func unstageAgain(r *Rig) {
	var staged memory[bool]
	around(r, func(ctx context.Context, q *csi.NodeStageVolumeRequest, next func(context.Context, *csi.NodeStageVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		resp, err := next(ctx, q)
		if err == nil {
			staged.put(q.GetStagingTargetPath(), true)
		}
		return resp, err
	})
	around(r, func(ctx context.Context, q *csi.NodeUnstageVolumeRequest, next func(context.Context, *csi.NodeUnstageVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		if _, ok := staged.get(q.GetStagingTargetPath()); q.GetStagingTargetPath() != "" && !ok {
			return nil, status.Errorf(codes.NotFound, "nothing is staged at %s", q.GetStagingTargetPath())
		}
		resp, err := next(ctx, q)
		if err == nil {
			staged.drop(q.GetStagingTargetPath())
		}
		return resp, err
	})
}
