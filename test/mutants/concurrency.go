package mutants

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
)

type (
	createNext   = func(context.Context, *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error)
	deleteNext   = func(context.Context, *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error)
	snapshotNext = func(context.Context, *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error)
	expandNext   = func(context.Context, *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error)
)

// window is how long a call takes at least, where two are to meet.
const window = 150 * time.Millisecond

// concurrency are faults of calls that meet, and of calls that are given up.
func concurrency() []Mutant {
	return []Mutant{
		mutant(Concurrency, "lock-per-driver", "GEN-12 CV-01", "one create at a time: that of another volume is INTERNAL, a final code", lockPerDriver),
		mutant(Concurrency, "create-twice-at-once", "CV-03 CV-02 GEN-12", "two creates of a name at once make two volumes", twice(func(q *csi.CreateVolumeRequest, name string) { q.Name = name })),
		mutant(Concurrency, "snapshot-twice-at-once", "CS-02 CS-11 GEN-12", "two snapshots of a name at once make two", twice(func(q *csi.CreateSnapshotRequest, name string) { q.Name = name })),
		mutant(Concurrency, "group-twice-at-once", "GV-03 GV-15 GEN-12", "two groups of a name at once: the second is INTERNAL", onlyOne[*csi.CreateVolumeGroupSnapshotRequest](
			(*csi.CreateVolumeGroupSnapshotRequest).GetName, codes.Internal)),
		mutant(Concurrency, "create-once-at-a-time", "CV-02 CV-03 GEN-12", "two creates of a name at once: the second is ALREADY_EXISTS", onlyOne[*csi.CreateVolumeRequest](
			(*csi.CreateVolumeRequest).GetName, codes.AlreadyExists)),
		mutant(Concurrency, "delete-once-at-a-time", "DV-02 GEN-12", "two deletes of a volume at once: the second is INTERNAL", onlyOne[*csi.DeleteVolumeRequest](
			(*csi.DeleteVolumeRequest).GetVolumeId, codes.Internal)),
		mutant(Concurrency, "delete-snapshot-once-at-a-time", "DS-02 DS-06 GEN-12", "two deletes of a snapshot at once: the second is FAILED_PRECONDITION", onlyOne[*csi.DeleteSnapshotRequest](
			(*csi.DeleteSnapshotRequest).GetSnapshotId, codes.FailedPrecondition)),
		mutant(Concurrency, "create-from-memory", "CV-01 CV-02 CV-40", "create is answered from memory after the volume was deleted", createFromMemory),
		mutant(Concurrency, "expand-and-snapshot-deadlock", "GEN-12", "growing a volume while it is cut: neither ever returns", deadlock),
		mutant(Concurrency, "second-create-hangs", "GEN-12 CV-02", "the second of two creates of a name at once never returns", secondHangs),
		mutant(Concurrency, "create-before-done", "CV-01 CV-02 CV-39 CP-10 VC-06 CG-03", "OK comes before the volume is there", createBeforeDone),
		mutant(Concurrency, "delete-before-done", "DV-01 DV-02", "OK comes before the volume is gone", deleteBeforeDone),
		mutant(Concurrency, "stage-before-done", "NS-01 NS-06 NP-01 NP-14", "OK comes before the volume is mounted", stageBeforeDone),
		mutant(Concurrency, "deadline-internal", "GEN-18 GEN-19 CV-02", "a create gives up just before its deadline with INTERNAL, a final code, and goes on", deadlineInternal),
		mutant(Concurrency, "aborted-for-ever", "GEN-18 GEN-12 GEN-19", "after a create was cancelled its name is ABORTED for ever", abortedForEver),
		mutant(Concurrency, "cancel-undoes", "GEN-19 GEN-18", "a create that was cancelled is undone, also when a retry had OK meanwhile", cancelUndoes),
		mutant(Concurrency, "retry-makes-another", "GEN-18 CV-02 CV-03", "a retry after a deadline makes a second volume", retryMakesAnother),
		mutant(Concurrency, "expand-lost", "CE-11 CE-05 CE-02", "of two growths at once the smaller one can win, after the bigger had OK", expandLost),
		mutant(Concurrency, "publish-twice-at-once", "NP-01 GEN-12", "two publishes of a target at once: the second is INTERNAL", onlyOne[*csi.NodePublishVolumeRequest](
			(*csi.NodePublishVolumeRequest).GetTargetPath, codes.Internal)),
		mutant(Concurrency, "attach-once-at-a-time", "CP-03 GEN-12", "two attaches of a volume at once: the second is ALREADY_EXISTS", onlyOne[*csi.ControllerPublishVolumeRequest](
			(*csi.ControllerPublishVolumeRequest).GetVolumeId, codes.AlreadyExists)),
		mutant(Concurrency, "many-creates-unknown", "GEN-12 CV-01", "of more than four creates at once one is UNKNOWN, a final code", manyCalls),
	}
}

// onlyOne answers a call about what another is about with an error.
func onlyOne[Q proto.Message](key func(Q) string, with codes.Code) func(*Rig) {
	return func(r *Rig) {
		var mu sync.Mutex
		busy := make(map[string]bool)
		around(r, func(ctx context.Context, q Q, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
			mu.Lock()
			taken := busy[key(q)]
			busy[key(q)] = true
			mu.Unlock()
			if taken {
				return nil, status.Errorf(with, "%q is being worked on", key(q))
			}
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				delete(busy, key(q))
			}()
			after(ctx, window)
			return next(ctx, q)
		})
	}
}

func lockPerDriver(r *Rig) {
	var lock sync.Mutex
	around(r, func(ctx context.Context, q *csi.CreateVolumeRequest, next createNext) (*csi.CreateVolumeResponse, error) {
		if !lock.TryLock() {
			return nil, status.Error(codes.Internal, "the driver is busy")
		}
		defer lock.Unlock()
		after(ctx, window)
		return next(ctx, q)
	})
}

// twice looks for the name, and then makes what it is of.
func twice[Q interface {
	proto.Message
	GetName() string
}](rename func(Q, string)) func(*Rig) {
	return func(r *Rig) {
		var seen counter
		around(r, func(ctx context.Context, q Q, next func(context.Context, Q) (proto.Message, error)) (proto.Message, error) {
			n, done := seen.enter(q.GetName())
			defer done()
			after(ctx, window)
			if n > 1 && q.GetName() != "" {
				q = proto.Clone(q).(Q)
				rename(q, fmt.Sprintf("%.100s (%d)", q.GetName(), n))
			}
			return next(ctx, q)
		})
	}
}

// counter counts the calls that run, by name.
type counter struct {
	mu sync.Mutex
	m  map[string]int
}

func (c *counter) enter(key string) (n int, done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[string]int)
	}
	c.m[key]++
	return c.m[key], func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.m[key]--
	}
}

func createFromMemory(r *Rig) {
	var made memory[*csi.CreateVolumeResponse]
	around(r, func(ctx context.Context, q *csi.CreateVolumeRequest, next createNext) (*csi.CreateVolumeResponse, error) {
		if resp, ok := made.get(q.GetName()); ok && q.GetVolumeContentSource() == nil {
			return resp, nil
		}
		resp, err := next(ctx, q)
		if err == nil {
			made.put(q.GetName(), resp)
		}
		return resp, err
	})
}

// deadlock has two methods take two locks of a volume in two orders.
func deadlock(r *Rig) {
	var growing, cutting counter
	meet := func(ctx context.Context, mine, other *counter, id string) {
		_, done := mine.enter(id)
		defer done()
		after(ctx, window)
		if n, leave := other.enter(id); n > 1 {
			leave()
			select {} // each holds what the other one wants
		} else {
			leave()
		}
	}
	around(r, func(ctx context.Context, q *csi.ControllerExpandVolumeRequest, next expandNext) (*csi.ControllerExpandVolumeResponse, error) {
		meet(ctx, &growing, &cutting, q.GetVolumeId())
		return next(ctx, q)
	})
	around(r, func(ctx context.Context, q *csi.CreateSnapshotRequest, next snapshotNext) (*csi.CreateSnapshotResponse, error) {
		meet(ctx, &cutting, &growing, q.GetSourceVolumeId())
		return next(ctx, q)
	})
}

func secondHangs(r *Rig) {
	var seen counter
	around(r, func(ctx context.Context, q *csi.CreateVolumeRequest, next createNext) (*csi.CreateVolumeResponse, error) {
		n, done := seen.enter(q.GetName())
		defer done()
		if n > 1 {
			select {} // it waits for a signal that was given already
		}
		after(ctx, window)
		return next(ctx, q)
	})
}

// createBeforeDone answers what the volume will be.
func createBeforeDone(r *Rig) {
	around(r, func(ctx context.Context, q *csi.CreateVolumeRequest, next createNext) (*csi.CreateVolumeResponse, error) {
		resp, err := next(ctx, q)
		if err != nil {
			return nil, err
		}
		r.hide(resp.GetVolume().GetVolumeId(), 5*window)
		return resp, nil
	})
	hideVolumes(r)
}

func deleteBeforeDone(r *Rig) {
	around(r, func(ctx context.Context, q *csi.DeleteVolumeRequest, next deleteNext) (*csi.DeleteVolumeResponse, error) {
		if !r.exists(ctx, q.GetVolumeId()) {
			return next(ctx, q)
		}
		ctx, cancel := detached(ctx)
		go func() {
			defer cancel()
			after(ctx, 5*window)
			_, err := next(ctx, q)
			r.log().Info("deleted", "volume", q.GetVolumeId(), "err", err)
		}()
		return &csi.DeleteVolumeResponse{}, nil
	})
}

func stageBeforeDone(r *Rig) {
	around(r, func(ctx context.Context, q *csi.NodeStageVolumeRequest, next func(context.Context, *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error)) (*csi.NodeStageVolumeResponse, error) {
		if q.GetVolumeId() == "" || q.GetStagingTargetPath() == "" || q.GetVolumeCapability() == nil || !r.exists(ctx, q.GetVolumeId()) {
			return next(ctx, q)
		}
		ctx, cancel := detached(ctx)
		go func() {
			defer cancel()
			after(ctx, 5*window)
			_, err := next(ctx, q)
			r.log().Info("staged", "volume", q.GetVolumeId(), "err", err)
		}()
		return &csi.NodeStageVolumeResponse{}, nil
	})
}

// slowly makes volumes in two windows, whatever becomes of the caller.
func slowly(ctx context.Context, q *csi.CreateVolumeRequest, next createNext) (*csi.CreateVolumeResponse, error) {
	type answer struct {
		resp *csi.CreateVolumeResponse
		err  error
	}
	got := make(chan answer, 1)
	work, cancel := detached(ctx)
	go func() {
		defer cancel()
		after(work, 2*window)
		resp, err := next(work, q)
		got <- answer{resp, err}
	}()
	select {
	case a := <-got:
		return a.resp, a.err
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

func deadlineInternal(r *Rig) {
	around(r, func(ctx context.Context, q *csi.CreateVolumeRequest, next createNext) (*csi.CreateVolumeResponse, error) {
		limited := ctx
		if t, ok := ctx.Deadline(); ok {
			var cancel context.CancelFunc
			limited, cancel = context.WithDeadline(ctx, t.Add(-window/5))
			defer cancel()
		}
		resp, err := slowly(limited, q, next)
		if limited.Err() != nil && err != nil {
			return nil, status.Error(codes.Internal, "the storage did not answer in time")
		}
		return resp, err
	})
}

func abortedForEver(r *Rig) {
	var locked memory[bool]
	around(r, func(ctx context.Context, q *csi.CreateVolumeRequest, next createNext) (*csi.CreateVolumeResponse, error) {
		if _, ok := locked.get(q.GetName()); ok {
			return nil, status.Errorf(codes.Aborted, "an operation for %q is pending", q.GetName())
		}
		resp, err := slowly(ctx, q, next)
		if ctx.Err() != nil {
			locked.put(q.GetName(), true) // the return that forgets to unlock
		}
		return resp, err
	})
}

func cancelUndoes(r *Rig) {
	around(r, func(ctx context.Context, q *csi.CreateVolumeRequest, next createNext) (*csi.CreateVolumeResponse, error) {
		resp, err := slowly(ctx, q, next)
		if ctx.Err() == nil {
			return resp, err
		}
		undo, cancel := detached(ctx)
		go func() {
			defer cancel()
			after(undo, 4*window) // a retry takes two
			id, err := r.backend.VolumeID(backends.CreateVolumeRequest{Name: q.GetName()})
			if err == nil {
				_, err = r.controller().DeleteVolume(undo, &csi.DeleteVolumeRequest{VolumeId: id, Secrets: q.GetSecrets()})
			}
			r.log().Info("cleaned up", "volume", q.GetName(), "err", err)
		}()
		return resp, err
	})
}

func retryMakesAnother(r *Rig) {
	var given memory[int]
	around(r, func(ctx context.Context, q *csi.CreateVolumeRequest, next createNext) (*csi.CreateVolumeResponse, error) {
		name := q.GetName()
		if n, ok := given.get(name); ok {
			q = proto.Clone(q).(*csi.CreateVolumeRequest)
			q.Name = fmt.Sprintf("%.100s (%d)", name, n)
		}
		resp, err := slowly(ctx, q, next)
		if ctx.Err() != nil {
			n, _ := given.get(name)
			given.put(name, n+1)
		}
		return resp, err
	})
}

// manyCalls is a driver whose table of connections is too small.
func manyCalls(r *Rig) {
	var running counter
	r.every(func(ctx context.Context, method string, req proto.Message, next next) (proto.Message, error) {
		n, done := running.enter("")
		defer done()
		if n > 4 && method == "CreateVolume" {
			return nil, status.Error(codes.Unknown, "runtime error: index out of range [4] with length 4")
		}
		if method == "CreateVolume" {
			after(ctx, window)
		}
		return next(ctx, req)
	})
}
